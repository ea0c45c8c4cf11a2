"""Locks that keep other processes out of a file or a folder."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from avplatform.models.errors import AVError, DataError

HOUR = 3600.0
POLL = 0.05
"""Seconds between two attempts to take a lock that another process holds."""


class Lock:
    """A lock of the operating system on a lock file, which is made where it is missing, or on a folder that exists.

    The system frees it when the process ends, however it ends. On a file system without locks nobody is kept out.

    Args:
        path: the lock file, which then holds the id of the process that has the lock, or the folder.
        busy: makes the error for a lock that another process holds; it is given that process's id, or "unknown".
        wait: seconds that the other process is given to let go.
    """

    def __init__(self, path: Path, busy: Callable[[str], AVError], *, wait: float = 0.0) -> None:
        self.path, self.busy, self.wait = path, busy, wait
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Take the lock; return False on a file system without locks.

        Raises:
            AVError: another process holds it; the error that `busy` makes.
            OSError: the lock file cannot be opened for writing.
        """
        from filelock import lock_descriptor

        until = time.monotonic() + self.wait
        while True:
            with contextlib.ExitStack() as stack:
                descriptor = self._open()
                stack.callback(os.close, descriptor)
                try:
                    free = lock_descriptor(descriptor, blocking=False)
                except OSError:
                    return False
                if free and self._in_place(descriptor):
                    stack.pop_all()
                    self._descriptor = descriptor
                    return True
                if not free and time.monotonic() >= until:
                    raise self.busy(_holder(descriptor))
            time.sleep(0 if free else POLL)

    def release(self) -> None:
        """Give the lock up, where it is held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def _open(self) -> int:
        if self.path.is_dir():
            return os.open(self.path, os.O_RDONLY)
        while True:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # the folder was removed in between
                return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)

    def _in_place(self, descriptor: int) -> bool:
        """Sign the lock file; return False where it was deleted meanwhile: then others lock another file."""
        try:
            if not os.path.samestat(os.fstat(descriptor), self.path.stat()):
                return False
        except FileNotFoundError:
            return False
        if not self.path.is_dir():
            with contextlib.suppress(OSError):  # a full disk; the id is only for messages
                os.ftruncate(descriptor, 0)
                os.write(descriptor, str(os.getpid()).encode())
        return True


def locked(path: Path) -> Lock:
    """Return a lock for a `with` block that waits up to an hour while another process holds it.

    Raises:
        DataError: the hour is over.
    """
    return Lock(
        path,
        lambda holder: DataError(
            f"another process has held {path} for an hour; stop it or delete the file"
        ),
        wait=HOUR,
    )


def _holder(descriptor: int) -> str:
    """Return the id that the holder wrote into its lock file; a folder has no such note."""
    with contextlib.suppress(OSError):
        return os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
    return "unknown"
