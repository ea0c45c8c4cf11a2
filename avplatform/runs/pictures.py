"""Curves, bars and timelines as PNG files, drawn without global plotting state."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from avplatform.base.drawing import COLOURS, HATCHES, save_figure
from avplatform.models.errors import DataError
from avplatform.tasks.spans import runs

STREAMS = {"audio": "heard", "visual": "seen", "av": "heard and seen"}
MAPS = ("truth", "prediction")


def curves(
    metrics_file: Path, out: Path, *, metric: str, selected: int | None = None, note: str = ""
) -> Path:
    """Draw the training loss, and the selection metric per epoch with the selected epoch marked.

    Args:
        metrics_file: metrics.jsonl of a run.
        out: the PNG file to write.
        metric: the metric that selects the epoch.
        selected: the selected epoch; default: the last one with the highest metric.
        note: an addition to the title, such as "synthetic features".

    Raises:
        DataError: the file cannot be read, or has no finished epoch with the metric, or not the
            selected one.
    """
    records = _records(metrics_file)
    steps = [r for r in records if r.get("event") == "step"]
    epochs = [r for r in records if r.get("event") == "epoch" and r.get(metric) is not None]
    if not epochs:
        raise DataError(f"{metrics_file} holds no finished epoch with {metric} to draw")
    values = [r[metric] for r in epochs]
    kept = [
        n
        for n, r in enumerate(epochs)
        if (values[n] == max(values) if selected is None else r["epoch"] == selected)
    ]
    if not kept:
        raise DataError(
            f"{metrics_file} has no epoch {selected}, which is said to be the selected one"
        )
    best = kept[-1]
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(
        [r["step"] for r in steps],
        [r["loss"] for r in steps],
        color="#B0B0B0",
        linewidth=0.7,
        label="step",
    )
    means = [r for r in epochs if r.get("loss") is not None]
    left.plot(
        [r["step"] for r in means],
        [r["loss"] for r in means],
        "o-",
        color=COLOURS[0],
        markersize=3,
        label="epoch mean",
    )
    left.set(xlabel="optimiser step", ylabel="training loss")
    left.legend(frameon=False)
    right.plot([r["epoch"] for r in epochs], values, "o-", color=COLOURS[1], markersize=3)
    label = f"kept: epoch {epochs[best]['epoch']}, {values[best]:.1f}"
    right.plot(
        epochs[best]["epoch"],
        values[best],
        marker="*",
        markersize=14,
        color=COLOURS[1],
        linestyle="",
        label=label,
    )
    right.legend(
        loc="lower right", markerscale=0.6
    )  # with a frame, since the star in the legend would look like an epoch
    right.set(xlabel="epoch", ylabel=f"{epochs[best].get('split', 'validation')} {metric} (%)")
    right.set_xlim(min(r["epoch"] for r in epochs) - 0.5, max(r["epoch"] for r in epochs) + 0.5)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(color="#E5E5E5", linewidth=0.6)
        axes.set_axisbelow(True)
    if note:
        figure.suptitle(note)
    return save_figure(figure, out)


def per_class_bars(details: dict[str, Any], out: Path, *, note: str = "") -> Path:
    """Draw the scores per class in class order: F of both streams, or the first figure.

    Args:
        details: details of one split, with "class_segment" (F) or "per_class" (accuracy).
        out: the PNG file to write.
        note: an addition to the title, such as "synthetic features".

    Raises:
        DataError: the details hold no scores per class.
    """
    if details.get("per_class"):
        rows = details["per_class"]
        figure_name = next(iter(next(iter(rows.values()))))
        bars = {figure_name: {name: entry[figure_name] for name, entry in rows.items()}}
        label = f"segment {figure_name} (%)"
    elif details.get("class_segment", {}).get("audio"):
        bars = {name: details["class_segment"][name] for name in ("audio", "visual")}
        label = "segment F (%)"
    else:
        raise DataError(
            "these results hold no scores per class; give details with per_class or class_segment"
        )
    names = list(next(iter(bars.values())))
    figure = Figure(
        figsize=(8, max(2.4, 0.26 * len(names) * (1.5 if len(bars) > 1 else 1) + 1.3)),
        layout="constrained",
    )
    axes = figure.subplots()
    height = 0.8 / len(bars)
    for number, (series, values) in enumerate(bars.items()):
        at = np.arange(len(names)) + (number - (len(bars) - 1) / 2) * height
        axes.barh(
            at,
            [values[n] or 0.0 for n in names],
            height=height,
            color=COLOURS[number],
            label=series,
        )
        for y, name in zip(at, names, strict=True):
            if values[name] is None:
                axes.text(0.6, y, "not in this split", va="center", fontsize=7, color="#666666")
    axes.set_yticks(
        np.arange(len(names)), [name.replace("_", " ") for name in names], parse_math=False
    )
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set(
        xlabel=label, xlim=(0, 100), title=f"test scores per class{f' ({note})' if note else ''}"
    )
    axes.grid(axis="x", color="#E5E5E5", linewidth=0.6)
    axes.set_axisbelow(True)
    if len(bars) > 1:
        figure.legend(loc="outside lower right", ncols=len(bars), frameon=False)
    return save_figure(figure, out)


def has_classes(details: dict[str, Any]) -> bool:
    """Whether the details of a split hold scores of single classes."""
    return bool(details.get("per_class") or details.get("class_segment", {}).get("audio"))


def timelines(examples: Sequence[dict[str, Any]], out: Path, *, note: str = "") -> Path:
    """Draw the truth above the prediction for a few clips; a class has one colour in all of them.

    Args:
        examples: per clip a dictionary with "clip_id", "classes" and "tracks", which are
            `{stream: {"truth": bool [T, C], "prediction": bool [T, C]}}`.
        out: the PNG file to write.
        note: an addition to the title, such as "synthetic features".

    Raises:
        DataError: there is no clip.
    """
    if not examples:
        raise DataError("no clip to draw a timeline of; give at least one example")
    looks: dict[str, dict[str, Any]] = {}
    for name in (name for example in examples for name in _classes_in(example)):
        number = len(looks)
        if name not in looks:
            looks[name] = {
                "facecolor": COLOURS[number % 8],
                "hatch": HATCHES[number // 8 % 4],
                "edgecolor": "white",
            }
    # Inches per clip: the height of its rows, or of its legend if that is larger.
    heights = [
        max(0.6 * len(e["tracks"]) + 0.2, 0.19 * len(_classes_in(e)) + 0.1) for e in examples
    ]
    figure = Figure(
        figsize=(10, sum(height + 0.55 for height in heights) + 0.9), layout="constrained"
    )
    axes = np.atleast_1d(figure.subplots(len(examples), 1, height_ratios=heights))
    for ax, example in zip(axes, examples, strict=True):
        _timeline(ax, example, looks)
    axes[-1].set_xlabel("seconds")
    figure.suptitle(f"Events: truth, and below it the prediction{f' ({note})' if note else ''}")
    return save_figure(figure, out)


def _timeline(ax: Any, example: dict[str, Any], looks: dict[str, dict[str, Any]]) -> None:
    """Draw one clip: two rows per stream, each with a lane per class that occurs in the clip."""
    classes, present, labels = example["classes"], _classes_in(example), []
    for number, (stream, track) in enumerate(example["tracks"].items()):
        for row, name in enumerate(MAPS, start=2 * number):
            lane = 0.8 / max(1, len(present))
            for at, class_name in enumerate(present):
                for begin, end in runs(track[name][:, classes.index(class_name)]):
                    place = (row - 0.4 + at * lane, lane * 0.94)
                    ax.broken_barh(
                        [(begin, end - begin)],
                        place,
                        linewidth=0,
                        alpha=0.6 if row % 2 else 1,
                        **looks[class_name],
                    )
            labels.append(f"{STREAMS.get(stream, stream)}: {name}" if name == "truth" else name)
        ax.axhline(2 * number + 1.5, color="black", linewidth=0.8)
    segments = len(next(iter(example["tracks"].values()))["truth"])
    ax.set(xlim=(0, segments), ylim=(len(labels) - 0.5, -0.5))
    ax.set_yticks(range(len(labels)), labels, fontsize=8)
    ax.set_xticks(range(segments + 1))
    ax.grid(axis="x", color="#D9D9D9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set_title(example["clip_id"], loc="left", fontsize=9, parse_math=False)
    if present:
        handles = [Patch(label=name, linewidth=0, **looks[name]) for name in present]
        legend = ax.legend(
            handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    else:
        ax.text(
            segments / 2,
            len(labels) / 2 - 0.5,
            "no event, none found",
            ha="center",
            va="center",
            color="#666666",
        )


def _classes_in(example: dict[str, Any]) -> list[str]:
    """Return the classes that are true or found in a clip, in class order."""
    maps = [track[name] for track in example["tracks"].values() for name in MAPS]
    return [
        example["classes"][c] for c in np.flatnonzero(np.any([m.any(axis=0) for m in maps], axis=0))
    ]


def _records(file: Path) -> list[dict[str, Any]]:
    """Return the objects of a metrics.jsonl, without lines that are cut off."""
    try:
        lines = Path(file).read_text().splitlines()
    except OSError as error:
        raise DataError(
            f"cannot read {file}: {error.strerror}; give the metrics.jsonl of a run"
        ) from None
    records = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records
