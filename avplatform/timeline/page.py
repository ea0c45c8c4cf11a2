"""A timeline as one HTML file that needs no network.

It shows events, frames, sound and attention in step with the video.
"""

from __future__ import annotations

import base64
import json
import mimetypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from avplatform.base.drawing import COLOURS
from avplatform.models.errors import UsageError, counted
from avplatform.timeline.event import NEVER_TRAINED
from avplatform.timeline.export import event_row
from avplatform.timeline.preview import Preview

if TYPE_CHECKING:
    from avplatform.timeline.timeline import Timeline

EMBED_LIMIT = 64 * 2**20
"""Bytes of the largest video that is embedded; larger ones make browsers slow."""
NO_VIDEO = (
    "This page was made from features, without the video; tracks, keys and clock work without it."
)
"""What a page that finds the events itself says of the missing video."""
GREY = "#767676"  # instead of the palette's black, which is invisible on a dark page


def render_page(
    timeline: Timeline,
    preview: Preview | None = None,
    *,
    source: str,
    media: str | None = None,
    network: dict[str, Any] | None = None,
) -> str:
    """Return the HTML of a timeline.

    Args:
        timeline: the timeline.
        preview: frames and sound to show.
        source: where the page finds the video: a relative path or a data URI (`video_source`).
        media: what the files that the page saves call the video; default: as `source`.
        network: what the page needs to find the events itself, see `browser_page`.
    """
    preview = preview or Preview()
    if media is None:
        media = Path(timeline.video).name if source.startswith("data:") else source
    environment = Environment(loader=PackageLoader("avplatform.timeline", "."), autoescape=True)
    content = {
        "video": timeline.video,
        "media": media,
        "duration": timeline.duration,
        "each": timeline.segment_seconds,
        "labels": timeline.labels,
        "streams": timeline.streams,
        "absent": absent_streams(timeline),
        "never_trained_on": timeline.never_trained_on,
        "mark": NEVER_TRAINED,
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
        "looks": {label: look(number) for number, label in enumerate(in_colours(timeline))},
        "other": look(len(timeline.labels)),
        "missing": missing_text(source, timeline.video) if network is None else NO_VIDEO,
    }
    if network is not None:
        content["network"] = network
    sources = [
        environment.loader.get_source(environment, name)[0]  # type: ignore[union-attr]
        for name in ("page.js.jinja", "edit.js.jinja", "network.js.jinja")
    ]
    return environment.get_template("page.html.jinja").render(
        title=Path(timeline.video).name or "video",
        summary=summary(timeline),
        notes=timeline.notes,
        source=source,
        length=clock(timeline.duration),
        events=timeline.events,
        mark=NEVER_TRAINED,
        streams=timeline.streams,
        data=Markup(safe_json(content)),
        script=Markup("\n".join(sources[:2])),
        starter=Markup(sources[2]) if network is not None else "",
    )


def video_source(video: Path, page: Path, *, embed: bool) -> str:
    """Return the address of the video in a page: a relative path, or the whole file as a data URI.

    Raises:
        UsageError: the file is too large to embed.
    """
    if not embed:
        path = os.path.relpath(video.resolve(), page.parent.resolve())
        return quote(os.fsencode(path.replace(os.sep, "/")))
    size = video.stat().st_size
    if size > EMBED_LIMIT:
        raise UsageError(
            f"{video} has {size / 2**20:.0f} MiB, but only up to {EMBED_LIMIT // 2**20} MiB are "
            "embedded; leave out --embed-video"
        )
    return data_uri(video.read_bytes(), mimetypes.guess_type(video.name)[0] or "video/mp4")


def summary(timeline: Timeline) -> str:
    """Return one line about the events, the model and the labels."""
    labels = counted(len(timeline.labels), "label")
    given = " given by the user" if timeline.open_labels else ""
    each = timeline.segment_seconds
    return (
        f"{counted(len(timeline.events), 'event')} in {timeline.duration:.1f} s, by "
        f"{timeline.model} ({timeline.cell}, {labels}{given}); one decision per "
        f"{'second' if each == 1 else f'{each:g} s'}"
    )


def absent_streams(timeline: Timeline) -> list[str]:
    """Return the streams that the file lacks, and with any of them "av"."""
    keys = {"audio": "has_audio", "visual": "has_video"}
    absent = [stream for stream, key in keys.items() if timeline.about.get(key) is False]
    return [*absent, "av"] if absent else []


def in_colours(timeline: Timeline) -> list[str]:
    """Return all labels, those with an event first, so that these get the plain colours."""
    return list(dict.fromkeys([*timeline.shown_labels(), *timeline.labels]))


def look(number: int) -> dict[str, str]:
    """Return the colour, background and text colour of the n-th label.

    There are eight plain colours, then the same colours with stripes at three angles.
    """
    colour = {"#000000": GREY}.get(COLOURS[number % 8], COLOURS[number % 8])
    angles = (None, 45, 135, 90)
    angle = angles[number // 8 % 4]
    background = colour
    if angle is not None:
        background = (
            f"repeating-linear-gradient({angle}deg, {colour} 0 7px, "
            f"color-mix(in srgb, {colour}, white 45%) 7px 11px)"
        )
    return {"colour": colour, "background": background, "text": text_on(colour)}


def text_on(colour: str) -> str:
    """Return black or white, whichever is easier to read on a colour.

    Examples:
        >>> text_on("#E69F00"), text_on("#0072B2")
        ('#000000', '#ffffff')
    """
    linear = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in linear]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"


def scaled(peaks: list[float]) -> list[float]:
    """Return peaks scaled to a maximum of 1, so that quiet sound is visible; silence stays flat."""
    loudest = max(peaks, default=0.0)
    return [round(p / loudest, 3) for p in peaks] if loudest > 1e-3 else peaks


def missing_text(source: str, video: str) -> str:
    """Return the text that the page shows if the video does not load."""
    if source.startswith("data:"):
        return (
            "This browser cannot play the embedded video; tracks, keys and clock work without it."
        )
    name = Path(video).name
    if not source:
        return (
            f"This page has no address of {name or 'its video'}; tracks, keys and clock work "
            "without it. A page that is made with --embed-video has the video in itself."
        )
    return (
        f"{name} is not where this page expects it, or this browser cannot play it. Tracks, keys "
        "and clock work without it. Keep the page and the video in their original places, or make "
        "the page with --embed-video."
    )


def clock(seconds: float) -> str:
    """Return minutes and seconds, as the page shows them.

    Examples:
        >>> clock(75.26)
        '1:15.3'
    """
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"


def data_uri(content: bytes, kind: str) -> str:
    """Return the contents of a file as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def safe_json(value: Any) -> str:
    """Return JSON that cannot end the script element around it, whatever the labels contain."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
