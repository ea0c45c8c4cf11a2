"""What the official files of all datasets have in common: how they are read and copied, and what is odd in them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NO_SPLIT = "clip in no split"
"""The kind of defect that names a clip (`text` is its id) which no file of a split lists."""


@dataclass
class Defect:
    """Something odd in an official file that is kept or left out by rule.

    `line` is the line of a text file, the row of an array, or 0 where it is about the whole file.
    """

    kind: str
    file: str
    line: int
    text: str


def read_lines(file: Path) -> list[str]:
    """Return the lines of a file: whatever ends them, without a byte order mark, without blank lines at the end.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is no UTF-8.
    """
    lines = file.read_text(encoding="utf-8-sig").splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def copy_files(places: Sequence[Path], pattern: str, out: Path) -> None:
    """Copy annotation files of some folders, the first of which wins, into another; features are not copied."""
    files = {file.name: file for place in reversed(places) for file in sorted(place.glob(pattern))}
    for name, file in files.items():
        if file.is_file() and file.suffix in (".csv", ".txt", ".h5") and "feature" not in name:
            shutil.copyfile(file, out / name)
