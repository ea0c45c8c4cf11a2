"""Plots of a page: our figures and the paper's, classes, and the same clips by two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.base.drawing import (
    COLOURS,
    MaxNLocator,
    Patch,
    grid,
    name_rows,
    save_figure,
    with_note,
)
from avplatform.base.drawing import Figure as Canvas
from avplatform.catalogue.curves import Curve
from avplatform.reproduce.figures import SPREADS
from avplatform.reproduce.tables import Line, Section
from avplatform.runs.pictures import class_looks, draw_clip

GREY = "#666666"
ANSWER = "answers without training"
LOOKS = {
    ANSWER: dict(marker="x", color=GREY, markersize=5),
    "paper": dict(marker="D", color="#000000", markersize=6),
    "authors' checkpoint": dict(marker="s", color=COLOURS[4], markersize=6),
    "ours": dict(marker="o", color=COLOURS[0], markersize=6),
    "ours, best epoch on test": dict(marker="^", color=COLOURS[1], markersize=6),
    "ours, union": dict(marker="o", color=COLOURS[0], markersize=6),
    "ours, either modality": dict(marker="o", color=COLOURS[2], markersize=6),
    "ours, audio": dict(marker="o", color=COLOURS[3], markersize=6),
    "ours, visual": dict(marker="o", color=COLOURS[5], markersize=6),
}


def dots(section: Section, columns: Sequence[str], out: Path, *, note: str = "") -> Path:
    """Draw the paper's and our figures of some columns: one row of dots per method.

    Bars show the spread.

    Args:
        section: a section with its lines filled.
        columns: the columns to draw, one panel each.
        out: PNG to write.
        note: added to the title, such as "synthetic features".
    """
    groups = section.groups
    size = (3.2 + 4.2 * len(columns), 0.5 * len(groups) + 1.7)
    canvas = Canvas(figsize=size, layout="constrained")
    panels = np.atleast_1d(canvas.subplots(1, len(columns), sharey=True))
    seen: dict[str, Any] = {}
    for axes, column in zip(panels, columns, strict=True):
        for row, group in enumerate(groups):
            shown = [line for line in group.lines if line.published or line.figures]
            for number, line in enumerate(shown):
                look = _look(line)
                at = row + (number - (len(shown) - 1) / 2) * 0.7 / max(4, len(shown))
                value, spread = _value(line, column)
                if value is None:
                    continue
                seen[look] = axes.errorbar(
                    value,
                    at,
                    xerr=None if spread is None else SPREADS * spread,
                    linestyle="",
                    capsize=2,
                    elinewidth=1,
                    **LOOKS[look],
                )
            axes.axhline(row + 0.5, color="#EEEEEE", linewidth=0.8)
        name_rows(axes, [group.title for group in groups], below=0.5, above=0.5, fontsize=8)
        axes.set_xlabel(f"{column.replace('_', ' ')} (%)")
        grid(axes, "x")
    if seen:
        handles, names, width = list(seen.values()), list(seen), min(6, len(seen))
        canvas.legend(handles, names, loc="outside lower center", ncols=width, frameon=False)
    canvas.suptitle(with_note(section.title, note), fontsize=10)
    return save_figure(canvas, out)


def class_differences(section: Section, out: Path, *, note: str = "") -> Path:
    """Draw each class's difference between two decoders, the paper's and ours, per stream."""
    columns = [name for name in section.columns if " - " in name]
    canvas = Canvas(figsize=(10.5, 0.3 * len(section.groups) + 1.8), layout="constrained")
    panels = canvas.subplots(1, len(columns), sharey=True)
    for axes, column in zip(np.atleast_1d(panels), columns, strict=True):
        for row, group in enumerate(section.groups):
            shown = [line for line in group.lines if line.label in ("paper", "ours")]
            for number, line in enumerate(shown):
                value, spread = _value(line, column)
                at = row + (number - 0.5) * 0.38
                if value is None:
                    axes.text(0, at, " no clip", va="center", fontsize=6, color=GREY)
                    continue
                colour = "#B0B0B0" if line.label == "paper" else COLOURS[0]
                axes.barh(
                    at,
                    value,
                    height=0.36,
                    color=colour,
                    xerr=None if spread is None else SPREADS * spread,
                    error_kw=dict(elinewidth=0.8),
                )
        axes.axvline(0, color="black", linewidth=0.8)
        name_rows(axes, [group.title for group in section.groups], below=0.5, fontsize=8)
        axes.set_xlabel(f"{column} (points of event-level F)")
        grid(axes, "x")
    handles = [
        Patch(color="#B0B0B0", label="paper"),
        Patch(color=COLOURS[0], label="ours, mean over seeds; bar: two spreads"),
    ]
    canvas.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    canvas.suptitle(with_note(section.title, note), fontsize=10)
    return save_figure(canvas, out)


def epoch_curves(
    real: dict[str, Curve],
    ours: Mapping[str, Sequence[Curve]],
    columns: Sequence[str],
    out: Path,
    *,
    title: str,
    note: str = "",
) -> Path:
    """Draw figures by epoch, one panel per figure: published curves and our runs.

    Args:
        real: published curves by name.
        ours: the curves of our runs, one per seed, by the published curve that they belong to.
        columns: the figures.
        out: PNG to write.
        title: title of the picture.
        note: added to the title, such as "synthetic features".
    """
    canvas = Canvas(figsize=(5.2 * len(columns), 4.2), layout="constrained")
    panels = np.atleast_1d(canvas.subplots(1, len(columns), sharey=True))
    for axes, column in zip(panels, columns, strict=True):
        for number, (name, curve) in enumerate(real.items()):
            look = dict(color=COLOURS[number], linewidth=1.4)
            at = sorted(curve)
            label = f"real run, {name}"
            axes.plot(at, [curve[e][column] for e in at], "--", label=label, **look)
            for seed, own in enumerate(ours.get(name, ())):
                at = [epoch for epoch in sorted(own) if column in own[epoch]]
                label = f"ours, {name}" if seed == 0 else "_another seed"
                points = [own[epoch][column] for epoch in at]
                axes.plot(at, points, "o-", markersize=3.5, label=label, **look)
        axes.set_title(column.replace("_", " "), fontsize=10)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
        grid(axes)
    panels[0].set_ylabel("on validation (%)")
    handles, names = panels[0].get_legend_handles_labels()
    canvas.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    canvas.suptitle(with_note(title, note), fontsize=10)
    return save_figure(canvas, out)


def compared_timelines(
    examples: Sequence[Sequence[dict[str, Any]]], names: Sequence[str], out: Path, *, note: str = ""
) -> Path:
    """Draw the truth and what several models found in the same clips.

    Args:
        examples: per clip, one entry per model, as `avplatform.runs.pictures.timelines` reads them.
        names: names of the models.
        out: PNG to write.
        note: added to the title, such as "synthetic features".
    """
    looks = class_looks(examples)
    rows = [len(clip[0]["tracks"]) * (1 + len(names)) for clip in examples]
    canvas = Canvas(figsize=(10.5, sum(0.27 * r + 0.7 for r in rows) + 0.9), layout="constrained")
    panels = np.atleast_1d(
        canvas.subplots(len(examples), 1, height_ratios=[0.27 * r + 0.2 for r in rows])
    )
    for axes, clip in zip(panels, examples, strict=True):
        draw_clip(axes, clip, names, looks, most=9)
    panels[-1].set_xlabel("seconds")
    title = f"Events: the truth, and what {' and '.join(names)} found"
    canvas.suptitle(with_note(title, note), fontsize=10)
    return save_figure(canvas, out)


def _look(line: Line) -> str:
    name = line.label.split(" (")[0]
    if name.startswith("authors' checkpoint"):
        return "authors' checkpoint"
    if line.published:
        return "paper"
    return name if name in LOOKS else ANSWER


def _value(line: Line, column: str) -> tuple[float | None, float | None]:
    if column in line.published:
        return line.published[column], None
    figure = line.figures.get(column)
    return (None, None) if figure is None else (figure.mean, figure.spread)
