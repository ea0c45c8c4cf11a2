"""A timeline as files that other programs read: JSON, CSV, ELAN (.eaf) and WebVTT (.vtt)."""

from __future__ import annotations

import csv
import io
import json
import mimetypes
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avplatform.models.contracts import STREAMS
from avplatform.models.files import write_atomic
from avplatform.timeline.event import Event
from avplatform.version import __version__

if TYPE_CHECKING:
    from avplatform.timeline.timeline import Timeline

COLUMNS = ("video", "stream", "label", "onset", "offset", "score")
# The format requires a date; a fixed one makes the same file from the same video.
ELAN_DATE = "1970-01-01T00:00:00+00:00"


def as_json(timeline: Timeline, *, indent: int | None = 2) -> str:
    """Return the whole timeline as JSON: events, and the scores and attention of all segments."""
    each = timeline.segment_seconds
    content: dict[str, Any] = {
        "_type": "avplatform-timeline",
        "_version": 1,
        "video": timeline.video,
        "duration": round(timeline.duration, 3),
        "segment_seconds": int(each) if each == int(each) else each,
        "model": timeline.model,
        "task": timeline.task,
        "encoder": timeline.encoder,
        "decoder": timeline.decoder,
        "labels": timeline.labels,
        "open_labels": timeline.open_labels,
        "never_trained_on": timeline.never_trained_on,
        **({"bank": {"assumed": timeline.bank}} if timeline.bank else {}),
        "streams": timeline.streams,
        "notes": timeline.notes,
        "about": timeline.about,
        "events": [event_row(event) for event in timeline.events],
        "scores": {name: values.round(4).tolist() for name, values in timeline.scores.items()},
        "attention": {
            name: values.round(4).tolist() for name, values in timeline.attention.items()
        },
    }
    return json.dumps(content, indent=indent, ensure_ascii=False) + "\n"


def event_row(event: Event) -> dict[str, Any]:
    """Return an event as a row of the JSON and CSV files."""
    return {
        "stream": event.stream,
        "label": event.label,
        "onset": round(event.onset, 3),
        "offset": round(event.offset, 3),
        "score": round(event.score, 4),
        "never_trained_on": event.never_trained_on,
    }


def as_csv(timeline: Timeline) -> str:
    """Return the events as CSV, one line per event under a header, which names the video.

    The tables of several videos can be joined, and are read as lists of events (`data import
    table`, `score`).

    The column never_trained_on (true, false) is there where the model was never trained on a label.
    """
    out = io.StringIO()
    mark = ["never_trained_on"] if timeline.never_trained_on else []
    writer = csv.DictWriter(out, [*COLUMNS, *mark], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for event in timeline.events:
        row = {"video": timeline.video, **event_row(event)}
        writer.writerow({**row, "never_trained_on": json.dumps(row["never_trained_on"])})
    return out.getvalue()


def as_vtt(timeline: Timeline) -> str:
    """Return WebVTT with one cue per event, which players show as a subtitle.

    The stream is the voice of the cue.
    """
    cues = ["WEBVTT", f"NOTE events found by avplatform {__version__} ({timeline.task})"]
    for number, event in enumerate(sorted(timeline.events, key=lambda e: (e.onset, e.offset)), 1):
        text = f"<v {event.stream}>{_escaped(event.label)} ({event.score_text})"
        cues.append(
            f"{number}\n{_clock(event.onset)} --> "
            f"{_clock(max(event.offset, event.onset + 0.001))}\n{text}"
        )
    return "\n\n".join(cues) + "\n"


def as_eaf(timeline: Timeline, *, media: str) -> str:
    """Return an ELAN document with one tier per stream and label.

    Annotations of one tier may not overlap.

    Args:
        timeline: the timeline.
        media: the path of the video relative to the document.
    """
    root = ET.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": f"avplatform {__version__}",
            "DATE": ELAN_DATE,
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:noNamespaceSchemaLocation": "http://www.mpi.nl/tools/elan/EAFv3.0.xsd",
        },
    )
    header = ET.SubElement(root, "HEADER", {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"})
    kind = mimetypes.guess_type(media)[0] or "video/mp4"
    place = {"MEDIA_URL": media, "RELATIVE_MEDIA_URL": media, "MIME_TYPE": kind}
    ET.SubElement(header, "MEDIA_DESCRIPTOR", place)
    tiers: dict[tuple[str, str], list[Event]] = {}
    for event in timeline.events:
        tiers.setdefault((event.stream, event.label), []).append(event)
    bounds = [t for event in timeline.events for t in (event.onset, event.offset)]
    times = sorted(set(map(_milliseconds, bounds)))
    slots = {time: f"ts{number}" for number, time in enumerate(times, 1)}
    order = ET.SubElement(root, "TIME_ORDER")
    for time, slot in slots.items():
        ET.SubElement(order, "TIME_SLOT", {"TIME_SLOT_ID": slot, "TIME_VALUE": str(time)})
    number = 0
    labels = timeline.labels
    for stream, label in sorted(tiers, key=lambda t: (STREAMS.index(t[0]), labels.index(t[1]))):
        tier_id = f"{stream}: {_clean(label)}"
        tier = ET.SubElement(root, "TIER", LINGUISTIC_TYPE_REF="event", TIER_ID=tier_id)
        for event in tiers[stream, label]:
            number += 1
            outer = ET.SubElement(tier, "ANNOTATION")
            annotation = ET.SubElement(
                outer,
                "ALIGNABLE_ANNOTATION",
                ANNOTATION_ID=f"a{number}",
                TIME_SLOT_REF1=slots[_milliseconds(event.onset)],
                TIME_SLOT_REF2=slots[_milliseconds(event.offset)],
            )
            value = ET.SubElement(annotation, "ANNOTATION_VALUE")
            value.text = f"{_clean(event.label)} ({event.score_text})"
    of_tiers = {"LINGUISTIC_TYPE_ID": "event", "TIME_ALIGNABLE": "true"}
    ET.SubElement(root, "LINGUISTIC_TYPE", {"GRAPHIC_REFERENCES": "false", **of_tiers})
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def write_exports(timeline: Timeline, folder: Path, *, media: str) -> list[Path]:
    """Write events.json, events.csv, events.eaf and events.vtt; return their paths."""
    texts = {
        "events.json": as_json(timeline),
        "events.csv": as_csv(timeline),
        "events.eaf": as_eaf(timeline, media=media),
        "events.vtt": as_vtt(timeline),
    }
    return [write_atomic(folder / name, text) for name, text in texts.items()]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _clock(seconds: float) -> str:
    """Return seconds as hours:minutes:seconds.milliseconds."""
    whole = _milliseconds(seconds)
    hours, minutes, rest = whole // 3_600_000, whole // 60_000 % 60, whole // 1000 % 60
    return f"{hours:02d}:{minutes:02d}:{rest:02d}.{whole % 1000:03d}"


def _escaped(text: str) -> str:
    """Return a label for a WebVTT cue: on one line, without markup."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clean(text: str) -> str:
    """Return a label for XML, without the control characters that XML does not allow."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())
