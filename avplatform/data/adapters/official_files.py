"""What is odd in a dataset's official files: listed, never an error."""

from __future__ import annotations

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
