"""Which files are extracted, under which clip ids, and what is known of their clips from official annotations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avplatform.data.adapters.registry import adapter_of_task
from avplatform.models.errors import DataError, UsageError

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
        task: the classes of its dataset become the store's.
        annotations: folder of the official annotation files; without it there are no labels, and all clips are of one split.
        split: that split.

    Raises:
        UsageError: an unknown task.
        DataError: annotations that are missing or malformed.
    """

    def __init__(
        self, task: str, *, annotations: str | Path | None = None, split: str = "test"
    ) -> None:
        self.adapter = adapter_of_task(task)
        self.task, self.split = task, split
        self.annotated = annotations is not None
        self.classes = list(self.adapter.classes)
        self.texts = {spelling: list(texts) for spelling, texts in self.adapter.texts.items()}
        self.labels: dict[str, list[int]] = {}
        self.label_dtypes: dict[str, str] = {}
        self.label_splits: dict[str, list[str]] = {}
        self._entries: dict[str, list[Entry]] = {}
        self._next = 0
        if annotations is not None:
            self._read(annotations)

    def entries(self, name: str, starts: Sequence[tuple[float, float]]) -> list[Entry]:
        """Return the clips of a file: one for each of its windows (start and end), or what the annotations know of it.

        Raises:
            DataError: the annotations do not know the file.
        """
        if self.annotated:
            found = self._entries.get(name) or self._entries.get(self.adapter.file_name(name))
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

    def _read(self, folder: str | Path) -> None:
        data = self.adapter.read(folder)
        self.labels = {name: list(values.shape[1:]) for name, values in data.labels.items()}
        self.label_dtypes, self.label_splits = data.label_dtypes, data.label_splits
        for split, rows in data.splits.items():
            for row in rows.tolist():
                name = data.clip_ids[row]
                labels = {label: values[row] for label, values in data.labels.items()}
                entry = Entry(row=row, clip_id=name, split=split, labels=labels)
                if not self.adapter.unique_ids:  # an id may have several rows
                    self._entries.setdefault(name, []).append(entry)
                    continue
                self._entries[name] = [entry]
                self._entries.setdefault(self.adapter.file_name(name), [entry])


def _utf8(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
