"""Being told to stop: SIGTERM (a cluster's preemption) and Ctrl-C let a run save its state and end.

A run that another program started ends with it, however that one ended: else it would train on unseen, and lock its folder.

* A sweep holds one end of a pipe, which the system closes when the sweep is gone. That needs no polling, works on every POSIX
  system, and leaves no moment in which a starter could be missed.
* torchrun and `accelerate launch` hold no such pipe; with them, a run looks twice a second whether its parent is still the
  same. A run that nobody launched in this way outlives its shell as ever.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

END_WITH_STDIN = "AVPLATFORM_END_WITH_STDIN"
"""Set for a command whose standard input is a pipe that its starter holds open for as long as it lives."""
LOOK = 0.5
"""Seconds between two looks for a launcher."""
THREAD = "end-with-starter"


def end_with_starter() -> None:
    """Let SIGTERM reach this process when the sweep or the launcher that started it is gone."""
    # Commands that this one starts have a standard input of their own, hence the pop.
    piped, parent = os.environ.pop(END_WITH_STDIN, None) is not None, os.getppid()
    if (not piped and not _launched(parent)) or any(
        thread.name == THREAD for thread in threading.enumerate()
    ):
        return
    pipe = os.dup(0) if piped else -1
    if piped:  # what asks a question finds the end of its input, not a pipe into which nobody will ever write
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)

    def wait() -> None:
        while os.read(pipe, 1) if piped else os.getppid() == parent:
            time.sleep(0 if piped else LOOK)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name=THREAD, daemon=True).start()


def _launched(parent: int) -> bool:
    """Whether the parent is torchrun, or `accelerate launch` on a system that shows its command."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return True
    try:
        command = Path(f"/proc/{parent}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return False
    by_name = "launch" in command and any(Path(word).name == "accelerate" for word in command)
    return by_name or "accelerate.commands.launch" in command


class Stopped(Exception):  # noqa: N818
    """The run has saved its state and ends because of a signal."""

    def __init__(self, signum: int, step: int, folder: str) -> None:
        self.signum, self.step = signum, step
        super().__init__(
            f"stopped by {signal.Signals(signum).name} after step {step}; all is saved, go on with --resume {folder}"
        )


class StopSignals:
    """While it is open, SIGTERM and SIGINT are noted, not obeyed; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self.received: int = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGTERM, signal.SIGINT):
                self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT and self.received == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signum
