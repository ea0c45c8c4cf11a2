"""AVE's official annotation files: one event per clip, splits, number of background clips."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from avplatform.data.adapters.ave.classes import BACKGROUND, EVENTS
from avplatform.data.adapters.ave.derived import compare_labels, noisy_labels
from avplatform.data.adapters.ave.h5 import read_h5
from avplatform.data.adapters.official_files import (
    NO_SPLIT,
    Defect,
    cells,
    read_lines,
    whole_number,
)
from avplatform.data.adapters.source import Source
from avplatform.models.errors import DataError, counted, nearest

SEGMENTS = 10
SPLIT_FILES = {"train": "train_order.h5", "validation": "val_order.h5", "test": "test_order.h5"}


@dataclass
class AVEAnnotations:
    """All annotations of AVE; row n is line n of Annotations.txt and row n of every official array.

    In the weak setting, `background_count` clips without any event follow.

    Shape: class_index, onset, offset [N]; segment [N, 10] with 28 for background; splits hold row
        numbers.
    """

    clip_ids: list[str]
    class_index: np.ndarray
    onset: np.ndarray
    offset: np.ndarray
    segment: np.ndarray
    splits: dict[str, np.ndarray]
    background_count: int = 0
    defects: list[Defect] = field(default_factory=list)


def read_annotations(folder: str | Path) -> AVEAnnotations:
    """Read Annotations.txt and the order files, and compare them with the label files that exist.

    Labels are computed from Annotations.txt; label files that disagree are listed as defects.

    Raises:
        DataError: a file is missing or malformed, a class is unknown, or the order files share
            rows; names file and line.
    """
    folder = locate(folder)
    file = folder / "Annotations.txt"
    ids, classes, onsets, offsets, numbers = [], [], [], [], []
    defects: list[Defect] = []
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        try:
            columns = cells(line, "&")
        except csv.Error as error:
            raise DataError(f"{file}, line {number}: {error} ({line[:80]!r})") from None
        if len(columns) != 5:
            raise DataError(
                f"{file}, line {number}: {counted(len(columns), 'column')} "
                "instead of Category&VideoID&Quality&Onset&Offset"
            )
        category, clip_id, _, begin_text, end_text = columns
        begin, end = whole_number(begin_text), whole_number(end_text)
        if number == 1 and begin is None:
            continue  # a header line
        if begin is None or end is None or begin < 0 or end < 0:
            raise DataError(
                f"{file}, line {number}: onset and offset must be whole seconds, "
                f"not '{begin_text}' and '{end_text}'"
            )
        if category not in EVENTS:
            raise DataError(
                f"{file}, line {number}: '{category}' is not an AVE class"
                f"{nearest(category, EVENTS)}"
            )
        if begin > SEGMENTS or end > SEGMENTS:
            raise DataError(
                f"{file}, line {number}: the event {begin} to {end} s "
                f"lies outside 0 to {SEGMENTS} s"
            )
        if end <= begin:
            defects.append(Defect("event of no length", file.name, number, line))
        ids.append(clip_id)
        numbers.append(number)
        classes.append(EVENTS.index(category))
        onsets.append(begin)
        offsets.append(end)
    if not ids:
        raise DataError(f"{file} holds no clip")
    for clip_id, count in Counter(ids).items():
        if count > 1:
            number, text = numbers[ids.index(clip_id)], f"{clip_id} ({count})"
            defects.append(Defect("video id of several clips", file.name, number, text))
    class_index, onset, offset = (np.array(x, dtype=np.int64) for x in (classes, onsets, offsets))
    splits = {split: _order(beside(folder, name), len(ids)) for split, name in SPLIT_FILES.items()}
    everything = np.concatenate(list(splits.values()))
    rows, counts = np.unique(everything, return_counts=True)
    if len(shared := rows[counts > 1]):
        listed = ", ".join(f"row {row}" for row in shared[:5])
        listed += ", ..." if len(shared) > 5 else ""
        raise DataError(
            f"{folder}: the order files share rows ({listed}); each row belongs to one split, once"
        )
    for row in sorted(set(range(len(ids))) - set(everything.tolist())):
        defects.append(Defect(NO_SPLIT, file.name, numbers[row], ids[row]))
    defects += _in_several_splits(file.name, ids, numbers, splits)
    segment = segment_labels(class_index, onset, offset)
    defects += compare_labels(partial(beside, folder), class_index, segment)
    return AVEAnnotations(
        clip_ids=ids,
        class_index=class_index,
        onset=onset,
        offset=offset,
        segment=segment,
        splits=splits,
        background_count=_background_count(beside(folder, "labels_noisy.h5")),
        defects=defects,
    )


def segment_labels(
    class_index: np.ndarray, onset: np.ndarray, offset: np.ndarray, segments: int = SEGMENTS
) -> np.ndarray:
    """Return the label of every segment: the class where onset <= t < offset, else background.

    Shape: class_index, onset, offset [N] -> [N, T].
    """
    t = np.arange(segments)
    inside = (t >= onset[:, None]) & (t < offset[:, None])
    return np.where(inside, class_index[:, None], BACKGROUND)


def locate(folder: str | Path) -> Path:
    """Return the folder itself or its `data/`, whichever holds the annotations.

    Raises:
        DataError: neither holds them.
    """
    return Source(folder).place_of("Annotations.txt", "give the folder of AVE's annotation files")


def beside(folder: Path, name: str) -> Path:
    """Return the official file of this name that goes with a folder's Annotations.txt.

    It may lie in the same folder, in its `data/`, or, if that folder is called `data`, above it.
    """
    files = [place / name for place in places(folder)]
    return next((file for file in files if file.exists()), files[0])


def places(folder: Path) -> tuple[Path, Path]:
    """Return the folder of Annotations.txt, and the other folder in which its files may lie."""
    return folder, folder.parent if folder.name == "data" else folder / "data"


def _lines(file: Path) -> list[str]:
    try:
        return read_lines(file)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {error}") from None


def _in_several_splits(
    file: str, ids: list[str], numbers: list[int], splits: dict[str, np.ndarray]
) -> list[Defect]:
    """List video ids with clips in several splits: their test clips are not wholly unseen."""
    where: dict[str, set[str]] = {}
    first: dict[str, int] = {}
    for split, rows in splits.items():
        for row in rows.tolist():
            where.setdefault(ids[row], set()).add(split)
            first[ids[row]] = min(first.get(ids[row], numbers[row]), numbers[row])
    return [
        Defect(
            "video id in several splits",
            file,
            first[clip_id],
            f"{clip_id} ({', '.join(s for s in splits if s in found)})",
        )
        for clip_id, found in sorted(where.items(), key=lambda item: first[item[0]])
        if len(found) > 1
    ]


def _order(file: Path, clips: int) -> np.ndarray:
    """Return the row numbers of a split, in the order of the file."""
    if not file.is_file():
        raise DataError(f"{file} is missing; AVE's splits need {', '.join(SPLIT_FILES.values())}")
    numbers = read_h5(file, "order").ravel()
    if (odd := numbers[~np.isfinite(numbers) | (numbers != np.floor(numbers))]).size:
        raise DataError(
            f"{file} holds {odd[0]}, which is not a row number; it must be AVE's official h5 file"
        )
    rows = numbers.astype(np.int64)
    if len(rows) == 0:
        raise DataError(f"{file} names no row; it must be AVE's official h5 file")
    if rows.min() < 0 or rows.max() >= clips:
        raise DataError(
            f"{file}: row numbers must lie between 0 and {clips - 1}, "
            "one per line of Annotations.txt"
        )
    return rows


def _background_count(file: Path) -> int:
    """Return the number of clips of the "noisy" set, which show no event; 0 without the file."""
    if not file.is_file():
        return 0
    labels = read_h5(file)
    if labels.ndim != 2 or not np.array_equal(labels, noisy_labels(len(labels))):
        raise DataError(
            f"{file}: every row must be the one-hot label of background, "
            f"with {BACKGROUND + 1} columns"
        )
    return len(labels)
