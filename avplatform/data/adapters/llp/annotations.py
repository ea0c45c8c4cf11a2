"""LLP's official annotation files: weak labels of all clips, dense ones of validation and test."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from avplatform.data.adapters.llp.classes import CLASSES
from avplatform.data.adapters.official_files import Defect, cells, read_lines, whole_number
from avplatform.data.adapters.source import Source
from avplatform.models.errors import DataError, counted, nearest

SEGMENTS = 10
ID_LENGTH = 11
"""Number of characters of a YouTube id."""
CLIP_NAME = re.compile(rf".{{{ID_LENGTH}}}_[0-9.]+_[0-9.]+")  # video id, start and end
SPLIT_FILES = {
    "train": "AVVP_train.csv",
    "validation": "AVVP_val_pd.csv",
    "test": "AVVP_test_pd.csv",
}
DENSE_FILES = {"audio": "AVVP_eval_audio.csv", "visual": "AVVP_eval_visual.csv"}
COUNTS = {"train": 10000, "validation": 649, "test": 1200}
"""Number of clips in each official split."""
WEAK_HEADER = ["filename", "event_labels"]
DENSE_HEADER = ["filename", "onset", "offset", "event_labels"]


@dataclass
class LLPAnnotations:
    """All annotations of LLP; row n of every array is clip n: train, validation, then test clips.

    Shape: weak [N, 25]; dense_audio and dense_visual [N, 10, 25], zero for train clips;
        seconds [N, 2] (start, end).
    """

    filenames: list[str]
    splits: dict[str, np.ndarray]
    weak: np.ndarray
    dense_audio: np.ndarray
    dense_visual: np.ndarray
    seconds: np.ndarray
    defects: list[Defect] = field(default_factory=list)

    @property
    def video_ids(self) -> list[str]:
        """The 11-character video ids, by which feature files are named."""
        return [name[:ID_LENGTH] for name in self.filenames]


def read_annotations(folder: str | Path, *, audio_file: str | Path | None = None) -> LLPAnnotations:
    """Read the csv files at the root of a folder or in its `data/`.

    Args:
        folder: the folder of the files, or the one whose `data/` holds them.
        audio_file: the file of dense audio annotations; default: the one in the folder. There are
            two versions of it, see `checks.audio_variant`.

    Raises:
        DataError: a file is missing or malformed, or a class is unknown; names file and line.
    """
    folder = locate(folder)
    filenames: list[str] = []
    weak: list[np.ndarray] = []
    splits: dict[str, np.ndarray] = {}
    places: dict[str, str] = {}
    seconds: list[tuple[float, float]] = []
    defects: list[Defect] = []
    for split, name in SPLIT_FILES.items():
        start = len(filenames)
        for line, (filename, labels) in read_rows(folder / name, WEAK_HEADER):
            names = [label.strip() for label in labels.split(",")]
            place = f"{folder / name}, line {line}"
            if filename in places:
                text = f"the clip {filename} is listed twice, first in {places[filename]}"
                raise DataError(f"{place}: {text}; each clip belongs to one split")
            places[filename] = place
            target = np.zeros(len(CLASSES), dtype=np.uint8)
            target[[_class_index(label, folder / name, line) for label in names]] = 1
            if len(set(names)) < len(names):
                defects.append(Defect("class named twice", name, line, filename))
            seconds.append(_seconds(filename, place))
            filenames.append(filename)
            weak.append(target)
        splits[split] = np.arange(start, len(filenames))
    index = {filename: row for row, filename in enumerate(filenames)}
    dense = {}
    for stream, name in DENSE_FILES.items():
        file = Path(audio_file) if stream == "audio" and audio_file is not None else folder / name
        dense[stream] = _dense(file, index, defects)
    return LLPAnnotations(
        filenames=filenames,
        splits=splits,
        weak=np.stack(weak),
        dense_audio=dense["audio"],
        dense_visual=dense["visual"],
        seconds=np.array(seconds),
        defects=defects,
    )


def _dense(file: Path, index: dict[str, int], defects: list[Defect]) -> np.ndarray:
    """Return the events of a dense file as maps, and append its oddities to `defects`.

    An event covers the segments from onset to offset - 1.

    Args:
        file: the file.
        index: the row of each clip by its name.
        defects: the list that grows.

    Shape: uint8 [N, 10, 25].
    """
    maps = np.zeros((len(index), SEGMENTS, len(CLASSES)), dtype=np.uint8)
    seen: set[tuple[str, ...]] = set()
    for line, row in read_rows(file, DENSE_HEADER):
        filename, onset, offset, label = row
        text = "\t".join(row)
        begin, end = whole_number(onset), whole_number(offset)
        if begin is None or end is None:
            raise DataError(
                f"{file}, line {line}: onset and offset must be whole seconds, "
                f"not '{onset}', '{offset}'"
            )
        if end <= begin:
            kind = "reversed event" if end < begin else "event of no length"
            defects.append(Defect(kind, file.name, line, text))
        if filename not in index:
            defects.append(Defect("clip outside all splits", file.name, line, text))
            continue
        if begin < 0 or end < 0:
            raise DataError(
                f"{file}, line {line}: the event {begin} to {end} s lies outside 0 to {SEGMENTS} s"
            )
        if max(begin, end) > SEGMENTS:  # what lies inside counts, as in the published code
            defects.append(Defect("event beyond the clip", file.name, line, text))
        if tuple(row) in seen:
            defects.append(Defect("row given twice", file.name, line, text))
        seen.add(tuple(row))
        maps[index[filename], begin:end, _class_index(label, file, line)] = 1
    return maps


def locate(folder: str | Path) -> Path:
    """Return the folder itself or its `data/`, whichever holds the csv files.

    Raises:
        DataError: neither holds them.
    """
    return Source(folder).place_of(SPLIT_FILES["train"], "give the folder of LLP's csv files")


def read_rows(file: Path, header: list[str]) -> list[tuple[int, list[str]]]:
    """Return (line number, columns) of every line of a tab-separated file below its header.

    Raises:
        DataError: the file cannot be read, or its header or a line has other columns.
    """
    try:
        lines = read_lines(file)
    except (OSError, UnicodeDecodeError) as error:
        names = ", ".join([*SPLIT_FILES.values(), *DENSE_FILES.values()])
        raise DataError(f"cannot read {file}: {error}; LLP's annotations need {names}") from None
    found = _columns(lines[0], file, 1) if lines else []
    index = found == ["", *header]  # pandas writes the numbers of the rows as a first column
    if found[index:] != header:
        raise DataError(
            f"{file}: the first line must be the columns {', '.join(header)}, separated by tabs"
        )
    rows = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        columns = _columns(line, file, number)[index:]
        if len(columns) != len(header):
            raise DataError(
                f"{file}, line {number}: {counted(len(columns), 'column')} "
                f"instead of {len(header)} ({line[:80]!r})"
            )
        rows.append((number, columns))
    if not rows:
        raise DataError(f"{file} holds no clip")
    return rows


def _columns(line: str, file: Path, number: int) -> list[str]:
    try:
        return cells(line, "\t")
    except csv.Error as error:
        raise DataError(f"{file}, line {number}: {error} ({line[:80]!r})") from None


def _class_index(label: str, file: Path, line: int) -> int:
    try:
        return CLASSES.index(label)
    except ValueError:
        raise DataError(
            f"{file}, line {line}: '{label}' is not an LLP class{nearest(label, CLASSES)}"
        ) from None


def _seconds(filename: str, place: str) -> tuple[float, float]:
    """Return a clip's start and end; as ids may hold underscores, the name is cut by position."""
    try:
        start, end = filename[ID_LENGTH + 1 :].split("_")
        return float(start), float(end)
    except ValueError:
        raise DataError(
            f"{place}: '{filename}' is not an 11-character video id followed by _start_end"
        ) from None
