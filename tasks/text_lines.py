"""Read text files as people's editors and spreadsheets leave them."""

from __future__ import annotations

from pathlib import Path


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
