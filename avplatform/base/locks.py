"""locks."""

from __future__ import annotations

import time
from pathlib import Path

from avplatform.models.errors import DataError


class locked:  # noqa: N801
    """Hold a lock file for the time of a block; wait while another process holds it.

    The lock is the operating system's (flock), so a killed process leaves none behind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        import fcntl

        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("w")
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DataError(
                        f"another process has held {self.path} for an hour; stop it or delete the file"
                    ) from None
                time.sleep(0.2)

    def __exit__(self, *error: object) -> None:
        self._file.close()


LOCK_SECONDS = 3600
