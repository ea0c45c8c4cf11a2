"""Pictures of the extra evaluation: robustness, reliability, and differences between runs."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from avplatform.base.drawing import (
    COLOURS,
    Figure,
    Patch,
    grid,
    name_rows,
    plain_legend,
    save_figure,
    with_note,
)
from avplatform.evaluation.markdown import signed
from avplatform.models.errors import DataError

SPARE = "#B0B0B0"


def robustness_bars(card: dict[str, Any], out: Path, *, metrics: list[str], note: str = "") -> Path:
    """Draw one panel per figure, with one bar per perturbation and a line at its reference score.

    Args:
        card: what `robustness` returned.
        out: PNG to write.
        metrics: the figures to show.
        note: added to the title, such as the model and its data.
    """
    names = list(card["perturbations"])
    figure = Figure(
        figsize=(max(7.0, 2.2 + 2.6 * len(metrics)), 0.28 * len(names) + 1.9), layout="constrained"
    )
    panels = np.atleast_1d(figure.subplots(1, len(metrics), sharey=True))
    y = np.arange(len(names))
    for number, (axes, metric) in enumerate(zip(panels, metrics, strict=True)):
        rows = [card["perturbations"][name] for name in names]
        values, references = (
            np.array([row[what][metric] for row in rows]) for what in ("scores", "reference")
        )
        bars = axes.barh(y, values, height=0.7, color=COLOURS[number % len(COLOURS)])
        line = axes.vlines(references, y - 0.5, y + 0.5, color="black", linewidth=1)
        right = 1.7 * max(1.0, values.max(), references.max())  # room for the numbers
        for at, (value, row) in enumerate(zip(values, rows, strict=True)):
            text = f"{value:.1f} ({signed(row['difference'][metric])})"
            axes.text(0.98 * right, at, text, va="center", ha="right", fontsize=8)
        axes.set(xlim=(0, right), xlabel="percent")
        axes.set_title(f"{metric}: clean {card['clean'][metric]:.1f}", fontsize=9)
        grid(axes, "x")
    moved = any(row["reference"] != card["clean"] for row in card["perturbations"].values())
    held = "clean (late audio: clean decisions, moved with the labels)" if moved else "clean"
    plain_legend(
        figure, [bars, line], ["score", held], loc="outside lower center", ncols=2, fontsize=8
    )
    name_rows(panels[0], names)
    title = f"Scores under perturbation, {card['split']} split"
    figure.suptitle(with_note(title, note), fontsize=11, parse_math=False)
    return save_figure(figure, out)


def reliability_curves(calibration: dict[str, Any], out: Path, *, note: str = "") -> Path:
    """Draw one panel per stream: how often scores came true, before and after the rescaling.

    The lower panels show how many scores there are.

    Args:
        calibration: what `calibration` returned.
        out: PNG to write.
        note: added to the title, such as the model and its data.
    """
    figure = Figure(figsize=(4.2 * len(calibration) + 0.8, 5.0), layout="constrained")
    panels = figure.subplots(2, len(calibration), sharex=True, squeeze=False, height_ratios=[3, 1])
    for column, (stream, entry) in enumerate(calibration.items()):
        above, below = panels[:, column]
        above.plot([0, 1], [0, 1], color=SPARE, linewidth=1, label="perfect")
        for number, name in enumerate(("before", "after")):
            bins, error = entry[name]["bins"], entry[name]["error"]
            label = f"{name} rescaling: error {error:.1f}"
            x, y = [b["score"] for b in bins], [b["share"] for b in bins]
            above.plot(x, y, "os"[number] + "-", color=COLOURS[number], markersize=4, label=label)
            offset = (number - 0.5) * 0.4
            middle = [(b["low"] + b["high"]) / 2 + offset * (b["high"] - b["low"]) for b in bins]
            width, counts = 0.4 * (bins[0]["high"] - bins[0]["low"]), [b["count"] for b in bins]
            below.bar(middle, counts, width=width, color=COLOURS[number])
        above.set(ylim=(-0.02, 1.02), ylabel="share that came true" if column == 0 else "")
        above.set_title(stream, fontsize=10)
        above.legend(frameon=False, fontsize=8, loc="upper left")
        below.set(
            xlabel="score", xlim=(-0.02, 1.02), yscale="log", ylabel="scores" if column == 0 else ""
        )
        grid(above)
        grid(below, "x")
    figure.suptitle(with_note("Reliability", note), fontsize=11, parse_math=False)
    return save_figure(figure, out)


def class_differences(
    rows: dict[str, dict[str, Any]], out: Path, *, title: str, first: str, other: str
) -> Path:
    """Draw one panel per stream: the difference other - first of every class, with its interval.

    All panels have the classes in the same order.

    Args:
        rows: per stream, "classes" and the lists "difference", "low" and "high".
        out: PNG to write.
        title: title of the picture.
        first: name of the first run.
        other: name of the other run; its colour marks the classes where it is better.

    Raises:
        DataError: there is no class to show.
    """
    known = [s for s, row in rows.items() if any(d is not None for d in row["difference"])]
    if not known:
        raise DataError("no class occurs in the split, so there is no difference per class to draw")
    classes = rows[known[0]]["classes"]
    width = 2.6 + 3.0 * len(known)
    room = int(14 * width)  # characters that fit, because names of runs may be long
    heading = fill(title, int(0.75 * room))
    legend = [
        fill(f"right of 0: better with {other}", room),
        fill(f"left of 0: better with {first}", room),
    ]
    columns = 2 if sum(map(len, legend)) < 0.8 * room else 1
    lines = sum(text.count("\n") + 1 for text in legend)
    inches = 0.24 * len(classes) + 1.4 + 0.2 * (heading.count("\n") + 1) + 0.15 * lines
    figure = Figure(figsize=(width, inches), layout="constrained")
    panels = figure.subplots(1, len(known), sharey=True, sharex=True, squeeze=False)[0]
    for axes, stream in zip(panels, known, strict=True):
        row = rows[stream]
        ends = zip(row["difference"], row["low"], row["high"], strict=True)
        for y, (value, low, high) in enumerate(ends):
            if value is None:
                words = "not in this split"
                axes.text(0, y, words, va="center", ha="center", fontsize=6, color="#666666")
                continue
            axes.barh(y, value, height=0.7, color=COLOURS[0] if value >= 0 else COLOURS[1])
            if low is not None:
                axes.plot([low, high], [y, y], color="#333333", linewidth=0.9)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_title(stream, fontsize=10)
        axes.set_xlabel("difference (points), 95 % interval")
        axes.use_sticky_edges = False  # room on both sides of 0
        grid(axes, "x")
    name_rows(panels[0], [name.replace("_", " ") for name in classes], fontsize=8)
    figure.suptitle(heading, fontsize=11, parse_math=False)
    handles = [Patch(color=COLOURS[i]) for i in range(2)]
    plain_legend(figure, handles, legend, loc="outside lower center", ncols=columns, fontsize=8)
    return save_figure(figure, out)


def differences(
    tests: dict[str, dict[str, dict[str, float]]], out: Path, *, first: str, note: str = ""
) -> Path:
    """Draw one row per figure: each run's difference to the first run, with its interval.

    Args:
        tests: per run and figure, "difference", "low" and "high".
        out: PNG to write.
        first: name of the run that all others are compared to.
        note: added to the title, such as "synthetic features".
    """
    runs = list(tests)
    metrics = list(tests[runs[0]])
    height = 0.3 * len(metrics) * max(1, len(runs) * 0.6) + 1.8
    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots()
    for number, run in enumerate(runs):
        y = np.arange(len(metrics)) + (number - (len(runs) - 1) / 2) * 0.7 / len(runs)
        rows = [tests[run][metric] for metric in metrics]
        value = np.array([row["difference"] for row in rows])
        ends = np.array([[row["low"], row["high"]] for row in rows])
        colour = COLOURS[number % len(COLOURS)]
        axes.hlines(y, ends[:, 0], ends[:, 1], color=colour, linewidth=1.6)
        axes.plot(value, y, "o", color=colour, markersize=5, label=run)
    axes.axvline(0, color="black", linewidth=0.8)
    name_rows(axes, metrics)
    axes.set_xlabel("difference (points), 95 % interval")
    axes.set_title(with_note(f"Difference to {first}", note), fontsize=11, parse_math=False)
    plain_legend(figure, loc="outside lower center", ncols=min(3, len(runs)), fontsize=8)
    grid(axes, "x")
    return save_figure(figure, out)
