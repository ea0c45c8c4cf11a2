"""A timeline as a picture: frames, sound, and the events of each stream."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from avplatform.base.drawing import COLOURS, HATCHES, Figure, save_figure
from avplatform.timeline.preview import Preview

if TYPE_CHECKING:
    from avplatform.timeline.timeline import Timeline

LANE, GAP = 0.27, 0.35  # inches


def picture(timeline: Timeline, out: Path, preview: Preview | None = None) -> Path:
    """Write the picture of a timeline (`draw`) as a PNG file, and return its path."""
    return save_figure(draw(timeline, preview), out)


def draw(timeline: Timeline, preview: Preview | None = None) -> Figure:
    """Draw a timeline, in which a label has the same colour and pattern in all streams.

    Args:
        timeline: the timeline.
        preview: frames and sound to show above the events.
    """
    preview = preview or Preview()
    lanes = {stream: _labels(timeline, stream) for stream in timeline.streams}
    heights = [0.75] * bool(preview.frames) + [0.5] * bool(preview.peaks)
    heights += [LANE * max(1, len(labels)) + GAP for labels in lanes.values()]
    figure = Figure(figsize=(11, sum(heights) + 1.1), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(len(heights), 1, height_ratios=heights, sharex=True)))
    looks = {
        label: {"facecolor": COLOURS[n % 8], "hatch": HATCHES[n // 8 % 4], "edgecolor": "white"}
        for n, label in enumerate(timeline.shown_labels())
    }
    if preview.frames:
        _frames(axes.pop(0), preview, timeline.duration)
    if preview.peaks:
        _sound(axes.pop(0), preview, timeline.duration)
    for ax, (stream, labels) in zip(axes, lanes.items(), strict=True):
        _stream(ax, timeline, stream, labels, looks)
    axes[-1].set_xlim(0, timeline.duration)
    axes[-1].set_xlabel("seconds")
    figure.suptitle(f"{Path(timeline.video).name or 'video'}: {timeline.cell}", parse_math=False)
    if timeline.notes:
        figure.supxlabel("\n".join(timeline.notes), fontsize=8, color="#666666")
    return figure


def _labels(timeline: Timeline, stream: str) -> list[str]:
    present = {event.label for event in timeline.events if event.stream == stream}
    return [label for label in timeline.labels if label in present]


def _frames(ax: Any, preview: Preview, duration: float) -> None:
    each = duration / len(preview.frames)
    for number, (_, jpeg) in enumerate(preview.frames):
        with Image.open(io.BytesIO(jpeg)) as image:
            ax.imshow(
                np.asarray(image), extent=(number * each, (number + 1) * each, 0, 1), aspect="auto"
            )
    ax.set(ylim=(0, 1), yticks=[], xlim=(0, duration))
    ax.set_ylabel("pictures", rotation=0, ha="right", va="center", fontsize=9)


def _sound(ax: Any, preview: Preview, duration: float) -> None:
    peaks = np.asarray(preview.peaks)
    times = np.linspace(0, duration, len(peaks))
    ax.fill_between(times, -peaks, peaks, color="#777777", linewidth=0)
    largest = float(peaks.max()) or 1.0
    ax.set(ylim=(-largest, largest), yticks=[])
    ax.set_ylabel("sound", rotation=0, ha="right", va="center", fontsize=9)


def _stream(
    ax: Any, timeline: Timeline, stream: str, labels: list[str], looks: dict[str, dict[str, Any]]
) -> None:
    bars: dict[str, list[tuple[float, float]]] = {label: [] for label in labels}
    for event in timeline.events:
        if event.stream == stream:
            bars[event.label].append((event.onset, event.offset - event.onset))
    for lane, label in enumerate(labels):  # one artist per label: an hour may hold 10,000 events
        ax.broken_barh(bars[label], (lane - 0.4, 0.8), linewidth=0, **looks[label])
    names = [timeline.marked(label) for label in labels]
    ax.set_yticks(range(len(labels)), names, fontsize=8, parse_math=False)
    ax.set_ylim(max(1, len(labels)) - 0.5, -0.5)
    ax.set_title(stream, loc="left", fontsize=9)
    ax.grid(axis="x", color="#D9D9D9", linewidth=0.6)
    ax.set_axisbelow(True)
    if not labels:
        style = dict(ha="center", va="center", fontsize=8, color="#666666")
        ax.text(timeline.duration / 2, 0, "no event found", **style)
