"""Matplotlib figures written to files, in colours and hatches that everybody can tell apart."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avplatform.models.files import write_atomic

if "matplotlib" not in sys.modules:
    # A notebook's MPLBACKEND may name a module that this environment lacks, and then importing
    # matplotlib fails. Figures that are written to files need no backend.
    told = os.environ.pop("MPLBACKEND", None)
    import matplotlib

    if told is not None:
        os.environ["MPLBACKEND"] = told
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = told

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

__all__ = [
    "COLOURS",
    "HATCHES",
    "Figure",
    "MaxNLocator",
    "Patch",
    "grid",
    "name_rows",
    "plain_legend",
    "save_figure",
    "with_note",
]

# The palette of Okabe and Ito, which colour-blind readers can tell apart. Hatches distinguish the
# classes beyond its eight colours.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6BB1")
HATCHES = ("", "////", "....", "xxxx")


def with_note(title: str, note: str) -> str:
    """Return a title with a note in brackets, such as "synthetic features", if there is one."""
    return f"{title} ({note})" if note else title


def grid(axes: Any, axis: str = "both", colour: str = "#E5E5E5") -> None:
    """Draw light grid lines behind everything else."""
    axes.grid(axis=axis, color=colour, linewidth=0.6)
    axes.set_axisbelow(True)


def name_rows(
    axes: Any, names: Sequence[str], *, below: float = 0.4, above: float = 0.6, **text: Any
) -> None:
    """Name rows of bars or dots from the top down; `below` and `above` are the room at the ends."""
    axes.set_yticks(range(len(names)), names, parse_math=False, **text)
    axes.set_ylim(len(names) - below, -above)


def plain_legend(figure: Any, *entries: Any, **looks: Any) -> None:
    """Add a legend without a frame; a "$" in its texts does not start a formula."""
    for text in figure.legend(*entries, frameon=False, **looks).get_texts():
        text.set_parse_math(False)


def save_figure(figure: Figure, out: Path) -> Path:
    """Write a figure as a PNG file, completely or not at all, and return its path."""
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        # Labels may be in any script. A glyph that the font lacks is drawn as a box, and the
        # warning would only point at this line.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        return write_atomic(Path(out), lambda path: canvas.print_png(str(path)))
