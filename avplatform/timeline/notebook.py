"""A timeline as a fragment of HTML for notebooks: bars per stream and label, and no script."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from avplatform.timeline.page import clock, look, summary

if TYPE_CHECKING:
    from avplatform.timeline.timeline import Timeline

MOST_EVENTS = 500
"""Events that are drawn; a notebook keeps what it shows in its file."""


def fragment(timeline: Timeline) -> str:
    """Return the HTML of a timeline: self-contained, and with every text escaped."""
    looks = {label: look(n) for n, label in enumerate(timeline.shown_labels())}
    events, rows = timeline.events[:MOST_EVENTS], []
    for stream in timeline.streams:
        mine = [event for event in events if event.stream == stream]
        for label in (label for label in looks if any(e.label == label for e in mine)):
            bars = "".join(
                _bar(event.onset, event.offset, timeline.duration, looks[label]["background"],
                     f"{clock(event.onset)} to {clock(event.offset)}, {event.score_text}")
                for event in mine if event.label == label
            )  # fmt: skip
            rows.append(_row(f"{stream}: {timeline.marked(label)}", bars))
        if not mine:
            rows.append(_row(stream, "no event"))
    notes = list(timeline.notes)
    if len(timeline.events) > MOST_EVENTS:
        notes.append(f"The first {MOST_EVENTS} of {len(timeline.events)} events are drawn.")
    said = "".join(f"<div>{escape(note)}</div>" for note in notes)
    return (
        f"<div><b>{escape(Path(timeline.video).name or 'video')}</b>: {escape(summary(timeline))}"
        f'<table style="width:100%">{"".join(rows)}</table>{said}</div>'
    )


def _bar(onset: float, offset: float, duration: float, background: str, text: str) -> str:
    left, width = (100 * seconds / max(duration, 1e-9) for seconds in (onset, offset - onset))
    style = f"position:absolute;left:{left:.2f}%;width:{width:.2f}%;height:100%"
    return f'<div title="{escape(text)}" style="{style};background:{escape(background)}"></div>'


def _row(name: str, content: str) -> str:
    cell = "text-align:left;white-space:nowrap;width:1%"
    track = "position:relative;height:1.2em;text-align:left"
    return (
        f'<tr><td style="{cell}">{escape(name)}</td>'
        f'<td style="width:99%"><div style="{track}">{content}</div></td></tr>'
    )
