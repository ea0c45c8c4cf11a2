"""Read and copy the official files of any dataset, and note their defects."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from avplatform.models.errors import counted

LISTED_WHOLE = (
    "event of no length",
    "reversed event",
    "event beyond the clip",
    "row given twice",
    "class named twice",
    "clip outside all splits",
    "video id of several clips",
    "video id in several splits",
)
EXAMPLES = 3

NO_SPLIT = "clip in no split"
"""The kind of defect for a clip (`text` is its id) that the file of no split lists."""


@dataclass
class Defect:
    """An oddity of an official file, which an import keeps or leaves out by a fixed rule.

    `line` is the line of a text file, the row of an array, or 0 for the whole file. `text` is the
    line itself, the id of its clip, or what is odd about it.
    """

    kind: str
    file: str
    line: int
    text: str


def defect_lines(defects: Sequence[Defect], report_file: str) -> list[str]:
    """Return one line per kind of defect and file.

    A line names all cases of the kinds in LISTED_WHOLE, and a few cases of the other kinds; the
    report file holds the others.
    """
    groups: dict[tuple[str, str], list[Defect]] = {}
    for defect in defects:
        folder, _, name = defect.file.rpartition("/")
        file = folder if folder and name.endswith(".npy") else defect.file
        groups.setdefault((defect.kind, file), []).append(defect)
    lines = []
    for (kind, file), found in groups.items():
        shown = found if kind in LISTED_WHOLE else found[:EXAMPLES]
        texts = [
            " ".join(d.text.split())
            + (f" (line {d.line})" if d.line and not file.endswith(".h5") else "")
            for d in shown
        ]
        rest = len(found) - len(shown)
        more = f"; and {rest} more in {report_file}" if rest else ""
        lines.append(f"{kind}, {file}: {counted(len(found), 'case')}: {'; '.join(texts)}{more}")
    return lines


@dataclass(kw_only=True)
class Annotations:
    """The contents of a dataset's official annotation files; clip n is row n of every array.

    `splits` holds the rows of each split. `files` are the annotation files, present or not, under
    the names that a store's provenance uses. `label_dtypes` may be left out: then labels that are
    boolean or of one byte are stored as 0 and 1 ("uint8"), all others as positions of classes
    ("int64"). `label_splits` names the splits in which a label is known, where these are not all.
    `counts` holds further lines for a report.

    Shape: labels, by name, [N, ...] as a store holds them.
    """

    folder: Path
    clip_ids: list[str]
    splits: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    files: dict[str, Path] = field(default_factory=dict)
    label_dtypes: dict[str, str] = field(default_factory=dict)
    label_splits: dict[str, list[str]] = field(default_factory=dict)
    defects: list[Defect] = field(default_factory=list)
    counts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in self.labels.items():
            one_byte = values.dtype in (np.bool_, np.uint8)
            self.label_dtypes.setdefault(name, "uint8" if one_byte else "int64")


def read_lines(file: Path) -> list[str]:
    """Return the lines of a text file, without line ends, byte order mark and final blank lines.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: the file is not UTF-8.
    """
    lines = file.read_text(encoding="utf-8-sig").splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def cells(line: str, delimiter: str) -> list[str]:
    """Return the cells of a line; spreadsheets put cells that hold a comma into quotes.

    Raises:
        csv.Error: a quote is not closed in the line.
    """
    if '"' not in line:
        return line.split(delimiter)
    return next(csv.reader([line], delimiter=delimiter, strict=True))


def whole_number(text: str) -> int | None:
    """Return a whole number that may be written as pandas does, such as 5.0; None for other text.

    Examples:
        >>> whole_number("5.0"), whole_number("5.5"), whole_number("nan")
        (5, None, None)
    """
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None


def copy_files(places: Sequence[Path], pattern: str, out: Path) -> None:
    """Copy the annotation files, but no features, of some folders to `out`; earlier folders win."""
    files = {file.name: file for place in reversed(places) for file in sorted(place.glob(pattern))}
    for name, file in files.items():
        if file.is_file() and file.suffix in (".csv", ".txt", ".h5") and "feature" not in name:
            shutil.copyfile(file, out / name)
