"""Curves, bars and timelines as PNG files, drawn without any global plotting state."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from avplatform.training.run_folder import write_atomic
from models.errors import DataError

# Okabe and Ito's palette, told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6BB1")
TITLES = {"audio": "heard", "visual": "seen", "av": "heard and seen"}


def curves(metrics_file: Path, out: Path, *, metric: str) -> Path:
    """Draw loss and selection metric per epoch, the kept epoch marked.

    Raises:
        DataError: the file holds no finished epoch.
    """
    lines = [json.loads(line) for line in metrics_file.read_text().splitlines()]
    epochs = [r for r in lines if r.get("event") == "epoch"]
    if not epochs:
        raise DataError(f"{metrics_file} holds no finished epoch to draw")
    steps = [r for r in lines if r.get("event") == "step"]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([r["step"] for r in steps], [r["loss"] for r in steps], color="#B0B0B0", linewidth=0.7, label="step")
    left.plot([r["step"] for r in epochs], [r["loss"] for r in epochs], color=COLOURS[0], label="epoch mean")
    left.set(xlabel="optimiser step", ylabel="training loss")
    left.legend(frameon=False)
    values = [r[metric] for r in epochs]
    best = int(np.argmax(values))
    right.plot([r["epoch"] for r in epochs], values, color=COLOURS[1], marker="o", markersize=3)
    right.plot(epochs[best]["epoch"], values[best], marker="*", markersize=14, color=COLOURS[1])
    right.annotate(f"{values[best]:.1f}", (epochs[best]["epoch"], values[best]), textcoords="offset points", xytext=(0, -16))
    right.set(xlabel="epoch", ylabel=f"{epochs[0]['split']} {metric} (%)")
    right.xaxis.get_major_locator().set_params(integer=True)
    return _save(figure, out)


def per_class_bars(details: dict[str, Any], out: Path, *, note: str = "") -> Path:
    """Draw the scores of every class: F of audio and visual segments (AVVP), or accuracy (AVEL)."""
    if "per_class" in details:
        bars = {"accuracy": {k: v["accuracy"] for k, v in details["per_class"].items()}}
        label = "segment accuracy (%)"
    elif "class_segment" in details:
        bars = {name: details["class_segment"][name] for name in ("audio", "visual")}
        label = "segment F (%)"
    else:
        raise DataError("these results hold no scores per class")
    names = list(next(iter(bars.values())))
    figure = Figure(figsize=(8, 0.27 * len(names) * max(1, len(bars) * 0.75) + 1.2), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(bars)
    for number, (series, values) in enumerate(bars.items()):
        at = np.arange(len(names)) + (number - (len(bars) - 1) / 2) * height
        axes.barh(at, [values[n] or 0.0 for n in names], height=height, color=COLOURS[number], label=series)
    axes.set_yticks(np.arange(len(names)), [n.replace("_", " ") for n in names])
    axes.invert_yaxis()
    axes.set(xlabel=label, xlim=(0, 100), title=f"test scores per class{f' ({note})' if note else ''}")
    axes.margins(y=0.01)
    if len(bars) > 1:
        axes.legend(frameon=False, loc="lower right")
    return _save(figure, out)


def timelines(examples: Sequence[dict[str, Any]], out: Path, *, note: str = "") -> Path:
    """Draw truth above prediction for a few clips.

    Each example is `{"clip_id", "classes", "tracks": {stream: {"truth": bool [T, C], "prediction": bool [T, C]}}}`.
    """
    if not examples:
        raise DataError("no clip to draw a timeline of")
    rows = [len(e["tracks"]) for e in examples]
    figure = Figure(figsize=(10, sum(0.75 * r + 0.75 for r in rows) + 0.6), layout="constrained")
    axes = np.atleast_1d(figure.subplots(len(examples), 1, height_ratios=[r + 0.8 for r in rows]))
    for ax, example in zip(axes, examples, strict=True):
        _timeline(ax, example)
    axes[-1].set_xlabel("seconds")
    figure.suptitle(f"events: truth (solid) above prediction (hatched){f', {note}' if note else ''}")
    return _save(figure, out)


def _timeline(ax: Any, example: dict[str, Any]) -> None:
    classes, tracks = example["classes"], example["tracks"]
    maps = [m for t in tracks.values() for m in (t["truth"], t["prediction"])]
    used = np.flatnonzero(np.any([m.any(axis=0) for m in maps], axis=0))
    colour = {c: COLOURS[i % len(COLOURS)] for i, c in enumerate(used)}
    segments, ticks = maps[0].shape[0], []
    for number, (stream, track) in enumerate(tracks.items()):
        ticks.append((number, TITLES.get(stream, stream)))
        for offset, name in ((-0.21, "truth"), (0.21, "prediction")):
            for lane, c in enumerate(used):
                height = 0.36 / max(1, len(used))
                at = number + offset - 0.18 + lane * height
                for start, length in _runs(track[name][:, c]):
                    style = dict(hatch="////", alpha=0.55) if name == "prediction" else {}
                    ax.broken_barh(
                        [(start, length)],
                        (at, height * 0.92),
                        facecolors=colour[c],
                        edgecolor="white",
                        linewidth=0.4,
                        **style,
                    )
    ax.set_xlim(0, segments)
    ax.set_ylim(len(tracks) - 0.5, -0.5)
    ax.set_yticks([t for t, _ in ticks], [n for _, n in ticks])
    ax.set_xticks(range(segments + 1))
    ax.set_title(example["clip_id"], loc="left", fontsize=9)
    if len(used):
        handles = [Patch(color=colour[c], label=classes[c]) for c in used]
        ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)


def _runs(row: np.ndarray) -> list[tuple[int, int]]:
    """Return (start, length) of each run of ones."""
    padded = np.concatenate([[0], row.astype(int), [0]])
    starts, ends = np.flatnonzero(np.diff(padded) == 1), np.flatnonzero(np.diff(padded) == -1)
    return [(int(s), int(e - s)) for s, e in zip(starts, ends, strict=True)]


def _save(figure: Figure, out: Path) -> Path:
    canvas = FigureCanvasAgg(figure)
    return write_atomic(Path(out), lambda path: canvas.print_png(str(path)))
