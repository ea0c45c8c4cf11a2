"""The csv files of VGG Image Annotator 3: a temporal segment is an event."""

from __future__ import annotations

import csv
import json
from typing import Any

from avplatform.data.adapters.table.events import Reading

MARK = "CSV_HEADER"
LABELS = ("label", "labels", "class", "event")
NAMELESS = "_DEFAULT"  # the name of VIA's first, unnamed timeline


def is_via(text: str) -> bool:
    """Return whether a csv file has VIA's comments."""
    return any(line.startswith("#") and MARK in line for line in text.split("\n", 50)[:50])


def read_via(reading: Reading, text: str) -> None:
    """Read the temporal segments; regions of single frames are no events."""
    lines = text.split("\n")
    header: list[str] = []
    attributes: dict[str, Any] = {}
    for number, line in enumerate(lines, 1):
        if not line.startswith("#"):
            continue
        name, _, value = line.lstrip("# ").partition("=")
        if name.strip() == MARK:
            header = [part.strip() for part in value.split(",") if part.strip()]
        elif name.strip() in ("ATTRIBUTE", "ATTRIBUTES"):
            try:
                attributes = json.loads(value)
            except (json.JSONDecodeError, RecursionError):
                reading.fault(number, "the attributes are not JSON; export the project again")
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            row = dict(zip(header, next(csv.reader([line], strict=True)), strict=False))
            files = json.loads(row["file_list"])
            times = json.loads(row["temporal_coordinates"])
            values = json.loads(row["metadata"])
            if (type(files), type(times), type(values)) != (list, list, dict):
                raise ValueError("a list is missing")
        except (csv.Error, KeyError, ValueError, RecursionError, StopIteration) as error:
            reading.fault(number, f"is not a row of VIA ({type(error).__name__}: {error})")
            continue
        if len(times) < 2:
            reading.note("region or frame that is not an event", number, f"at {times} s")
            continue
        if len(times) > 2 or len(files) != 1:
            reading.fault(
                number, f"has {len(times)} times and {len(files)} files; give two and one"
            )
            continue
        found = {"video": files[0], "onset": times[0], "offset": times[1]}
        _attributes(reading, number, values, attributes, found)
        reading.add(number, found)


def _attributes(
    reading: Reading, line: int, values: dict[str, Any], attributes: Any, found: dict[str, Any]
) -> None:
    """Add the label and the stream of a row; a value may be the number of an option."""
    named: dict[str, Any] = {}
    for key, value in values.items():
        about = attributes.get(key, {}) if isinstance(attributes, dict) else {}
        name = about.get("aname", key) if isinstance(about, dict) else str(about)
        options = about.get("options", {}) if isinstance(about, dict) else {}
        parts = str(value).split(",") if isinstance(options, dict) and options else [str(value)]
        whole = all(part in options for part in parts) and options
        named[str(name).casefold()] = [options[part] for part in parts] if whole else str(value)
    found["stream"] = named.pop("stream", None)
    if isinstance(found["stream"], list):
        found["stream"] = found["stream"][0]
    labels = [name for name in named if name in LABELS] or list(named)
    if len(labels) > 1:
        reading.fault(line, f"has the attributes {', '.join(labels)}; call that of the class label")
    label = named[labels[0]] if labels else ""
    found["label"] = "" if label == NAMELESS else label
