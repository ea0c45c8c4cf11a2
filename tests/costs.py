"""What every cell costs; `python -m tests.costs` writes avplatform/catalogue/costs.csv anew."""

from __future__ import annotations

from pathlib import Path

from avplatform.catalogue.cells import cells
from avplatform.catalogue.figures import counted_totals

FILE = Path(__file__).resolve().parent.parent / "avplatform" / "catalogue" / "costs.csv"


def table() -> str:
    """Return the file: parameters and operations of each cell that has a cost."""
    lines = ["cell,parameters,flops"]
    for cell in cells():
        if (found := counted_totals(cell)) is not None:
            lines.append(f"{cell.name},{found.parameters},{found.flops}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    FILE.write_text(table(), encoding="utf-8")
    print(f"wrote {FILE}")
