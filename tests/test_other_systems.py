"""Windows and macOS: nothing that only Linux or POSIX has is needed to import, train or predict.

These tests take away, on a POSIX system, what Windows lacks. They do not run on Windows itself.
"""

import ast
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from avplatform.base import locks
from avplatform.base.console import Console
from avplatform.base.locks import Lock
from avplatform.models.errors import DataError
from avplatform.sweeps import runner
from avplatform.sweeps.runner import Job, run_jobs
from tests.import_graph import imports, modules
from tests.journey import make_folder, travel

ROOT = Path(__file__).resolve().parent.parent
MODULES = (
    *("fcntl", "resource", "pwd", "grp", "spwd", "termios", "tty", "pty", "posix", "syslog"),
    *("crypt", "nis", "ossaudiodev", "readline", "curses", "_posixsubprocess"),
)
NAMES = {
    "os": (
        *("fork", "forkpty", "killpg", "getpgid", "getpgrp", "setpgid", "setsid", "getsid"),
        *("getuid", "geteuid", "getgid", "getegid", "setuid", "chown", "lchown", "mkfifo"),
        *("mknod", "nice", "getpriority", "getloadavg", "sched_getaffinity", "sched_yield"),
        *("statvfs", "sysconf", "uname", "wait", "wait3", "wait4", "openpty", "pread", "pwrite"),
        *("sync", "posix_fadvise", "posix_fallocate", "sendfile", "chroot", "ttyname"),
    ),
    "signal": (
        *("SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGCHLD", "SIGQUIT"),
        *("SIGSTOP", "SIGCONT", "SIGTSTP", "alarm", "setitimer", "pause", "sigwait"),
        *("pthread_kill", "pthread_sigmask", "siginterrupt"),
    ),
}
"""What Windows lacks of a module, as far as a program like this might use it."""
OTHERS = """
# Other packages see that this is a POSIX system, and take what it has while they are imported.
import accelerate, av, datasets, huggingface_hub, pyarrow.parquet, timm, torch, transformers, tyro
import matplotlib.figure, torch.distributed.checkpoint.state_dict, torch.distributed.tensor
"""
BLOCK = f"""
import builtins, os, signal
plain = builtins.__import__

def without(name, given=None, *rest, **more):
    asking = (given or {{}}).get("__name__", "")
    if asking.partition(".")[0] == "avplatform" and name.partition(".")[0] in {MODULES!r}:
        raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
    return plain(name, given, *rest, **more)

builtins.__import__ = without
for module, names in (({NAMES["os"]!r}, os), ({NAMES["signal"]!r}, signal)):
    for name in module:
        if hasattr(names, name):
            delattr(names, name)
"""
NEEDING = re.compile(
    r"\bos\.(?:fork|mkfifo|killpg|getuid|geteuid|setsid)\b|\bSIG(?:KILL|STOP|CONT|HUP|ALRM)\b"
    r"|symlink_to\(|\.chmod\(|preexec_fn|^import (?:fcntl|resource|pwd|termios)\b"
    r"|get_context\(\"fork|os\.kill\(",
    re.MULTILINE,
)
"""What a test needs a POSIX system for."""
SAYING = re.compile(
    r"needs_posix|os\.name|hasattr\(os|from tests import processes|importorskip\(\"resource\""
)
"""How a test says that it does."""


def unguarded(source: str) -> list[str]:
    """Return the uses of what POSIX alone has, outside a condition on the system or a `try`."""
    found = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and re.search(
            r"os\.name|sys\.platform|hasattr", ast.unparse(node.test)
        ):
            return
        if isinstance(node, ast.Try) and {"AttributeError", "ImportError"} & {
            name.id
            for handler in node.handlers
            for name in ast.walk(handler)
            if isinstance(name, ast.Name)
        }:
            return
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Expr | ast.Assign):
            names = (name for name, _ in imports(ast.unparse(node)))
            found.extend(name for name in names if name.partition(".")[0] in MODULES)
        owner = getattr(getattr(node, "value", None), "id", "")
        if isinstance(node, ast.Attribute) and node.attr in NAMES.get(owner, ()):
            found.append(f"{owner}.{node.attr}")
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(source))
    return found


@pytest.mark.skipif(os.name != "posix", reason="takes away what only a POSIX system has")
def test_what_windows_lacks_is_not_needed_to_import_train_score_and_predict(tmp_path, small_stores):
    pytest.importorskip("av", reason="needs PyAV (pip install avplatform[media])")
    done = travel(make_folder(tmp_path / "trip"), small_stores["avel"], before=OTHERS + BLOCK)
    assert done.returncode == 0 and done.stdout.endswith("arrived\n"), done.stderr[-3000:]


@pytest.mark.skipif(os.name != "posix", reason="takes away what only a POSIX system has")
@pytest.mark.parametrize(
    ("line", "said"), [("import resource", "resource"), ("signal.SIGKILL", "SIGKILL")]
)
def test_what_was_taken_away_would_be_missed(line, said):
    code = f"from pathlib import Path\n{BLOCK}\nexec({line!r}, {{'__name__': 'avplatform.x', "
    done = subprocess.run(
        [sys.executable, "-c", code + "'signal': signal})"], capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 1 and said in done.stderr.splitlines()[-1]


def test_what_posix_alone_has_is_used_under_a_condition():
    files = {**modules(ROOT), "train": ROOT / "train.py"}
    found = {name: unguarded(file.read_text(encoding="utf-8")) for name, file in files.items()}
    assert {name: uses for name, uses in found.items() if uses} == {}


@pytest.mark.parametrize(
    ("source", "uses"),
    [
        ("import fcntl", ["fcntl"]),
        ("def f():\n    from resource import getrusage", ["resource"]),
        ("os.kill(1, signal.SIGKILL)", ["signal.SIGKILL"]),
        ('if os.name == "posix":\n    os.killpg(1, 9)', []),
        ('if os.name == "posix":\n    pass\nelse:\n    x', []),
        ("try:\n    os.sysconf(1)\nexcept AttributeError:\n    pass", []),
        ("try:\n    import resource\nexcept (ImportError, OSError):\n    pass", []),
        ("try:\n    import resource\nexcept OSError:\n    pass", ["resource"]),
        ('module = import_module("fcntl")', ["fcntl"]),
    ],
)
def test_a_use_of_what_posix_alone_has_is_found(source, uses):
    assert unguarded(source) == uses


def test_tests_that_need_posix_say_so():
    own = {Path(__file__).name, "golden"}
    silent = [
        str(file.relative_to(ROOT))
        for file in sorted((ROOT / "tests").rglob("*.py"))
        if not own & {file.name, file.parent.name}
        and NEEDING.search(text := file.read_text(encoding="utf-8"))
        and not SAYING.search(text)
    ]
    assert silent == []


def test_where_folders_cannot_be_locked_a_file_beside_them_is(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "FOLDERS_OPEN", False)
    folder = tmp_path / "run"
    folder.mkdir()

    def busy(holder):
        return DataError(f"process {holder} has it")

    with Lock(folder, busy, create=False):
        assert (tmp_path / ".run.lock").is_file() and not list(folder.iterdir())
        with pytest.raises(DataError, match="has it"):
            Lock(folder, busy).take()
    with Lock(folder, busy):
        pass
    with pytest.raises(FileNotFoundError):
        Lock(tmp_path / "missing", busy, create=False).take()
    monkeypatch.chdir(folder)
    with Lock(Path("."), busy):
        assert not list(folder.iterdir())


SAVING = """
import os, signal, sys, time
from types import SimpleNamespace
from avplatform.base import stopping
stopping.os = SimpleNamespace(**{**vars(os), "name": "nt", "kill": None})
def save(*_):
    open("saved", "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
stopping.end_with_starter()
open("ready", "w").close()
while True:
    time.sleep(0.02)
"""


def test_without_signals_a_sweep_ends_its_jobs_by_the_end_of_their_input(tmp_path, monkeypatch):
    """The job saves its state, though Windows has no signal that would ask it to."""
    plain = {"name": "nt", "environ": {**os.environ, "PYTHONPATH": str(ROOT)}}
    monkeypatch.setattr(runner, "os", SimpleNamespace(**plain))
    monkeypatch.chdir(tmp_path)

    def interrupted(seconds):
        time.sleep(0.02)
        if (tmp_path / "ready").exists():
            raise KeyboardInterrupt

    stopwatch = SimpleNamespace(monotonic=time.monotonic, sleep=interrupted)
    monkeypatch.setattr(runner, "time", stopwatch)
    job = Job(name="long", command=lambda: ["-c", SAVING], done=lambda: False)
    with pytest.raises(KeyboardInterrupt):
        run_jobs([job], logs=tmp_path / "logs", parallel=1, console=Console(enabled=False))
    assert (tmp_path / "saved").exists()
