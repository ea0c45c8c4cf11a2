"""Plots of a page: our figures and the paper's, classes, and the same clips by two models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Patch

from avplatform.base.drawing import COLOURS, HATCHES, save_figure
from avplatform.reproduce.figures import SPREADS
from avplatform.reproduce.tables import Line, Section
from avplatform.runs.pictures import STREAMS
from avplatform.tasks.spans import runs

GREY = "#666666"
LOOKS = {
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
    canvas = Canvas(
        figsize=(3.2 + 4.2 * len(columns), 0.5 * len(groups) + 1.7), layout="constrained"
    )
    panels = np.atleast_1d(canvas.subplots(1, len(columns), sharey=True))
    seen: dict[str, Any] = {}
    for axes, column in zip(panels, columns, strict=True):
        for row, group in enumerate(groups):
            shown = [line for line in group.lines if line.published or line.figures]
            for number, line in enumerate(shown):
                look, at = (
                    _look(line),
                    row + (number - (len(shown) - 1) / 2) * 0.7 / max(4, len(shown)),
                )
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
        axes.set_yticks(
            range(len(groups)), [group.title for group in groups], fontsize=8, parse_math=False
        )
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlabel(f"{column.replace('_', ' ')} (%)")
        axes.grid(axis="x", color="#E5E5E5", linewidth=0.6)
        axes.set_axisbelow(True)
    if seen:
        canvas.legend(
            list(seen.values()),
            list(seen),
            loc="outside lower center",
            ncols=min(6, len(seen)),
            frameon=False,
        )
    canvas.suptitle(f"{section.title}{f' ({note})' if note else ''}", fontsize=10)
    return save_figure(canvas, out)


def class_differences(section: Section, out: Path, *, note: str = "") -> Path:
    """Draw each class's difference between two decoders, the paper's and ours, per stream."""
    columns = [name for name in section.columns if " - " in name]
    canvas = Canvas(figsize=(10.5, 0.3 * len(section.groups) + 1.8), layout="constrained")
    panels = canvas.subplots(1, len(columns), sharey=True)
    for axes, column in zip(np.atleast_1d(panels), columns, strict=True):
        for row, group in enumerate(section.groups):
            for number, line in enumerate(
                line for line in group.lines if line.label in ("paper", "ours")
            ):
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
        axes.set_yticks(
            range(len(section.groups)),
            [g.title for g in section.groups],
            fontsize=8,
            parse_math=False,
        )
        axes.set_ylim(len(section.groups) - 0.5, -0.6)
        axes.set_xlabel(f"{column} (points of event-level F)")
        axes.grid(axis="x", color="#E5E5E5", linewidth=0.6)
        axes.set_axisbelow(True)
    handles = [
        Patch(color="#B0B0B0", label="paper"),
        Patch(color=COLOURS[0], label="ours, mean over seeds; bar: two spreads"),
    ]
    canvas.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    canvas.suptitle(f"{section.title}{f' ({note})' if note else ''}", fontsize=10)
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
    looks: dict[str, dict[str, Any]] = {}
    for name in (name for clip in examples for name in _present(clip)):
        n = len(looks)
        looks.setdefault(
            name, {"facecolor": COLOURS[n % 8], "hatch": HATCHES[n // 8 % 4], "edgecolor": "white"}
        )
    rows = [len(clip[0]["tracks"]) * (1 + len(names)) for clip in examples]
    canvas = Canvas(figsize=(10.5, sum(0.27 * r + 0.7 for r in rows) + 0.9), layout="constrained")
    panels = np.atleast_1d(
        canvas.subplots(len(examples), 1, height_ratios=[0.27 * r + 0.2 for r in rows])
    )
    for axes, clip in zip(panels, examples, strict=True):
        _clip(axes, clip, names, looks)
    panels[-1].set_xlabel("seconds")
    canvas.suptitle(
        f"Events: the truth, and what {' and '.join(names)} found{f' ({note})' if note else ''}",
        fontsize=10,
    )
    return save_figure(canvas, out)


def _clip(
    axes: Any,
    clip: Sequence[dict[str, Any]],
    names: Sequence[str],
    looks: dict[str, dict[str, Any]],
) -> None:
    """Draw one clip: per stream, one row for the truth and one per model, with a lane per class."""
    classes, present = clip[0]["classes"], _present(clip)
    labels: list[str] = []
    lane = 0.8 / max(1, len(present))
    for stream in clip[0]["tracks"]:
        maps = [("truth", clip[0]["tracks"][stream]["truth"])]
        maps += [
            (name, example["tracks"][stream]["prediction"])
            for name, example in zip(names, clip, strict=True)
        ]
        for name, decided in maps:
            row = len(labels)
            for at, class_name in enumerate(present):
                for begin, end in runs(decided[:, classes.index(class_name)]):
                    place = (row - 0.4 + at * lane, lane * 0.94)
                    axes.broken_barh(
                        [(begin, end - begin)],
                        place,
                        linewidth=0,
                        alpha=1 if name == "truth" else 0.6,
                        **looks[class_name],
                    )
            labels.append(f"{STREAMS.get(stream, stream)}: truth" if name == "truth" else name)
        axes.axhline(len(labels) - 0.5, color="black", linewidth=0.8)
    segments = len(next(iter(clip[0]["tracks"].values()))["truth"])
    axes.set(xlim=(0, segments), ylim=(len(labels) - 0.5, -0.5))
    axes.set_yticks(range(len(labels)), labels, fontsize=8, parse_math=False)
    axes.set_xticks(range(segments + 1))
    axes.grid(axis="x", color="#D9D9D9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title(clip[0]["clip_id"], loc="left", fontsize=9, parse_math=False)
    handles = [Patch(label=name, linewidth=0, **looks[name]) for name in present]
    if handles:
        axes.legend(
            handles=handles,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            frameon=False,
            fontsize=8,
            ncols=1 + len(present) // 9,
        )


def _present(clip: Sequence[dict[str, Any]]) -> list[str]:
    """Return the classes that occur in a clip or that a model found in it, in class order."""
    maps = [
        track[name]
        for example in clip
        for track in example["tracks"].values()
        for name in ("truth", "prediction")
    ]
    return [
        clip[0]["classes"][c] for c in np.flatnonzero(np.any([m.any(axis=0) for m in maps], axis=0))
    ]


def _look(line: Line) -> str:
    name = line.label.split(" (")[0]
    return (
        "authors' checkpoint"
        if name.startswith("authors' checkpoint")
        else name
        if name in LOOKS
        else "paper"
    )


def _value(line: Line, column: str) -> tuple[float | None, float | None]:
    if column in line.published:
        return line.published[column], None
    figure = line.figures.get(column)
    return (None, None) if figure is None else (figure.mean, figure.spread)
