"""A child process that does one item of work after the other, with limits of time and memory.

Decoders are large programs in C that read files from anywhere. Whatever such a file does to its
process, the worker of the cluster outlives it: it starts another child, and the item is an answer
with a reason.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from avplatform.base.stopping import END_WITH_STDIN, end_with_starter
from avplatform.models.errors import AVError, DataError, UsageError, one_line
from avplatform.version import __version__

Work = Callable[[dict[str, Any]], str]
"""Does an item and returns a text about it; raises DataError where the item is bad."""
Status = Literal["done", "bad", "stop"]
STARTING = 600.0
"""Seconds in which a child has to load its networks."""
GIB = 2**30
TRIES = 2


@dataclass(kw_only=True, frozen=True)
class Answer:
    """What became of an item.

    `status` is "done"; "bad", where only this item cannot be done; or "stop", where nothing can be
    done until the user has mended something. `text` is the reason, or what the work returned.
    """

    status: Status
    text: str = ""
    seconds: float = 0.0


class Child:
    """Does items in a process of its own, which is started anew when it has ended.

    An item whose process ends is tried once more in a new process, since the system may have ended
    the first one for the memory that others took. A process that ends before it can work says
    nothing about the item, and stops the work.

    Args:
        make: pickled function without arguments, called in the child, that returns the `Work`.
        seconds: most seconds for one item.
        memory: most memory of the process in GiB; 0 for any.
        folder: where relative paths begin; a node may lack it where all paths are absolute.
        version: version of avplatform that the process must have.
    """

    def __init__(
        self,
        make: bytes,
        *,
        seconds: float,
        memory: float = 0.0,
        folder: str = ".",
        version: str = __version__,
    ) -> None:
        self._begin, self._seconds = (make, memory, folder, version), seconds
        self._process: subprocess.Popen | None = None
        self._pipe: Connection | None = None
        self._temporary: TemporaryDirectory | None = None

    def do(self, item: dict[str, Any]) -> Answer:
        """Return what became of an item; never raises."""
        begun = time.monotonic()
        answer = self._tried(item)
        return replace(answer, seconds=time.monotonic() - begun)

    def _tried(self, item: dict[str, Any]) -> Answer:
        for _ in range(TRIES):
            not_begun = self._start() if self._process is None else None
            found = not_begun or self._exchange(item, seconds=self._seconds)
            if isinstance(found, Answer):
                return found
        if not_begun:
            text = f"a worker on {platform.node()} cannot load its networks: {not_begun}"
            return Answer(status="stop", text=text)
        return Answer(status="bad", text=f"{item['name']}: {found}, {TRIES} times; it was left out")

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for end in (self._process.stdin, self._pipe):
                if end is not None:
                    end.close()
        if self._temporary is not None:
            self._temporary.cleanup()
        self._process = self._pipe = self._temporary = None

    def _start(self) -> Answer | str | None:
        """Start the process and wait until it can work: None, an error, or why it ended."""
        ours, theirs = Pipe()
        # What a process that is killed leaves in it, such as a video, is removed with it.
        self._temporary = TemporaryDirectory(prefix="avplatform-", ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "avplatform.scale.child", str(theirs.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            env={**os.environ, END_WITH_STDIN: "1", "TMPDIR": self._temporary.name},
        )
        theirs.close()
        self._pipe = ours
        return self._exchange(self._begin, seconds=STARTING, starting=True)

    def _exchange(
        self, message: Any, *, seconds: float, starting: bool = False
    ) -> Answer | str | None:
        """Send a message and return the answer, or why the process ended."""
        assert self._pipe is not None and self._process is not None
        try:
            self._pipe.send(message)
            if not self._pipe.poll(seconds):
                self.close()
                if starting:
                    text = f"a worker could not load its networks within {seconds:.0f} s"
                    return Answer(status="stop", text=text)
                text = f"{message['name']} took a worker more than {seconds:.0f} s (see "
                return Answer(status="bad", text=f"{text}--worker-seconds); it was left out")
            answer = self._pipe.recv()
        except (OSError, EOFError):
            code = self._process.wait()
            self.close()
            return _why(code)
        if answer is not None and answer.status == "memory":
            self.close()
            return f"it needs more memory than a worker has ({answer.text})"
        return answer


@dataclass(kw_only=True, frozen=True)
class _OutOfMemory:
    text: str
    status: str = "memory"


def check_shared(folder: Path) -> None:
    """Check, on a node, that a folder which the driver has made is there.

    Raises:
        UsageError: it is not; what the node writes would be lost.
    """
    if not folder.is_dir():
        raise UsageError(
            f"{platform.node()} does not see {folder.absolute()}; give a folder that all nodes "
            "share"
        )


def _why(code: int) -> str:
    if code >= 0:
        return f"its process ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    cause = "too little memory, or a fault in a decoder"
    return f"its process was ended by {name} ({cause})"


def main() -> None:
    """Do items until the starter of this process ends."""
    end_with_starter()
    pipe = Connection(int(sys.argv[1]))
    _end_first()
    try:
        make, memory, folder, version = pipe.recv()
        with contextlib.suppress(OSError):
            os.chdir(folder)
        work = _answer(lambda: _begin(make, memory, version))
        pipe.send(None if callable(work) else work)
        while callable(work):
            item = pipe.recv()
            pipe.send(_answer(lambda item=item: work(item), name=item["name"]))  # type: ignore[misc]
    except (EOFError, OSError):  # the starter has ended
        pass


def _begin(make: bytes, memory: float, version: str) -> Work:
    if version != __version__:
        raise UsageError(
            f"{platform.node()} has avplatform {__version__}, the driver {version}; install the "
            "same"
        )
    _limit(memory)
    begin: Callable[[], Work] = pickle.loads(make)
    return begin()


def _answer(act: Callable[[], Any], *, name: str = "") -> Any:
    """Return what an act returned, or its error, as an answer.

    Args:
        act: begins the work, whose errors stop all; or does an item.
        name: the name of the item.
    """
    try:
        found = act()
        return Answer(status="done", text=found or "") if name else found
    except DataError as error:
        return Answer(status="bad" if name else "stop", text=str(error))
    except AVError as error:
        return Answer(status="stop", text=str(error))
    except Exception as error:
        if out_of_memory(error):
            return _OutOfMemory(text=one_line(error, 300))
        where = f"{name}: " if name else ""
        return Answer(status="stop", text=f"{where}{one_line(error, 300, named=True)}")


def out_of_memory(error: Exception) -> bool:
    """Return whether an error says that there is too little memory."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool({"MemoryError", "OutOfMemoryError"} & names) or any(
        words in str(error).lower() for words in ("can't allocate memory", "cannot allocate memory")
    )


def _limit(memory: float) -> None:
    """Limit the memory of this process to some GiB, where the system can."""
    if not memory:
        return
    most = int(memory * GIB)
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    except (AttributeError, ImportError, OSError, ValueError) as error:
        raise UsageError(f"the memory of a worker cannot be limited here ({error})") from None


def _end_first() -> None:
    """Tell Linux to end this process, and not the node's own, when memory runs out."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="utf-8") as f:
        f.write("1000")


if __name__ == "__main__":
    # Pickled answers must name this module, and not __main__.
    from avplatform.scale.child import main as _main

    _main()
