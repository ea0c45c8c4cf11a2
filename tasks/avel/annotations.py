"""AVE's official annotation files: one event a clip, split orders, and the background clips of weak training."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from models.errors import DataError, nearest
from tasks.avel.classes import BACKGROUND, CLASSES, EVENTS

SEGMENTS = 10
SPLIT_FILES = {"train": "train_order.h5", "validation": "val_order.h5", "test": "test_order.h5"}


@dataclass
class Defect:
    """Something odd in an official file that is kept by rule, never an error."""

    kind: str
    file: str
    line: int
    text: str


@dataclass
class AVEAnnotations:
    """All of AVE. Row n is line n of Annotations.txt, and the row of every official array.

    Shape: class_index, onset, offset [N]; segment [N, 10] with 28 for background; splits hold row numbers.
    `background_count` clips without any event follow in the weak setting.
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
    """Read Annotations.txt and the order files; check them against the derived label files that are there.

    Raises:
        DataError: a file that is missing or malformed, an unknown class, orders that are no partition, or derived labels
            that disagree; names file and line.
    """
    folder = _locate(Path(folder))
    file = folder / "Annotations.txt"
    ids, classes, onsets, offsets = [], [], [], []
    defects: list[Defect] = []
    for number, line in enumerate(_lines(file), 1):
        columns = line.split("&")
        if len(columns) != 5:
            raise DataError(f"{file}, line {number}: {len(columns)} columns instead of Category&VideoID&Quality&Onset&Offset")
        category, clip_id, _, onset, offset = columns
        if not (onset.strip().isdigit() and offset.strip().isdigit()):
            if number == 1:
                continue  # a header line
            raise DataError(f"{file}, line {number}: onset and offset must be whole seconds, not '{onset}' and '{offset}'")
        if category not in EVENTS:
            raise DataError(f"{file}, line {number}: '{category}' is no AVE class{nearest(category, EVENTS)}")
        begin, end = int(onset), int(offset)
        if begin > SEGMENTS or end > SEGMENTS:
            raise DataError(f"{file}, line {number}: the event {begin} to {end} s passes {SEGMENTS} s")
        if end <= begin:
            defects.append(Defect("event of no length", file.name, number, line))
        ids.append(clip_id)
        classes.append(EVENTS.index(category))
        onsets.append(begin)
        offsets.append(end)
    if not ids:
        raise DataError(f"{file} holds no clip")
    for clip_id, count in Counter(ids).items():
        if count > 1:
            defects.append(Defect("video id of several clips", file.name, ids.index(clip_id) + 1, f"{clip_id} ({count})"))
    class_index, onset_, offset_ = (np.array(x, dtype=np.int64) for x in (classes, onsets, offsets))
    splits = {split: _order(folder / name, len(ids)) for split, name in SPLIT_FILES.items()}
    everything = np.concatenate(list(splits.values()))
    if len(np.unique(everything)) != len(everything):
        raise DataError(f"{folder}: the order files share rows; each row belongs to one split")
    for row in sorted(set(range(len(ids))) - set(everything.tolist())):
        defects.append(Defect("clip in no split", file.name, row + 1, ids[row]))
    annotations = AVEAnnotations(
        clip_ids=ids,
        class_index=class_index,
        onset=onset_,
        offset=offset_,
        segment=segment_labels(class_index, onset_, offset_),
        splits=splits,
        background_count=_background_count(folder / "labels_noisy.h5"),
        defects=defects,
    )
    _check_derived(folder, annotations)
    return annotations


def segment_labels(class_index: np.ndarray, onset: np.ndarray, offset: np.ndarray, segments: int = SEGMENTS) -> np.ndarray:
    """Return the label of every segment: the class where onset <= t < offset, else background.

    Shape: three [N] -> [N, T].
    """
    t = np.arange(segments)
    inside = (t >= onset[:, None]) & (t < offset[:, None])
    return np.where(inside, class_index[:, None], BACKGROUND)


def pair_targets(segment: np.ndarray) -> np.ndarray:
    """PSP's soft target per clip: 1/n on the n segments of the event, 0.1 everywhere for a clip of background.

    Shape: segment labels [N, T] -> [N, T].
    """
    label = segment.min(axis=1, keepdims=True)
    chosen = (segment == label).astype(np.float64)
    return chosen / chosen.sum(axis=1, keepdims=True)


def _locate(folder: Path) -> Path:
    for place in (folder, folder / "data"):
        if (place / "Annotations.txt").is_file():
            return place
    raise DataError(f"no Annotations.txt in {folder} or {folder / 'data'}; give the folder of AVE's annotation files")


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {error}") from None


def _read_h5(file: Path, key: str) -> np.ndarray:
    try:
        with h5py.File(file) as h5:
            return np.asarray(h5[key])
    except (OSError, KeyError) as error:
        raise DataError(f"cannot read '{key}' of {file}: {error}; it must be AVE's official h5 file") from None


def _order(file: Path, clips: int) -> np.ndarray:
    if not file.is_file():
        raise DataError(f"{file} is missing; AVE's splits need {', '.join(SPLIT_FILES.values())}")
    rows = _read_h5(file, "order").astype(np.int64).ravel()
    if len(rows) == 0 or rows.min() < 0 or rows.max() >= clips:
        raise DataError(f"{file}: row numbers must lie between 0 and {clips - 1}, the lines of Annotations.txt")
    return rows


def _background_count(file: Path) -> int:
    if not file.is_file():
        return 0
    labels = _read_h5(file, "avadataset")
    if labels.ndim != 2 or labels.shape[1] != len(CLASSES) or (labels.argmax(axis=1) != BACKGROUND).any():
        raise DataError(f"{file}: every row must be the one-hot label of background, with {len(CLASSES)} columns")
    return len(labels)


def _check_derived(folder: Path, annotations: AVEAnnotations) -> None:
    """Compare with mil_labels.h5 and labels_closs.h5 where they are there."""
    file = folder / "mil_labels.h5"
    if file.is_file():
        labels = _read_h5(file, "avadataset")
        expected = (len(annotations.clip_ids), len(CLASSES))
        if labels.shape != expected:
            raise DataError(f"{file} has shape {labels.shape} instead of {expected}")
        wrong = np.flatnonzero(labels.argmax(axis=1) != annotations.class_index)
        if len(wrong):
            raise DataError(f"{file}: the class of row {wrong[0]} disagrees with Annotations.txt ({len(wrong)} rows do)")
    file = folder / "labels_closs.h5"
    if file.is_file():
        labels = _read_h5(file, "avadataset")
        if labels.shape != annotations.segment.shape:
            raise DataError(f"{file} has shape {labels.shape} instead of {annotations.segment.shape}")
        wrong = np.flatnonzero(((annotations.segment != BACKGROUND) != (labels > 0.5)).any(axis=1))
        if len(wrong):
            raise DataError(f"{file}: the segments of row {wrong[0]} disagree with Annotations.txt ({len(wrong)} rows do)")
