"""Which files are extracted, under which clip ids, and what is known of their clips from official annotations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.data.adapters.llp.annotations import ID_LENGTH
from avplatform.models.errors import DataError, UsageError, unknown_name
from avplatform.tasks.registry import TASKS

NOT_MEDIA = {
    ".txt",
    ".csv",
    ".tsv",
    ".json",
    ".jsonl",
    ".md",
    ".html",
    ".srt",
    ".vtt",
    ".eaf",
    ".npy",
    ".h5",
    ".py",
    ".yaml",
}
"""Files beside videos in a folder that are not looked at; a file that is named is always looked at."""


@dataclass(kw_only=True)
class Found:
    """Files to extract with their names, and those that cannot be, with the reason."""

    files: dict[str, Path] = field(default_factory=dict)
    bad: list[tuple[str, str]] = field(default_factory=list)
    ignored: int = 0


@dataclass(kw_only=True)
class Entry:
    """A clip as the store has it."""

    row: int
    clip_id: str
    split: str
    labels: dict[str, Any] = field(default_factory=dict)


def find_files(places: Sequence[str | Path]) -> Found:
    """List the files of some places; a folder gives all of its files and those of the folders in it, in order of their names.

    Raises:
        UsageError: no places.
    """
    if not places:
        raise UsageError("nothing to extract; give video files or folders of them")
    found = Found()
    for place in map(Path, places):
        if not os.path.isdir(place):  # unlike Path's, it takes names that no file can have
            found_files = [place]
        else:
            inside = sorted(
                path
                for path in place.rglob("*")
                if not path.is_dir() and not _hidden(path.relative_to(place))
            )
            found_files = [path for path in inside if may_be_media(path)]
            found.ignored += len(inside) - len(found_files)
        for file in found_files:
            if not _utf8(file.stem):
                found.bad.append(
                    (
                        str(file).encode("utf-8", "replace").decode(),
                        "its name is no UTF-8; rename it",
                    )
                )
                continue
            if file.stem in found.files:
                if found.files[file.stem].resolve() != file.resolve():
                    reason = f"has the name of {found.files[file.stem]}, and names become clip ids; rename one of them"
                    found.bad.append((str(file), reason))
                continue
            found.files[file.stem] = file
    return found


def may_be_media(file: Path) -> bool:
    """Say whether a file of a folder is looked at: it is not hidden, and its suffix is not one of texts, tables and arrays."""
    return not file.name.startswith(".") and file.suffix.lower() not in NOT_MEDIA


class Catalogue:
    """What is known of clips: their split and labels.

    Args:
        task: "avvp" or "avel"; its classes become the store's.
        annotations: folder of the official annotation files; without it there are no labels, and all clips are of one split.
        split: that split.

    Raises:
        UsageError: an unknown task.
        DataError: annotations that are missing or malformed.
    """

    def __init__(
        self, task: str, *, annotations: str | Path | None = None, split: str = "test"
    ) -> None:
        if task not in TASKS:
            raise unknown_name("task", task, TASKS)
        self.task, self.split = task, split
        self.annotated = annotations is not None
        self.classes: list[str] = list(TASKS[task](TASKS[task].Config()).classes)
        self.labels: dict[str, list[int]] = {}
        self.label_dtypes: dict[str, str] = {}
        self.label_splits: dict[str, list[str]] = {}
        self._entries: dict[str, list[Entry]] = {}
        self._next = 0
        if annotations is not None:
            (self._read_llp if task == "avvp" else self._read_ave)(annotations)

    def entries(self, name: str, starts: Sequence[tuple[float, float]]) -> list[Entry]:
        """Return the clips of a file: one for each of its windows (start and end), or what the annotations know of it.

        Raises:
            DataError: the annotations do not know the file.
        """
        if self.annotated:
            found = self._entries.get(name) or (
                self._entries.get(name[:ID_LENGTH]) if self.task == "avvp" else None
            )
            if not found:
                raise DataError("the annotations have no clip of this name")
            return found
        whole = len(starts) == 1
        names = [name if whole else f"{name}_{start:.0f}_{end:.0f}" for start, end in starts]
        first, self._next = self._next, self._next + len(names)
        return [
            Entry(row=first + index, clip_id=clip_id, split=self.split)
            for index, clip_id in enumerate(names)
        ]

    def _read_llp(self, folder: str | Path) -> None:
        from avplatform.data.adapters.llp.annotations import SEGMENTS, read_annotations

        data = read_annotations(folder)
        maps = [SEGMENTS, len(self.classes)]
        self.labels = {"weak": [len(self.classes)], "dense_audio": maps, "dense_visual": maps}
        self.label_dtypes = dict.fromkeys(self.labels, "uint8")
        self.label_splits = {
            name: ["validation", "test"] for name in ("dense_audio", "dense_visual")
        }
        for split, rows in data.splits.items():
            for row in rows.tolist():
                labels = {
                    "weak": data.weak[row],
                    "dense_audio": data.dense_audio[row],
                    "dense_visual": data.dense_visual[row],
                }
                entry = Entry(row=row, clip_id=data.filenames[row], split=split, labels=labels)
                self._entries[data.filenames[row]] = [entry]
                self._entries.setdefault(data.filenames[row][:ID_LENGTH], [entry])

    def _read_ave(self, folder: str | Path) -> None:
        from avplatform.data.adapters.ave.annotations import read_annotations

        data = read_annotations(folder)
        self.labels = {"segment": [np.asarray(data.segment).shape[1]], "video": []}
        self.label_dtypes = dict.fromkeys(self.labels, "int64")
        for split, rows in data.splits.items():
            for row in rows.tolist():
                labels = {"segment": data.segment[row], "video": data.class_index[row]}
                entry = Entry(row=row, clip_id=data.clip_ids[row], split=split, labels=labels)
                self._entries.setdefault(data.clip_ids[row], []).append(
                    entry
                )  # an id may have several rows


def _utf8(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
