"""Stopping a run: SIGTERM (preemption on a cluster) and Ctrl-C let it save its state and end.

A run that another program started ends when that program ends, for whatever reason. Otherwise it
would go on training unnoticed and keep its folder locked.

* A sweep holds one end of a pipe, which the system closes when the sweep ends. This needs no
  polling, works on every POSIX system, and also works if the sweep ends before the run is ready.
* torchrun and `accelerate launch` hold no such pipe. Under them, a run checks twice a second that
  its parent is still the same (on Windows, where that never changes, it learns nothing). A run that
  was started from a shell outlives the shell as usual.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, Self

END_WITH_STDIN = "AVPLATFORM_END_WITH_STDIN"
"""Environment variable for a command whose standard input is a pipe that its starter holds open."""
LOOK = 0.5
"""Seconds between two checks of the parent process."""
THREAD = "end-with-starter"


def end_with_starter() -> None:
    """Send SIGTERM to this process when the sweep or the launcher that started it ends."""
    # Commands that this process starts have another standard input, hence the pop.
    piped, parent = os.environ.pop(END_WITH_STDIN, None) is not None, os.getppid()
    if (not piped and not _launched(parent)) or any(
        thread.name == THREAD for thread in threading.enumerate()
    ):
        return
    pipe = os.dup(0) if piped else -1
    if piped:  # a program that asks a question must find the end of its input, not an idle pipe
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)

    def wait() -> None:
        while os.read(pipe, 1) if piped else os.getppid() == parent:
            time.sleep(0 if piped else LOOK)
        if os.name == "posix":  # wakes the main thread, whatever it waits for
            os.kill(os.getpid(), signal.SIGTERM)
        else:  # Windows would end this process at once, without its handler
            signal.raise_signal(signal.SIGTERM)

    threading.Thread(target=wait, name=THREAD, daemon=True).start()


def _launched(parent: int) -> bool:
    """Return whether the parent is torchrun or, where /proc tells, `accelerate launch`."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return True
    try:
        command = (
            Path(f"/proc/{parent}/cmdline")
            .read_text(encoding="utf-8", errors="replace")
            .split("\0")
        )
    except OSError:
        return False
    by_name = "launch" in command and any(Path(word).name == "accelerate" for word in command)
    return by_name or "accelerate.commands.launch" in command


class Stopped(Exception):  # noqa: N818
    """The run has saved its state and ends because of a signal."""

    def __init__(self, signum: int, step: int, folder: str) -> None:
        self.signum, self.step = signum, step
        super().__init__(
            f"stopped by {signal.Signals(signum).name} after step {step}; all is saved, go on with "
            f"--resume {folder}"
        )


class StopSignals:
    """A context in which SIGTERM and SIGINT are recorded; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self.received: int = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGTERM, signal.SIGINT):
                self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT and self.received == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signum
