"""The hidden folder of a store that is being written, with a lock and a journal for resuming."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from avplatform.base.files import publish
from avplatform.base.locks import Lock
from avplatform.base.places import Remote
from avplatform.data.store.schema import EXTRACT_REPORT_FILE, MANIFEST_FILE
from avplatform.models.errors import DataError, UsageError
from avplatform.models.files import write_atomic

LEFT = re.compile(rf"[\w-]+-\d{{5}}\.parquet|README\.md|{re.escape(EXTRACT_REPORT_FILE)}")
"""Names of objects that an attempt that was stopped may have left on an object store."""
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


class RemoteFolder:
    """A store that is being written to an object store; the interface is that of `PartialFolder`.

    Each finished shard is copied to its place and removed here, so that this machine holds one
    shard at a time. The manifest is written last, and only if there is none: objects without it are
    no store. Nothing is kept for a later attempt.

    Args:
        path: the address of the store.
    """

    fingerprint = None

    def __init__(self, path: Remote) -> None:
        self.path = self.base = path
        self.folder = Path()

    def open(self) -> dict[str, Any]:
        """Make the local folder."""
        check_empty(self.path)
        self.folder = Path(tempfile.mkdtemp(prefix="avplatform-"))
        return {}

    def record(self, content: dict[str, Any]) -> None:
        """Copy the shards that are finished."""
        for state in content.get("splits", {}).values():
            for shard in state["shards"]:
                self._move(self.folder / shard["file"])

    def publish(self) -> None:
        """Copy all other files, and then the manifest.

        Raises:
            DataError: another process has written a store there meanwhile, or not all is there.
        """
        manifest = self.folder / MANIFEST_FILE
        for file in sorted(self.folder.rglob("*")):
            if file.is_file() and file != manifest:
                self._move(file)
        content = json.loads(manifest.read_text(encoding="utf-8"))
        there = {file.name: file.about()["size"] for file in self.path.files()}
        for split in content["splits"].values():
            for shard in split["shards"]:
                if there.get(shard["file"]) != shard["bytes"]:
                    raise DataError(f"{self.path}/{shard['file']} is not as it was written")
        try:
            (self.path / MANIFEST_FILE).write(manifest.read_bytes(), new=True)
        except FileExistsError:
            raise DataError(
                f"another process has written a store to {self.path} meanwhile; give a new address"
            ) from None

    def close(self, *, keep: bool) -> None:
        """Remove the local folder."""
        if self.folder.name:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _move(self, file: Path) -> None:
        if file.is_file():
            (self.path / file.relative_to(self.folder).as_posix()).write(file)
            file.unlink()


def check_empty(path: Path | Remote, *, replace: bool = False) -> None:
    """Check that a store can be written to a folder, which may hold one only to `replace` it.

    A place on an object store may hold the shards of an attempt that was stopped.

    Raises:
        UsageError: it is not empty, not a folder, or the current directory (which cannot be
            replaced), or Arrow cannot write to a path of that name.
    """
    if isinstance(path, Remote):
        found = [file for file in path.files() if not LEFT.fullmatch(file.name)]
        if found:
            what = "holds a store" if found[0].name == MANIFEST_FILE else "is not empty"
            raise UsageError(f"{path} {what} ({found[0].name}); give a new address")
        return
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
