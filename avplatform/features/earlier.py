"""A store that an earlier extraction wrote: which of its files stay, and with which features."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.base.files import aside_of, put_back
from avplatform.base.locks import Lock
from avplatform.base.places import Remote
from avplatform.data.store.clips import StoredClips
from avplatform.data.store.partial import check_empty
from avplatform.data.store.schema import EXTRACT_REPORT_FILE, MANIFEST_FILE, Manifest
from avplatform.models.errors import AVError, DataError, UsageError, counted
from avplatform.models.files import file_sha256
from avplatform.models.typed_values import build

SHOWN = 10  # names in a line
PUTTING_BACK = 10.0
"""Seconds that one process waits for another one of its run to put a store back."""


@dataclass(kw_only=True)
class Source:
    """What a store remembers of a file: its content, its length, and the clips that it became."""

    bytes: int
    sha256: str
    duration: float
    has_audio: bool
    has_video: bool
    windows: list[list[float]]
    clips: list[str]


@dataclass(kw_only=True)
class Changes:
    """How an extraction into a finished store changed it, by the names of files."""

    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    """files that were not given again, whose clips stay"""
    untouched: int = 0
    relabelled: bool = False
    """the lists of events are not the ones of before"""

    def line(self) -> str:
        """Return one line that says which files changed, and how many did not."""
        parts = [
            f"{counted(len(names), 'file')} {what} ({_some(names)})"
            for names, what in (
                (self.added, "added"),
                (self.replaced, "replaced, as the content differs"),
                (self.removed, "removed"),
            )
            if names
        ]
        parts.append(f"{counted(self.untouched, 'file')} untouched")
        if self.absent:
            parts.append(
                f"{counted(len(self.absent), 'file')} not given again and kept "
                f"({_some(self.absent)}; --prune removes such)"
            )
        if self.relabelled:
            parts.append("the labels of all made again, as the lists of events differ")
        return "; ".join(parts)


class EarlierStore:
    """A finished store, into which files are extracted again.

    Args:
        folder: the store.

    Raises:
        UsageError: the folder holds something else, or a store without a list of its files.
        DataError: the store cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / MANIFEST_FILE).is_file():
            check_empty(folder)  # raises: it is not empty
        self.folder, self.manifest = folder, Manifest.read(folder)
        made = self.manifest.spec.provenance.get("extraction") or {}
        self.options: Mapping[str, Any] = made.get("options") or {}
        try:
            report = json.loads((folder / EXTRACT_REPORT_FILE).read_text(encoding="utf-8"))
            self.sources = {name: build(Source, it) for name, it in report["sources"].items()}
            self.bad = [tuple(item) for item in report["bad"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, AVError):
            self.options = {}
        if not self.options:
            raise UsageError(
                f"{folder} exists and is not empty, and no list of files that `avplatform extract` "
                "wrote into it can be read, so it cannot be extended; give a new folder"
            )

    @cached_property
    def clips(self) -> StoredClips:
        """The features of the clips."""
        return StoredClips(self.folder, self.manifest)

    @cached_property
    def splits(self) -> dict[str, str]:
        """The split of each file."""
        places = self.clips.places
        return {
            name: places[source.clips[0]].split
            for name, source in self.sources.items()
            if source.clips and source.clips[0] in places
        }

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise UsageError unless an extraction has the options of the earlier one."""
        keys = dict.fromkeys([*options, *self.options])
        differing = [key for key in keys if options.get(key) != self.options.get(key)]
        if not differing:
            return
        said = ", ".join(
            key if key.startswith("weights") else f"{key} {self.options.get(key)}, now {value}"
            for key, value in ((key, options.get(key)) for key in differing)
        )
        hint = ""
        if set(differing) <= LABELLING:
            hint = "; `avplatform data import table` makes one with other labels and no decoding"
        raise UsageError(
            f"{self.folder} exists and was extracted with other options ({said}); give the same "
            f"ones to extend it, or a new folder{hint}"
        )

    def holds(self, name: str, file: Path | Remote) -> bool:
        """Return whether the store has the clips of a file with the same content."""
        source = self.sources.get(name)
        try:
            return (
                source is not None
                and not isinstance(file, Remote)  # it would have to be fetched
                and file.stat().st_size == source.bytes
                and file_sha256(file) == source.sha256
            )
        except OSError:
            return False  # extracting it will say why

    def piece(self, name: str) -> dict[str, np.ndarray]:
        """Return what extracting a file would save, with the features of the store."""
        source = self.sources[name]
        clips = [self.clips.load(clip_id) for clip_id in source.clips]
        columns = {key: np.stack([clip[key] for clip in clips]) for key in clips[0]}
        return columns | describe(source)

    def unknown_files(self) -> list[Path]:
        """Return what is in the folder and neither a shard nor written by an extraction."""
        ours = {MANIFEST_FILE, EXTRACT_REPORT_FILE, "README.md"}
        ours |= {s.file for info in self.manifest.splits.values() for s in info.shards}
        return [path for path in self.folder.iterdir() if path.name not in ours]


LABELLING = {"labels", "split", "covered", "beyond", "seed", "separator"}
"""Options that decide the labels alone."""


def describe(source: Source) -> dict[str, np.ndarray]:
    """Return what is known of a file as the arrays of a piece."""
    return {
        "windows": np.array(source.windows, np.float64),
        "duration": np.array([source.duration]),
        "streams": np.array([source.has_audio, source.has_video], dtype=np.uint8),
        "bytes": np.array([source.bytes]),
        "sha256": np.frombuffer(bytes.fromhex(source.sha256), np.uint8),
    }


def described(piece: dict[str, np.ndarray]) -> Source:
    """Take what is known of a file out of a piece, which keeps the features; the clips are open."""
    has_audio, has_video = piece.pop("streams")
    return Source(
        bytes=int(piece.pop("bytes")[0]),
        sha256=piece.pop("sha256").tobytes().hex(),
        duration=float(piece.pop("duration")[0]),
        has_audio=bool(has_audio),
        has_video=bool(has_video),
        windows=piece.pop("windows").tolist(),
        clips=[],
    )


def open_earlier(folder: Path | Remote) -> EarlierStore | None:
    """Return the store in a folder, or None if the folder is missing or empty.

    On an object store, a finished store cannot be extended.

    A store that was moved aside by a process that was then killed is put back first. The process
    that moves it keeps its lock, which moves with the folder.

    Raises:
        UsageError: the folder cannot be written, or holds something else.
        DataError: the store cannot be read, or another process is replacing it.
    """
    if isinstance(folder, Remote):
        check_empty(folder)
        return None
    aside = Lock(aside_of(folder), busy(folder), wait=PUTTING_BACK, create=False)
    with contextlib.suppress(FileNotFoundError), aside:  # seldom there
        put_back(folder)
    check_empty(folder, replace=True)
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    return EarlierStore(folder)


def lock_unchanged(earlier: EarlierStore) -> Lock:
    """Return the taken lock of a store that will be replaced; check that it is still the same.

    Raises:
        DataError: another process is extracting into the store, or has done so meanwhile.
    """
    lock = Lock(earlier.folder, busy(earlier.folder), create=False)
    try:
        lock.take()
        if Manifest.read(earlier.folder).fingerprint == earlier.manifest.fingerprint:
            return lock
    except FileNotFoundError:  # another process has moved it aside
        raise busy(earlier.folder)("") from None
    except BaseException:
        lock.release()
        raise
    lock.release()
    raise DataError(
        f"another process has extracted into {earlier.folder} meanwhile; run the same command again"
    )


def busy(folder: Path | Remote) -> Callable[[str], AVError]:
    """Return what makes the error to raise while another process writes a store."""
    return lambda _: DataError(
        f"another process is extracting into {folder}; wait until it has ended"
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
