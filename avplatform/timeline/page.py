"""A timeline as one HTML file: tracks, frames, sound and attention, in step with the video, without a network."""

from __future__ import annotations

import base64
import json
import mimetypes
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from avplatform.base.drawing import COLOURS
from avplatform.models.errors import UsageError, counted
from avplatform.timeline.events import STREAM_NAMES, Timeline
from avplatform.timeline.export import event_row
from avplatform.timeline.preview import Preview

EMBED_LIMIT = 64 * 2**20
"""Bytes of a video up to which it is embedded: browsers get slow beyond."""
GREY = "#767676"  # in place of the palette's black, which a dark page would swallow


def render_page(timeline: Timeline, preview: Preview | None = None, *, source: str) -> str:
    """Return the HTML of a timeline.

    Args:
        timeline: what was found.
        preview: frames and sound to show.
        source: where the page finds the video: a relative path or a data URI (`video_source`).
    """
    preview = preview or Preview()
    environment = Environment(loader=PackageLoader("avplatform.timeline", "."), autoescape=True)
    content = {
        "duration": timeline.duration,
        "labels": timeline.labels,
        "streams": timeline.streams,
        "stream_names": STREAM_NAMES,
        "absent": absent_streams(timeline),
        "events": [event_row(event) for event in timeline.events],
        "scores": {name: values.round(3).tolist() for name, values in timeline.scores.items()},
        "attention": {
            name: values.round(4).tolist() for name, values in timeline.attention.items()
        },
        "frames": [
            {"time": round(time, 2), "image": data_uri(image, "image/jpeg")}
            for time, image in preview.frames
        ],
        "peaks": scaled(preview.peaks),
        "looks": {label: look(number) for number, label in enumerate(timeline.shown_labels())},
        "missing": missing_text(source, timeline.video),
    }
    script, _, _ = environment.loader.get_source(environment, "page.js.jinja")  # type: ignore[union-attr]
    return environment.get_template("page.html.jinja").render(
        title=Path(timeline.video).name or "video",
        summary=summary(timeline),
        notes=timeline.notes,
        source=source,
        length=clock(timeline.duration),
        events=timeline.events,
        data=Markup(safe_json(content)),
        script=Markup(script),
    )


def video_source(video: Path, page: Path, *, embed: bool) -> str:
    """Return what a page names as its video: the path from the page to it, or the whole file.

    Raises:
        UsageError: a file that is too large to embed.
    """
    if not embed:
        return quote(
            os.fsencode(
                os.path.relpath(video.resolve(), page.parent.resolve()).replace(os.sep, "/")
            )
        )
    size = video.stat().st_size
    if size > EMBED_LIMIT:
        raise UsageError(
            f"{video} has {size / 2**20:.0f} MiB; up to {EMBED_LIMIT // 2**20} are embedded: leave out --embed-video"
        )
    return data_uri(video.read_bytes(), mimetypes.guess_type(video.name)[0] or "video/mp4")


def summary(timeline: Timeline) -> str:
    """Return one line about what was done."""
    labels = counted(len(timeline.labels), "label")
    given = " given by the user" if timeline.open_labels else ""
    return (
        f"{counted(len(timeline.events), 'event')} in {timeline.duration:.1f} s, by {timeline.model} "
        f"({timeline.cell}, {labels}{given}); one decision a second"
    )


def absent_streams(timeline: Timeline) -> list[str]:
    """Return the streams that the file lacks, and the audio-visual one with them."""
    absent = [
        s
        for s, key in (("audio", "has_audio"), ("visual", "has_video"))
        if timeline.about.get(key) is False
    ]
    return [*absent, "av"] if absent else []


def look(number: int) -> dict[str, str]:
    """Return colour, pattern and text colour of the n-th label: eight colours, then with stripes, then with the others'."""
    colour = {"#000000": GREY}.get(COLOURS[number % 8], COLOURS[number % 8])
    angles = (None, 45, 135, 90)
    angle = angles[number // 8 % 4]
    background = colour
    if angle is not None:
        background = f"repeating-linear-gradient({angle}deg, {colour} 0 7px, color-mix(in srgb, {colour}, white 45%) 7px 11px)"
    return {"colour": colour, "background": background, "text": text_on(colour)}


def text_on(colour: str) -> str:
    """Return black or white, whichever is read better on a colour.

    Example:
        >>> text_on("#E69F00"), text_on("#0072B2")
        ('#000000', '#ffffff')
    """
    linear = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in linear]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"


def scaled(peaks: list[float]) -> list[float]:
    """Return peaks with the loudest at 1, so that a quiet recording can be seen; silence stays flat."""
    loudest = max(peaks, default=0.0)
    return [round(p / loudest, 3) for p in peaks] if loudest > 1e-3 else peaks


def missing_text(source: str, video: str) -> str:
    """Return what the page says where the video does not load."""
    if source.startswith("data:"):
        return (
            "This browser cannot play the embedded video; tracks, keys and clock work without it."
        )
    name = Path(video).name
    return (
        f"{name} is not where this page expects it, or this browser cannot play it. Tracks, keys and clock work without "
        "it; keep the page and the video in the places they had, or make the page with --embed-video."
    )


def clock(seconds: float) -> str:
    """Return minutes and seconds, as the page shows them.

    Example:
        >>> clock(75.26)
        '1:15.3'
    """
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"


def data_uri(content: bytes, kind: str) -> str:
    """Return a file as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def safe_json(value: Any) -> str:
    """Return JSON that cannot end the script element that holds it, whatever the labels say."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
