"""What is odd in a dataset's official files: listed, never an error."""

from __future__ import annotations

from dataclasses import dataclass

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
