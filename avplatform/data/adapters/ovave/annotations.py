"""OV-AVEBench's annotation files: a class per clip, its event in ten segments, and splits."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.data.adapters.official_files import NO_SPLIT, Defect, cells, read_lines
from avplatform.data.adapters.ovave.classes import BACKGROUND, EVENTS, OTHER, SEEN, UNSEEN
from avplatform.data.adapters.source import Source
from avplatform.models.errors import DataError, counted, nearest

SEGMENTS = 10
META_FILE = "ovave_dataset_meta.csv"
LABEL_FILE = "released_ovavel_dataset_anno.json"
CLASS_FILES = {
    "ovave_total_close_open_categories.csv": EVENTS,
    "ovave_train_close_categories.csv": SEEN,
}
"""The lists of classes, which end with `other`, a text and not a class."""
COLUMNS = ("split", "cls_name", "cls_type", "vid_name")
SPLITS = {"train": "train", "val": "validation", "test": "test"}
SEEN_TYPE, UNSEEN_TYPE = "close", "open"
COUNTS = {"train": 13182, "validation": 5798, "test": 5820}


@dataclass
class OVAVEAnnotations:
    """All annotations; row n is line n + 2 of the list of clips, which has a header.

    Shape: category [N], the class for which a clip was collected; event uint8 [N, 10]; segment
        [N, 10] and video [N] with 67 for background; splits hold row numbers.
    """

    clip_ids: list[str]
    category: np.ndarray
    event: np.ndarray
    splits: dict[str, np.ndarray]
    defects: list[Defect] = field(default_factory=list)

    @property
    def segment(self) -> np.ndarray:
        """The label of every segment: the clip's class where its event is, else background."""
        return np.where(self.event == 1, self.category[:, None], BACKGROUND)

    @property
    def video(self) -> np.ndarray:
        """The label of every clip: its class, or background if no segment has the event."""
        return np.where(self.event.any(axis=1), self.category, BACKGROUND)


@dataclass
class _Row:
    """A line of a list of clips: its number, and what stands there."""

    number: int
    split: str
    category: str
    clip_id: str


def read_annotations(folder: str | Path, *, ratio: str = "1") -> OVAVEAnnotations:
    """Read the list of clips, their labels, and the lists of classes that are there.

    Source: OV-AVEBench (CVPR 2025), the released annotation files and loader.

    Args:
        folder: the folder of the files, or the one whose `data/` holds them.
        ratio: "1", or the share of the training clips whose list is read too. Only these clips then
            belong to the training split; the rows stay those of the list of all clips.

    Raises:
        DataError: a file is missing or malformed, files contradict each other, or an unseen class
            has a training clip; names the file, the line and what would be right.
    """
    folder = locate(folder)
    for name, classes in CLASS_FILES.items():
        if (folder / name).is_file():
            _check_classes(folder / name, classes)
    rows = _rows(folder / META_FILE)
    labels = _labels(folder / LABEL_FILE)
    events = [_event(folder, row, labels) for row in rows]
    ids = [row.clip_id for row in rows]
    known = set(ids)
    defects = [
        Defect(NO_SPLIT, LABEL_FILE, number, clip_id)
        for number, clip_id in enumerate(labels, 1)
        if clip_id not in known
    ]
    splits = {
        name: np.array([n for n, row in enumerate(rows) if row.split == split], np.int64)
        for split, name in SPLITS.items()
    }
    if ratio != "1":
        splits["train"] = _part(folder, ratio, rows)
    return OVAVEAnnotations(
        clip_ids=ids,
        category=np.array([EVENTS.index(row.category) for row in rows], np.int64),
        event=np.array(events, np.uint8),
        splits=splits,
        defects=defects,
    )


def locate(folder: str | Path) -> Path:
    """Return the folder itself or its `data/`, whichever holds the list of clips.

    Raises:
        DataError: neither holds it.
    """
    return Source(folder).place_of(META_FILE, "give the folder of OV-AVEBench's annotation files")


def ratio_file(ratio: str) -> str:
    """Return the name of the list of clips with this share of the training clips."""
    return f"ovave_trainratio{ratio}_meta.csv"


def _lines(file: Path) -> list[str]:
    try:
        return read_lines(file)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {error}") from None


def _check_classes(file: Path, classes: tuple[str, ...]) -> None:
    """Refuse a list of classes that is not the one by which labels are numbered."""
    found, expected = _lines(file), [*classes, OTHER]
    for number, (name, right) in enumerate(zip(found, expected, strict=False), 1):
        if name.strip() != right:
            raise DataError(
                f"{file}, line {number}: '{name}' stands where '{right}' must; "
                f"the list holds {counted(len(classes), 'class')} and then '{OTHER}'"
            )
    if len(found) != len(expected):
        raise DataError(
            f"{file} holds {counted(len(found), 'line')} instead of {len(expected)}: "
            f"{counted(len(classes), 'class')} and then '{OTHER}'"
        )


def _rows(file: Path) -> list[_Row]:
    """Read a list of clips."""
    lines = _lines(file)
    if not lines or tuple(cell.strip() for cell in lines[0].split(",")) != COLUMNS:
        shown = lines[0][:80] if lines else ""
        raise DataError(f"{file}, line 1: '{shown}' stands where '{','.join(COLUMNS)}' must")
    rows: list[_Row] = []
    first: dict[str, int] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            values = [cell.strip() for cell in cells(line, ",")]
        except csv.Error as error:
            raise DataError(f"{where}: {error} ({line[:80]!r})") from None
        if len(values) != len(COLUMNS):
            raise DataError(
                f"{where}: {counted(len(values), 'column')} instead of {','.join(COLUMNS)}"
            )
        split, category, kind, clip_id = values
        if split not in SPLITS:
            raise DataError(f"{where}: the split is '{split}'; it must be {', '.join(SPLITS)}")
        if category not in EVENTS:
            what = "is the text of background, not a class" if category == OTHER else ""
            raise DataError(
                f"{where}: '{category}' {what or 'is not a class of OV-AVEBench'}"
                f"{nearest(category, EVENTS)}"
            )
        right = UNSEEN_TYPE if category in UNSEEN else SEEN_TYPE
        if kind != right:
            raise DataError(f"{where}: cls_type of '{category}' is '{kind}'; it must be '{right}'")
        if split == "train" and right == UNSEEN_TYPE:
            raise DataError(
                f"{where}: '{category}' is one of the {len(UNSEEN)} classes without training "
                f"clips, but clip {clip_id} stands in train; it must be val or test"
            )
        if not clip_id:
            raise DataError(f"{where}: vid_name is empty; it must be the id of the clip's video")
        if clip_id in first:
            raise DataError(
                f"{where}: clip {clip_id} stands in line {first[clip_id]} too; list it once"
            )
        first[clip_id] = number
        rows.append(_Row(number, split, category, clip_id))
    if not rows:
        raise DataError(f"{file} holds no clip")
    return rows


def _labels(file: Path) -> dict[str, Any]:
    """Read the label file: an object of one entry per clip id, in which no id stands twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{file}: '{twice}' stands there twice; give each once")
        return found

    if not file.is_file():
        raise DataError(
            f"{file} is missing; it holds the labels (ovavel_dataset_anno.json is another version "
            "and differs in 12 clips)"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=once)
    except DataError:
        raise
    except (OSError, ValueError, RecursionError) as error:  # ValueError: also a number too long
        raise DataError(f"cannot read {file}: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{file} holds a {type(content).__name__}, not an object of clips")
    return content


def _event(folder: Path, row: _Row, labels: dict[str, Any]) -> list[int]:
    """Return which segments of a clip have its event."""
    listed = f"{folder / META_FILE}, line {row.number}"
    where = f"{folder / LABEL_FILE}, clip {row.clip_id} (line {row.number} of {META_FILE})"
    if row.clip_id not in labels:
        raise DataError(f"{listed}: clip {row.clip_id} has no label in {LABEL_FILE}; add it there")
    entry = labels[row.clip_id]
    if not isinstance(entry, dict) or not {"category", "label"} <= entry.keys():
        raise DataError(f"{where}: it must be an object of 'category' and 'label'")
    if entry["category"] != row.category:
        raise DataError(
            f"{where}: the category is '{entry['category']}', but '{row.category}' in {META_FILE}; "
            "both must be the same"
        )
    value = entry["label"]
    try:
        event = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):  # ValueError: also a number too long
        event = None
    if (
        not isinstance(event, list)
        or len(event) != SEGMENTS
        or any(isinstance(one, bool) or one not in (0, 1) for one in event)
    ):
        raise DataError(f"{where}: the label is {str(value)[:60]!r}; it must hold ten times 0 or 1")
    return event


def _part(folder: Path, ratio: str, rows: list[_Row]) -> np.ndarray:
    """Return the rows of the training clips of a smaller list, in the order of the whole list."""
    file = folder / ratio_file(ratio)
    if not file.is_file():
        raise DataError(f"{file} is missing; it lists the training clips of the ratio {ratio}")
    whole = {row.clip_id: row for row in rows}
    chosen = set()
    for row in _rows(file):
        same = whole.get(row.clip_id)
        if same is None or (same.split, same.category) != (row.split, row.category):
            there = "is not there" if same is None else f"is '{same.category}' of {same.split}"
            raise DataError(
                f"{file}, line {row.number}: clip {row.clip_id} is '{row.category}' of "
                f"{row.split}, but {there} in {META_FILE}; both must agree"
            )
        chosen.add(row.clip_id)
    kept = [n for n, r in enumerate(rows) if r.split == "train" and r.clip_id in chosen]
    return np.array(kept, np.int64)
