"""The folder in which a store grows until it is whole: hidden, locked, and with a journal where it can be resumed."""

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
    """`.NAME.partial` beside a store that is being written.

    Args:
        path: the store's folder, which appears by renaming.
        fingerprint: what is being written; a later attempt with the same one goes on. None: nothing is kept for a later one.
        note: told when something is resumed or thrown away.
    """

    def __init__(
        self,
        path: Path,
        *,
        fingerprint: str | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.path, self.fingerprint, self._note = path, fingerprint, note or (lambda text: None)
        suffix = "partial" if fingerprint is not None else f"partial-{os.getpid()}"
        self.base = path.with_name(f".{path.name}.{suffix}")
        self.folder = self.base / STORE
        self._lock = Lock(
            self.base / LOCK,
            lambda owner: DataError(
                f"another process (id {owner}) is writing {path}; wait for it, or give another folder"
            ),
        )

    def open(self) -> dict[str, Any]:
        """Take the folder and return the journal of an earlier attempt, or an empty one.

        Raises:
            DataError: another process writes there.
            UsageError: the store's folder is not empty, or a stranger's folder has the partial one's name.
        """
        if self.fingerprint is None:
            check_empty(self.path)
            shutil.rmtree(self.base, ignore_errors=True)
            self.folder.mkdir(parents=True)
            return {}
        if self.base.exists() and (
            not self.base.is_dir() or (any(self.base.iterdir()) and not (self.base / LOCK).exists())
        ):
            raise UsageError(f"{self.base} is in the way; it is none of ours, so move it")
        self._lock.take()
        try:  # only now: another process may have finished while this one came
            check_empty(self.path)
        except UsageError:
            self.close(keep=False)
            raise
        journal = self._journal()
        if journal.get("fingerprint") == self.fingerprint and self.folder.is_dir():
            return journal
        if journal:
            self._note(f"{self.base} was begun with other options or sources; starting anew")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.record({})
        return {}

    def record(self, content: dict[str, Any]) -> None:
        """Write the journal: what a later attempt need not do again."""
        if self.fingerprint is None:
            return
        content = {"fingerprint": self.fingerprint, **content}
        write_atomic(self.base / JOURNAL, json.dumps(content))

    def publish(self) -> None:
        """Let the store appear under its name."""
        publish(self.folder, self.path)

    def close(self, *, keep: bool) -> None:
        """Give the folder up; without `keep` remove it."""
        if not keep or self.fingerprint is None:
            shutil.rmtree(self.base, ignore_errors=True)
        self._lock.release()

    def _journal(self) -> dict[str, Any]:
        try:
            journal = json.loads((self.base / JOURNAL).read_text())
            return journal if isinstance(journal, dict) else {}
        except (OSError, ValueError):
            return {}


def check_empty(path: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        UsageError: it does, or is no folder, or is the one that this process runs in, which cannot be replaced; or its name
            is one that shards cannot be written to.
    """
    if path.name in ("", "..") or path.resolve() == Path.cwd():
        raise UsageError(f"{path} cannot be made anew; give a new folder by its name")
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"the name of {path.absolute()} is no UTF-8, which Arrow cannot write; give another folder"
        ) from None
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} exists and is not empty; give a new folder")
