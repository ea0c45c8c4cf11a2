"""Tables in Markdown, and the text of their cells."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; the first column is aligned as text, the others as numbers."""
    return "\n".join(map(markdown_row, [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]))


def markdown_row(cells: Sequence[str]) -> str:
    """Return one line of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def signed(value: float) -> str:
    """Return a difference with its sign; one that rounds to zero has no sign."""
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text
