"""Curves, bars and timelines as PNG files, drawn without global plotting state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.base.drawing import (
    COLOURS,
    HATCHES,
    Figure,
    MaxNLocator,
    Patch,
    grid,
    name_rows,
    plain_legend,
    save_figure,
    with_note,
)
from avplatform.models.errors import DataError
from avplatform.runs.folder import read_records
from avplatform.runs.results import class_figures
from avplatform.tasks.metrics import selection_name, selection_score
from avplatform.tasks.spans import runs

STREAMS = {"audio": "heard", "visual": "seen", "av": "heard and seen"}
MAPS = ("truth", "prediction")


def curves(
    metrics_file: Path, out: Path, *, metric: str, selected: int | None = None, note: str = ""
) -> Path:
    """Draw the training loss, and the selection metric per epoch with the selected epoch marked.

    The mean loss of an epoch stands at the middle of its steps.

    Args:
        metrics_file: metrics.jsonl of a run.
        out: the PNG file to write.
        metric: the figure that selects the epoch, or several joined by +, whose mean does.
        selected: the selected epoch; default: the last one with the highest metric.
        note: the title, such as the name of the run.

    Raises:
        DataError: the file cannot be read, or has no finished epoch with the metric, or not the
            selected one.
    """
    try:
        records = read_records(metrics_file)
    except OSError as error:
        raise DataError(
            f"cannot read {metrics_file}: {error.strerror}; give the metrics.jsonl of a run"
        ) from None
    steps = [r for r in records if r.get("event") == "step"]
    epochs = [r for r in records if r.get("event") == "epoch"]
    scores = [(r, selection_score(r, metric)) for r in epochs]
    epochs, values = (
        [r for r, s in scores if s is not None],
        [s for _, s in scores if s is not None],
    )
    if not epochs:
        raise DataError(f"{metrics_file} holds no finished epoch with {metric} to draw")
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
    means = [r for r in epochs if r.get("loss") is not None]
    for shown, at, line, looks in (
        (steps, [r["step"] for r in steps], "-", dict(color="#B0B0B0", linewidth=0.7)),
        (means, _middles(means, steps), "o-", dict(color=COLOURS[0], markersize=3)),
    ):
        label = "step" if shown is steps else "epoch mean"
        left.plot(at, [r["loss"] for r in shown], line, label=label, **looks)
    left.set(xlabel="optimiser step", ylabel="training loss")
    left.legend(frameon=False)
    right.plot([r["epoch"] for r in epochs], values, "o-", color=COLOURS[1], markersize=3)
    epoch, value = epochs[best]["epoch"], values[best]
    label = f"kept: epoch {epoch}, {value:.1f}"
    right.plot(epoch, value, "*", markersize=14, color=COLOURS[1], label=label)
    # With a frame, since the star in the legend would look like an epoch.
    right.legend(loc="best", markerscale=0.6)
    right.set(
        xlabel="epoch",
        ylabel=f"{epochs[best].get('split', 'validation')} {selection_name(metric)} (%)",
    )
    right.set_xlim(min(r["epoch"] for r in epochs) - 0.5, max(r["epoch"] for r in epochs) + 0.5)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        grid(axes)
    if note:
        figure.suptitle(note, parse_math=False)
    return save_figure(figure, out)


def _middles(epochs: Sequence[dict[str, Any]], steps: Sequence[dict[str, Any]]) -> list[float]:
    """Return the middle of the steps of each epoch; its last step if none of them is recorded."""
    own: dict[int, list[int]] = {}
    for record in steps:
        own.setdefault(record["epoch"], []).append(record["step"])
    ends = [own.get(r["epoch"], [r["step"]]) for r in epochs]
    return [(min(at) + max(at)) / 2 for at in ends]


def per_class_bars(details: dict[str, Any], out: Path, *, note: str = "") -> Path:
    """Draw the scores per class in class order: F of both streams, or the first figure.

    Beside a bar stands n, the number of true segments of the class, where the details hold it.

    Args:
        details: details of one split, with "class_segment" (F) or "per_class" (accuracy).
        out: the PNG file to write.
        note: an addition to the title, such as the name of the run.

    Raises:
        DataError: the details hold no scores per class.
    """
    bars, counts = class_figures(details)
    label = f"segment {next(iter(bars))} (%)" if len(bars) == 1 else "segment F (%)"
    names = list(next(iter(bars.values())))
    inches = max(2.4, 0.26 * len(names) * (1.5 if len(bars) > 1 else 1) + 1.3)
    figure = Figure(figsize=(8, inches), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(bars)
    for number, (series, values) in enumerate(bars.items()):
        at = np.arange(len(names)) + (number - (len(bars) - 1) / 2) * height
        widths = [values[n] or 0.0 for n in names]
        axes.barh(at, widths, height=height, color=COLOURS[number], label=series)
        for y, name in zip(at, names, strict=True):
            count = counts.get(series, {}).get(name)
            words = "" if count is None else f"n={count:,}"
            if values[name] is None:
                words = "not in this split"
            axes.text((values[name] or 0) + 0.6, y, words, va="center", fontsize=7, color="#666666")
    name_rows(axes, [name.replace("_", " ") for name in names])
    if counts:
        label += "; n: true segments"
    axes.set(xlabel=label, xlim=(0, 108), xticks=range(0, 101, 20))
    axes.set_title(with_note("test scores per class", note), parse_math=False)
    grid(axes, "x")
    if len(bars) > 1:
        figure.legend(loc="outside lower right", ncols=len(bars), frameon=False)
    return save_figure(figure, out)


def timelines(examples: Sequence[dict[str, Any]], out: Path, *, note: str = "") -> Path:
    """Draw the truth above the prediction for a few clips; a class has one colour in all of them.

    Args:
        examples: per clip a dictionary with "clip_id", "classes" and "tracks", which are
            `{stream: {"truth": bool [T, C], "prediction": bool [T, C]}}`; and "segment_seconds",
            the length of a segment, unless it is one second.
        out: the PNG file to write.
        note: an addition to the title, such as the name of the run.

    Raises:
        DataError: there is no clip.
    """
    if not examples:
        raise DataError("no clip to draw a timeline of; give at least one example")
    looks = class_looks([[example] for example in examples])
    # Inches per clip: the height of its rows, or of its legend if that is larger.
    heights = [
        max(0.6 * len(e["tracks"]) + 0.2, 0.19 * len(_classes_in([e])) + 0.1) for e in examples
    ]
    size = (10, sum(height + 0.55 for height in heights) + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(examples), 1, height_ratios=heights))
    for axes, example in zip(panels, examples, strict=True):
        draw_clip(axes, [example], ["prediction"], looks)
    panels[-1].set_xlabel("seconds")
    figure.suptitle(with_note("Events: truth, and below it the prediction", note), parse_math=False)
    return save_figure(figure, out)


def class_looks(clips: Sequence[Sequence[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return the colour and hatch of each class that occurs in some clips, or was found in them."""
    names = dict.fromkeys(name for clip in clips for name in _classes_in(clip))
    return {
        name: {"facecolor": COLOURS[n % 8], "hatch": HATCHES[n // 8 % 4], "edgecolor": "white"}
        for n, name in enumerate(names)
    }


def draw_clip(
    axes: Any,
    clip: Sequence[dict[str, Any]],
    names: Sequence[str],
    looks: dict[str, dict[str, Any]],
    *,
    most: int = 1000,
) -> None:
    """Draw one clip: per stream, one row for the truth and one per model, with a lane per class.

    Args:
        axes: where to draw.
        clip: one entry per model, as `timelines` reads them.
        names: names of the models.
        looks: colour and hatch by class, as `class_looks` returns them.
        most: the longest column of the legend.
    """
    classes, present, labels = clip[0]["classes"], _classes_in(clip), list[str]()
    lane, each = 0.8 / max(1, len(present)), clip[0].get("segment_seconds", 1.0)
    for stream, track in clip[0]["tracks"].items():
        found = [example["tracks"][stream]["prediction"] for example in clip]
        for name, decided in zip(("truth", *names), (track["truth"], *found), strict=True):
            for at, class_name in enumerate(present):
                for begin, end in runs(decided[:, classes.index(class_name)]):
                    axes.broken_barh(
                        [(begin * each, (end - begin) * each)],
                        (len(labels) - 0.4 + at * lane, lane * 0.94),
                        linewidth=0,
                        alpha=1 if name == "truth" else 0.6,
                        **looks[class_name],
                    )
            labels.append(f"{STREAMS.get(stream, stream)}: truth" if name == "truth" else name)
        axes.axhline(len(labels) - 0.5, color="black", linewidth=0.8)
    segments = len(next(iter(clip[0]["tracks"].values()))["truth"])
    axes.set(xlim=(0, segments * each))
    name_rows(axes, labels, below=0.5, above=0.5, fontsize=8)
    axes.set_xticks(np.arange(segments + 1) * each)
    grid(axes, "x", "#D9D9D9")
    axes.set_title(clip[0]["clip_id"], loc="left", fontsize=9, parse_math=False)
    if present:
        handles = [Patch(label=name, linewidth=0, **looks[name]) for name in present]
        beside = dict(loc="center left", bbox_to_anchor=(1.0, 0.5), ncols=1 + len(present) // most)
        plain_legend(axes, handles=handles, fontsize=8, **beside)
    else:
        middle, words = (segments * each / 2, len(labels) / 2 - 0.5), "no event, none found"
        axes.text(*middle, words, ha="center", va="center", color="#666666")


def _classes_in(clip: Sequence[dict[str, Any]]) -> list[str]:
    """Return the classes that are true in a clip or that a model found in it, in class order."""
    tracks = [track for example in clip for track in example["tracks"].values()]
    seen = np.any([track[name].any(axis=0) for track in tracks for name in MAPS], axis=0)
    return [clip[0]["classes"][c] for c in np.flatnonzero(seen)]
