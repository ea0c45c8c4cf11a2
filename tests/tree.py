"""The tree of folders in docs/architecture.md; `python -m tests.tree` writes it anew."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.import_graph import BESIDE, PACKAGE

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
BLOCK = re.compile(r"(?<=<!-- tree -->\n```\n).*?(?=```\n)", flags=re.S)
TREES = (PACKAGE, *BESIDE, "examples")
"""Folders that are shown with the folders in them."""
OTHERS = {
    "benchmarks": "Programs whose printed figures stand in the pages.",
    "tests": "Tests; tests/parity holds the reference numbers.",
    "docs": "The pages, this one among them.",
}
COLUMN = 22


def tree(root: Path = ROOT) -> str:
    """Return one line per folder: its name, and the first line of its package's docstring."""
    lines = []
    for top in TREES:
        for folder in [root / top, *sorted(f for f in (root / top).rglob("*") if _shown(f))]:
            name = "  " * (len(folder.relative_to(root).parts) - 1) + f"{folder.name}/"
            lines.append(f"{name:<{COLUMN}}{first_line(folder)}")
    return "".join(f"{line}\n" for line in lines) + "".join(
        f"{name + '/':<{COLUMN}}{about}\n" for name, about in OTHERS.items()
    )


def first_line(folder: Path) -> str:
    """Return the first line of a package's docstring."""
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    return (text or "").split("\n")[0].removeprefix(f"{PACKAGE}: ")


def _shown(path: Path) -> bool:
    return path.is_dir() and path.name != "__pycache__"


if __name__ == "__main__":
    PAGE.write_text(BLOCK.sub(lambda _: tree(), PAGE.read_text("utf-8")), encoding="utf-8")
