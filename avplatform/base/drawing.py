"""Matplotlib figures written to files, in colours and hatches that everybody can tell apart."""

from __future__ import annotations

import warnings
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from avplatform.models.files import write_atomic

# The palette of Okabe and Ito, which colour-blind readers can tell apart. Hatches distinguish the
# classes beyond its eight colours.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6BB1")
HATCHES = ("", "////", "....", "xxxx")


def save_figure(figure: Figure, out: Path) -> Path:
    """Write a figure as a PNG file, completely or not at all, and return its path."""
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        # Labels may be in any script. A glyph that the font lacks is drawn as a box, and the
        # warning would only point at this line.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        return write_atomic(Path(out), lambda path: canvas.print_png(str(path)))
