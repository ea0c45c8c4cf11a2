"""The facts of all parts; `python -m tests.facts` writes avplatform/catalogue/facts.json anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

from avplatform.catalogue import figures
from avplatform.catalogue.facts import all_of
from avplatform.catalogue.kept import packed

FILE = Path(__file__).resolve().parent.parent / "avplatform" / "catalogue" / "facts.json"


def computed() -> dict[str, Any]:
    """Return the facts as the code computes them, costs included."""
    with patch.object(figures, "_kept_totals", dict):
        return all_of()


if __name__ == "__main__":
    FILE.write_text(packed(computed()), encoding="utf-8")
    print(f"wrote {FILE}")
