"""Being told to stop: SIGTERM (a cluster's preemption) and Ctrl-C let a run save its state and end.

A command that another one started ends with it: it holds one end of a pipe, which the system closes when the other one is
gone, however it went. That needs no polling, works on every POSIX system, and leaves no moment in which a parent could be
missed, as asking for the parent's number would.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

END_WITH_STDIN = "AVPLATFORM_END_WITH_STDIN"
"""Set for a command whose standard input is a pipe that its starter holds open for as long as it lives."""


def end_with_starter() -> None:
    """Let SIGTERM reach this process when the one that started it is gone, if that one has asked for it."""
    if os.environ.pop(END_WITH_STDIN, None) is None:  # commands that this one starts have a standard input of their own
        return

    def wait() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="end-with-starter", daemon=True).start()


class Stopped(Exception):  # noqa: N818 - not an error: the run did what it was told
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

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT and self.received == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signum
