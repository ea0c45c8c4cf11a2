"""The files to extract, their clip ids, and the labels of their clips in official annotations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from avplatform.base.places import Remote, located
from avplatform.data.adapters.official_files import Defect
from avplatform.data.adapters.registry import adapter_of_task
from avplatform.data.adapters.table.labels import EventLabels
from avplatform.models.errors import AVError, DataError, UsageError, counted

NOT_MEDIA = {
    ".txt", ".csv", ".tsv", ".json", ".jsonl", ".md", ".html", ".srt", ".vtt", ".eaf", ".npy",
    ".h5", ".py", ".yaml", ".yml", ".xml", ".nfo", ".description", ".ass", ".ssa", ".lrc", ".ttml",
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".thm",
    ".part", ".ytdl", ".crdownload", ".tmp", ".db", ".ini", ".aae", ".pdf", ".xlsx", ".parquet",
    ".log", ".zip", ".textgrid",
}  # fmt: skip
"""Suffixes of files that are ignored in a folder; a file that is named itself is never ignored.

They are texts, tables, still pictures (thumbnails) and downloads that are not finished.
"""
COMPANIONS = {
    ".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".oga", ".opus", ".wma", ".aif", ".aiff",
    ".ac3", ".mka", ".weba", ".m4b", ".lrv", ".lrf", ".gif",
}  # fmt: skip
"""Suffixes of sound and previews, which are ignored beside a video of the same name."""


Window = tuple[float, float]
File = TypeVar("File", Path, Path | Remote)


@dataclass(kw_only=True)
class Found:
    """Files to extract by name, bad files with the reason, and the number of ignored files."""

    files: dict[str, Path | Remote] = field(default_factory=dict)
    bad: list[tuple[str, str]] = field(default_factory=list)
    ignored: int = 0


@dataclass(kw_only=True)
class Entry:
    """The row, id, split and labels of a clip in the store."""

    row: int
    clip_id: str
    split: str
    labels: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Findings:
    """What is to be said of the labels of clips."""

    remarks: list[str] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)
    """oddities of the lists, which were read by a fixed rule"""
    unknown: list[str] = field(default_factory=list)
    """listed videos that are not among the files"""


def find_files(places: Sequence[str | Path]) -> Found:
    """List the media files in `places`; a folder is searched recursively, in order of names.

    A place is a path, or the URL of a file or a folder on an object store.

    In a folder, texts, stills and the companions of videos are ignored (see `media_among`).

    Raises:
        UsageError: there are no places.
        DataError: the folders hold no media file.
    """
    if not places:
        raise UsageError("nothing to extract; give video files or folders of them")
    found = Found()
    listed: list[Path | Remote] = []
    named: list[Path | Remote] = []
    inside_folders: list[Path | Remote] = []
    for place in map(located, places):
        inside = _inside(place)
        if inside is None:
            listed.append(place)
            named.append(place)
            continue
        listed += inside
        inside_folders += inside
    kept = {*named, *media_among(inside_folders)}
    found.ignored = len(set(listed) - kept)
    for file in (file for file in listed if file in kept):
        if not _utf8(file.stem):
            name = str(file).encode("utf-8", "replace").decode()
            found.bad.append((name, "its name is not UTF-8; rename it"))
            continue
        first = found.files.setdefault(file.stem, file)
        if first is not file and first.resolve() != file.resolve():
            reason = f"has the name of {first}, and names become clip ids; rename one of them"
            found.bad.append((str(file), reason))
    if not kept:
        others = f" ({counted(found.ignored, 'other file')})" if found.ignored else ""
        where = ", ".join(map(str, places))
        raise DataError(f"{where} holds no video or sound file{others}; give one that does")
    return found


def media_among(files: Sequence[File]) -> list[File]:
    """Return the media files among those of a folder, without the companions of a video.

    A companion has the name of a video, but is its sound or a small preview: its suffix is in
    COMPANIONS, or it has no pictures.
    """
    media = [file for file in files if may_be_media(file)]
    of_name: dict[str, list[File]] = {}
    for file in media:
        of_name.setdefault(file.stem, []).append(file)
    aside: set[File] = set()
    for same in of_name.values():
        videos = [file for file in same if file.suffix.lower() not in COMPANIONS]
        if len(videos) > 1:
            with_pictures = [file for file in videos if not _is_sound(file)]
            videos = with_pictures or videos
        if videos:
            aside.update(file for file in same if file not in videos)
    return [file for file in media if file not in aside]


def may_be_media(file: Path | Remote) -> bool:
    """Return whether a file may be media: it is not hidden, and its suffix is not in NOT_MEDIA."""
    return not file.name.startswith(".") and file.suffix.lower() not in NOT_MEDIA


def clip_names(name: str, windows: Sequence[Window]) -> list[str]:
    """Return the ids of a file's clips: its name, with the seconds where there are several.

    Examples:
        >>> clip_names("long", [(0.0, 2.5), (2.5, 5.0)])
        ['long_0_2.5', 'long_2.5_5']
    """
    if len(windows) == 1:
        return [name]
    return [f"{name}_{start:.10g}_{end:.10g}" for start, end in windows]


class Catalogue:
    """The splits and labels of clips.

    Args:
        task: the task, whose dataset gives the store its classes.
        annotations: folder of the official annotation files; without it, clips have no labels.
        split: the split of all clips when there are no annotations.

    Raises:
        UsageError: an unknown task.
        DataError: the annotations are missing or malformed.
    """

    def __init__(
        self, task: str, *, annotations: str | Path | None = None, split: str = "test"
    ) -> None:
        self.adapter = adapter_of_task(task)
        self.task, self.split = task, split
        self.one_clip = annotations is not None
        """Whether each file is one clip, as in official annotations."""
        self.classes = list(self.adapter.classes)
        self.texts = {spelling: list(texts) for spelling, texts in self.adapter.texts.items()}
        self.labels: dict[str, list[int]] = {}
        self.label_dtypes: dict[str, str] = {}
        self.label_splits: dict[str, list[str]] = {}
        self._entries: dict[str, list[Entry]] = {}
        self._next = 0
        if annotations is not None:
            self._read(annotations)

    def check(self, name: str, windows: Sequence[Window], duration: float | None) -> None:
        """Raise DataError if a file cannot have labels, before its features are extracted."""

    def entries(
        self, name: str, windows: Sequence[Window], duration: float | None = None
    ) -> list[Entry]:
        """Return the clips of a file: one per window (start, end), or those in the annotations.

        Args:
            name: the name of the file.
            windows: the start and the end of each clip in seconds.
            duration: the length of the file in seconds; default: that of its clips.

        Raises:
            DataError: the annotations do not contain the file.
        """
        if self.one_clip:
            found = self._entries.get(name) or self._entries.get(self.adapter.file_name(name))
            if not found:
                raise DataError("the annotations have no clip of this name")
            return found
        names = clip_names(name, windows)
        first, self._next = self._next, self._next + len(names)
        return [
            Entry(row=first + index, clip_id=clip_id, split=self.split)
            for index, clip_id in enumerate(names)
        ]

    def options(self) -> dict[str, Any]:
        """Return the options of the labels, which a later extraction into the store must share."""
        if self.one_clip:
            return {"task": self.task, "labels": "from --annotations"}
        return {"task": self.task, "labels": "none", "split": self.split}

    def provenance(self) -> dict[str, Any]:
        """Return what the store remembers of its labels."""
        return {}

    def findings(self) -> Findings:
        """Return what is to be said of the labels, when all clips have them."""
        return Findings()

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


class EventCatalogue(Catalogue):
    """The splits and labels of clips whose events the user lists.

    Args:
        events: the labels of the listed videos.
    """

    one_clip = False

    def __init__(self, events: EventLabels) -> None:
        self.events, self.task, self._next = events, events.task.name, 0
        self.classes, self.texts = events.spec["classes"], {}
        self.labels, self.label_dtypes = events.spec["labels"], events.spec["label_dtypes"]
        self.label_splits = events.spec["label_splits"]

    def check(self, name: str, windows: Sequence[Window], duration: float | None) -> None:
        """Raise DataError if a file is not listed, or its events do not fit into it."""
        self.events.labels(name, windows, duration=duration or windows[-1][1], note=False)

    def entries(
        self, name: str, windows: Sequence[Window], duration: float | None = None
    ) -> list[Entry]:
        """Return the clips of a file, one per window (start, end)."""
        labels = self.events.labels(name, windows, duration=duration or windows[-1][1])
        names, split = clip_names(name, windows), self.events.splits[name]
        first, self._next = self._next, self._next + len(names)
        return [
            Entry(row=first + index, clip_id=clip_id, split=split, labels=found)
            for index, (clip_id, found) in enumerate(zip(names, labels, strict=True))
        ]

    def options(self) -> dict[str, Any]:
        """Return the options of the labels, which a later extraction into the store must share."""
        given = {"task": self.task, "labels": "from --events", "split": self.events.split}
        rules = self.events.provenance()["rules"]
        return given | {name: value for name, value in rules.items() if name != "segment"}

    def provenance(self) -> dict[str, Any]:
        """Return what the store remembers of its labels."""
        return self.events.provenance()

    def findings(self) -> Findings:
        """Return what is to be said of the labels."""
        events = self.events
        remarks = [*events.remarks, *events.missing_classes()]
        return Findings(remarks=remarks, defects=events.notes, unknown=events.table.unknown)


def _inside(place: Path | Remote) -> list[Path | Remote] | None:
    """Return the files in a folder, but for hidden ones; None if the place is no folder."""
    if isinstance(place, Remote):
        files = [] if place.is_file() else place.files()
        shown = [file for file in files if not _hidden(file.parts_after(place))]
        return list(shown) if files else None
    if not os.path.isdir(place):  # unlike Path.is_dir, it accepts names that no file can have
        return None
    inside = sorted(path for path in place.rglob("*") if not path.is_dir())
    return [path for path in inside if not _hidden(path.relative_to(place).parts)]


def _is_sound(file: Path | Remote) -> bool:
    """Return whether a file can be read and has sound but no pictures; False for an object."""
    from avplatform.features.container import opened

    if isinstance(file, Remote):  # it would have to be fetched
        return False
    try:
        with opened(file) as media:
            return media.video is None
    except AVError:
        return False


def _utf8(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _hidden(parts: Sequence[str]) -> bool:
    return any(part.startswith(".") for part in parts)
