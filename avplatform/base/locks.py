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
"""Seconds that `locked` waits for another process."""
POLL = 0.05
"""Seconds between two attempts to take a lock that another process holds."""
FOLDERS_OPEN = os.name == "posix"
"""Whether the system can open, and so lock, a folder; Windows cannot."""


class Lock:
    """A lock of the operating system on a lock file or on an existing folder.

    A missing lock file is created, unless `create` is False. The system releases the lock when the
    process ends, however it ends. On a file system without locks no process is kept out. On a
    system that cannot lock folders, the lock of a folder is the file .NAME.lock beside it, which
    does not move with the folder.

    Args:
        path: the lock file, which then holds the id of the process that has the lock, or a folder.
        busy: makes the error to raise while another process holds the lock, from the id of that
            process or "unknown".
        wait: seconds to wait for another process to release the lock.
        create: create a missing lock file; False for a folder that may be moved meanwhile.
    """

    def __init__(
        self,
        path: Path,
        busy: Callable[[str], AVError],
        *,
        wait: float = 0.0,
        create: bool = True,
    ) -> None:
        self.path, self.busy, self.wait, self.create = path, busy, wait, create
        self._file = path
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Take the lock; return False on a file system without locks.

        Raises:
            AVError: another process holds the lock; this is the error that `busy` makes.
            FileNotFoundError: it is missing, and `create` is False.
            OSError: the lock file cannot be opened for writing.
        """
        from filelock import lock_descriptor

        deadline = time.monotonic() + self.wait
        self._file = self.path
        if not FOLDERS_OPEN and self.path.is_dir():
            beside = self.path.absolute()
            self._file = beside.with_name(f".{beside.name}.lock")
        while True:
            with contextlib.ExitStack() as stack:
                descriptor = self._open()
                stack.callback(os.close, descriptor)
                try:
                    free = lock_descriptor(descriptor, blocking=False)
                except OSError:
                    return False
                if free and self._sign(descriptor):
                    stack.pop_all()
                    self._descriptor = descriptor
                    return True
                if not free and time.monotonic() >= deadline:
                    raise self.busy(_holder(descriptor))
            # Free, but the file was deleted: its successor can be tried at once.
            time.sleep(0 if free else POLL)

    def release(self) -> None:
        """Release the lock if it is held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def _open(self) -> int:
        if self._file == self.path and (not self.create or self.path.is_dir()):
            return os.open(self.path, os.O_RDONLY)
        while True:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # the folder was removed in between
                return os.open(self._file, os.O_RDWR | os.O_CREAT, 0o666)

    def _sign(self, descriptor: int) -> bool:
        """Write the process id to the lock file; return False if the file was deleted meanwhile.

        Other processes would then lock a new file of the same name.
        """
        try:
            if not os.path.samestat(os.fstat(descriptor), self._file.stat()):
                return False
        except FileNotFoundError:
            return False
        if not self._file.is_dir():
            with contextlib.suppress(OSError):  # a full disk; the id is only for messages
                os.ftruncate(descriptor, 0)
                os.write(descriptor, str(os.getpid()).encode())
        return True


def locked(path: Path) -> Lock:
    """Return a lock for a `with` block that waits up to an hour while another process holds it.

    Raises:
        DataError: another process still holds the lock after an hour.
    """
    return Lock(
        path,
        lambda holder: DataError(
            f"another process has held {path} for an hour; stop it or delete the file"
        ),
        wait=HOUR,
    )


def _holder(descriptor: int) -> str:
    """Return the process id in a lock file, or "unknown", which it is for every folder."""
    with contextlib.suppress(OSError):
        return os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
    return "unknown"
