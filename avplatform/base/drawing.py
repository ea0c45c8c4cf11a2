"""Figures of Matplotlib as files, with colours and hatches that everybody can tell apart."""

from __future__ import annotations

import warnings
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from avplatform.models.files import write_atomic

# Okabe and Ito's palette, told apart by colour-blind readers too; hatches tell the classes beyond its eight colours.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6BB1")
HATCHES = ("", "////", "....", "xxxx")


def save_figure(figure: Figure, out: Path) -> Path:
    """Write a figure as PNG, whole or not at all."""
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        # Names and labels may be of any script; what the font lacks is drawn as a box, and the warning names our line.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        return write_atomic(Path(out), lambda path: canvas.print_png(str(path)))
