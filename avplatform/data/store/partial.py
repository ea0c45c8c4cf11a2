"""The hidden folder of a store that is being written, with a lock and a journal for resuming."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from avplatform.base.files import publish
from avplatform.base.locks import Lock
from avplatform.base.places import Remote, identity
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
        # Processes of two machines that share the folder may have the same number.
        alone = f"-{os.getpid()}-{secrets.token_hex(4)}" if fingerprint is None else ""
        self.base = path.with_name(f".{path.name}.partial{alone}")
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
    shard at a time. No object is written over another one, and the manifest is written last:
    objects without it are no store. Nothing is kept for a later attempt, which removes what one
    that was stopped has left: the object `.NAME.partial` beside the store says that there was one.

    Args:
        path: the address of the store.
    """

    fingerprint = None

    def __init__(self, path: Remote) -> None:
        self.path, self.base = path, _mark(path)
        self.folder = Path()
        self._written: dict[str, list[Any]] = {}

    def open(self) -> dict[str, Any]:
        """Make the local folder, and remove what an attempt that was stopped has left."""
        left = _left(self.path)
        self.base.write(b"a store that is not finished\n")
        for file in left:
            file.remove()
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
        there = {_name(file, self.path): identity(file)[1:] for file in self.path.files()}
        for name in {**there, **self._written}:
            if there.get(name) != self._written.get(name):
                raise self._busy(name)
        self._move(manifest)
        self._written = {}
        self.base.remove()

    def close(self, *, keep: bool) -> None:
        """Remove the local folder; without `keep`, also what was copied of a store given up."""
        if not self.folder.name:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        if not keep:
            with contextlib.suppress(DataError):
                for name in self._written:
                    (self.path / name).remove()
                self.base.remove()

    def _move(self, file: Path) -> None:
        if not file.is_file():
            return
        name = file.relative_to(self.folder).as_posix()
        if (self.path / MANIFEST_FILE).is_file():
            raise self._busy(MANIFEST_FILE)
        try:
            (self.path / name).write(file, new=True)
        except FileExistsError:
            raise self._busy(name) from None
        self._written[name] = identity(self.path / name)[1:]
        file.unlink()

    def _busy(self, name: str) -> DataError:
        return DataError(
            f"another process has written {self.path}/{name} meanwhile; give a new address, or run "
            "the same command again when it has ended"
        )


def _left(path: Remote) -> list[Remote]:
    """Return what an attempt that was stopped has left; raise UsageError if there is more."""
    files = path.files()
    names = [_name(file, path) for file in files]
    if MANIFEST_FILE in names:
        raise UsageError(f"{path} holds a store ({MANIFEST_FILE}); give a new address")
    begun = bool(names) and _mark(path).is_file()
    other = [name for name in names if not (begun and LEFT.fullmatch(name))]
    if other:
        raise UsageError(f"{path} is not empty ({other[0]}); give a new address")
    return files


def _mark(path: Remote) -> Remote:
    return path.with_name(f".{path.name}.partial")


def _name(file: Remote, folder: Remote) -> str:
    return "/".join(file.parts_after(folder))


def check_empty(path: Path | Remote, *, replace: bool = False) -> None:
    """Check that a store can be written to a folder, which may hold one only to `replace` it.

    A place on an object store may hold the shards of an attempt that was stopped, which left its
    mark beside it.

    Raises:
        UsageError: it is not empty, not a folder, or the current directory (which cannot be
            replaced), or Arrow cannot write to a path of that name.
    """
    if isinstance(path, Remote):
        _left(path)
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
