"""Read and copy the official files of any dataset, and note their defects."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NO_SPLIT = "clip in no split"
"""The kind of defect for a clip (`text` is its id) that the file of no split lists."""


@dataclass
class Defect:
    """An oddity of an official file, which an import keeps or leaves out by a fixed rule.

    `line` is the line of a text file, the row of an array, or 0 for the whole file.
    """

    kind: str
    file: str
    line: int
    text: str


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


def copy_files(places: Sequence[Path], pattern: str, out: Path) -> None:
    """Copy the annotation files, but no features, of some folders to `out`; earlier folders win."""
    files = {file.name: file for place in reversed(places) for file in sorted(place.glob(pattern))}
    for name, file in files.items():
        if file.is_file() and file.suffix in (".csv", ".txt", ".h5") and "feature" not in name:
            shutil.copyfile(file, out / name)
