"""The hidden folder of a store that is being written, with a lock and a journal for resuming."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from avplatform.base.files import publish
from avplatform.base.locks import Lock
from avplatform.models.errors import DataError, UsageError
from avplatform.models.files import write_atomic

JOURNAL, LOCK, STORE = "journal.json", "lock", "store"


class PartialFolder:
    """The folder `.NAME.partial` beside the place where a store will appear.

    Args:
        path: the store's final folder; it appears by renaming when the store is complete.
        fingerprint: identifies what is written; a later attempt with the same fingerprint resumes.
            None: nothing is kept for a later attempt.
        replace: the folder may hold an older store, which the new one takes the place of.
        note: called with a message when an earlier attempt is resumed or discarded.
    """

    def __init__(
        self,
        path: Path,
        *,
        fingerprint: str | None = None,
        replace: bool = False,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.path, self.fingerprint, self._note = path, fingerprint, note or (lambda text: None)
        self.replace = replace
        suffix = "partial" if fingerprint is not None else f"partial-{os.getpid()}"
        self.base = path.with_name(f".{path.name}.{suffix}")
        self.folder = self.base / STORE
        self._lock = Lock(
            self.base / LOCK,
            lambda owner: DataError(
                f"another process (id {owner}) is writing {path}; "
                "wait for it, or give another folder"
            ),
        )

    def open(self) -> dict[str, Any]:
        """Lock the folder and return the journal of an earlier attempt, or an empty one.

        Raises:
            DataError: another process is writing the same store.
            UsageError: the store's folder is not empty, or the partial folder's name is taken.
        """
        if self.fingerprint is None:
            check_empty(self.path, replace=self.replace)
            shutil.rmtree(self.base, ignore_errors=True)
            self.folder.mkdir(parents=True)
            return {}
        if self.base.exists() and (
            not self.base.is_dir() or (any(self.base.iterdir()) and not (self.base / LOCK).exists())
        ):
            raise UsageError(f"{self.base} was not made by avplatform; move it out of the way")
        self._lock.take()
        try:  # only now: another process may have finished while this one waited for the lock
            check_empty(self.path, replace=self.replace)
        except UsageError:
            self.close(keep=False)
            raise
        journal = self._journal()
        if journal.get("fingerprint") == self.fingerprint and self.folder.is_dir():
            return journal
        if journal:
            self._note(f"{self.base} was begun with other options or sources; starting again")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.record({})
        return {}

    def record(self, content: dict[str, Any]) -> None:
        """Write the journal: what a later attempt need not repeat."""
        if self.fingerprint is None:
            return
        content = {"fingerprint": self.fingerprint, **content}
        write_atomic(self.base / JOURNAL, json.dumps(content))

    def publish(self) -> None:
        """Move the finished store to its final folder."""
        publish(self.folder, self.path, replace=self.replace)

    def close(self, *, keep: bool) -> None:
        """Release the lock; without `keep`, also remove the folder."""
        if not keep or self.fingerprint is None:
            shutil.rmtree(self.base, ignore_errors=True)
        self._lock.release()

    def _journal(self) -> dict[str, Any]:
        try:
            journal = json.loads((self.base / JOURNAL).read_text(encoding="utf-8"))
            return journal if isinstance(journal, dict) else {}
        except (OSError, ValueError):
            return {}


def check_empty(path: Path, *, replace: bool = False) -> None:
    """Check that a store can be written to a folder, which may hold one only to `replace` it.

    Raises:
        UsageError: it is not empty, not a folder, or the current directory (which cannot be
            replaced), or Arrow cannot write to a path of that name.
    """
    if path.name in ("", "..") or path.resolve() == Path.cwd():
        raise UsageError(f"{path} cannot be replaced; give a new folder by its name")
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"the name of {path.absolute()} is not UTF-8, which Arrow needs; give another folder"
        ) from None
    if path.exists() and (not path.is_dir() or (not replace and any(path.iterdir()))):
        raise UsageError(f"{path} exists and is not empty; give a new folder")
