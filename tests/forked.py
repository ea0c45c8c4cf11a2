"""Fresh Python processes that start soon: forked from one that has imported torch and its like.

Nothing of ours is imported there, nor what reads the environment while it is imported, as the
client of the Hub does: each process does so in its own environment. Only what Python and torch read
when they start, such as OMP_NUM_THREADS, is that of the tests.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

LATER = {"avplatform", "accelerate", "datasets", "huggingface_hub", "transformers"}


def run_forked(
    code: str, *args: str, env: dict[str, str], cwd: Path, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run code with arguments as `python -c` does; return its exit code and what it wrote.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    if not hasattr(os, "fork") or sys.platform == "darwin":  # there, forks with torch are not safe
        return subprocess.run(
            [sys.executable, "-c", code, *args],
            env=env, cwd=cwd, timeout=timeout, capture_output=True, encoding="utf-8",
        )  # fmt: skip
    server = _server()
    assert server.stdin and server.stdout
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder, name)) for name in ("stdout", "stderr")]
        asked = {"code": code, "args": args, "env": env, "cwd": str(cwd), "files": files}
        server.stdin.write(json.dumps(asked).encode() + b"\n")
        child = int(_line(server))
        late = not select.select([server.stdout], [], [], timeout)[0]
        if late:
            os.killpg(child, signal.SIGKILL)
        status = int(_line(server))
        texts = [Path(file).read_text(encoding="utf-8") for file in files]
    if late:
        raise subprocess.TimeoutExpired(code, timeout, *texts)
    return subprocess.CompletedProcess(code, status, *texts)


@cache
def _server() -> subprocess.Popen[bytes]:
    """Start the process to fork from, which ends when this one does."""
    pipe = subprocess.PIPE  # without a buffer, where `select` would not see a line
    return subprocess.Popen([sys.executable, __file__], bufsize=0, stdin=pipe, stdout=pipe)


def _line(server: subprocess.Popen[bytes]) -> bytes:
    """Return the next line of the process to fork from.

    Raises:
        RuntimeError: it has ended; the next call starts another one.
    """
    assert server.stdout
    line = server.stdout.readline()
    if not line:
        _server.cache_clear()
        raise RuntimeError(f"the process to fork from has ended with {server.wait()}")
    return line


def _serve() -> str:
    """Fork a process for each request; return, in the forked one, the code that it is to run."""
    answers = os.dup(1)
    while line := sys.stdin.readline():
        child = os.fork()
        if not child:
            os.close(answers)
            return _begin(**json.loads(line))
        os.write(answers, b"%d\n" % child)
        os.write(answers, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    sys.exit()


def _begin(code: str, args: list[str], env: dict[str, str], cwd: str, files: list[str]) -> str:
    os.setsid()  # so that it can be killed with what it starts
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.path[0:1] = ["", *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = ["-c", *args]
    return code


if __name__ == "__main__":
    import jinja2  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.dataset  # noqa: F401
    import torch  # noqa: F401

    assert not LATER & sys.modules.keys()
    exec(compile(_serve(), "<string>", "exec"), sys.modules["__main__"].__dict__)
