"""Events as JSON: a list of objects, one object per line, or a timeline of this platform."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from avplatform.data.adapters.table.events import Reading
from avplatform.data.adapters.table.readers.table import Header
from avplatform.data.adapters.table.readers.text import text_of

SPACE = re.compile(r"[\s,]*")


def read_json(reading: Reading) -> None:
    """Read a JSON or JSON-lines file of objects whose keys are the columns of a table."""
    text = text_of(reading)
    start, video = _list_of(text), None
    decode = json.JSONDecoder().raw_decode
    if start is None and (found := re.search(r'"events"\s*:\s*\[', text)):
        try:
            video, start = json.loads(text).get("video"), found.end()
        except (json.JSONDecodeError, AttributeError, RecursionError):
            start = None
    headers: dict[tuple[str, ...], Header] = {}
    for line, row in _objects(reading, text, start or 0, decode):
        if video is not None and isinstance(row, dict):
            row = {"video": video, **row}
        if not isinstance(row, dict):
            reading.fault(line, "is not an object with the keys video, onset, offset, label")
            continue
        keys = tuple(row)
        if keys not in headers:
            headers[keys] = Header(reading, line, keys)
        if headers[keys].columns:
            headers[keys].row(line, list(row.values()))
    if not headers and not reading.faults:
        reading.fault(1, "there is no event; give a list of objects")


def _list_of(text: str) -> int | None:
    """Return where the first element of a list stands, or None if the text is not a list."""
    begin = len(text) - len(text.lstrip())
    return begin + 1 if text[begin : begin + 1] == "[" else None


def _objects(reading: Reading, text: str, at: int, decode: Any) -> Iterator[tuple[int, Any]]:
    """Yield each object with the line on which it begins."""
    line, last = 1, 0
    while True:
        at += len(SPACE.match(text, at)[0])  # type: ignore[index]
        line, last = line + text.count("\n", last, at), at
        if at >= len(text) or text[at] == "]":
            return
        try:
            row, at = decode(text, at)
        except (json.JSONDecodeError, RecursionError) as error:
            place = getattr(error, "lineno", line)
            reading.fault(place, f"is not JSON ({getattr(error, 'msg', error)})")
            return
        yield line, row
