"""Readers of event lists, one format per module; every event knows its file and line.

They are our own, of 30 to 80 lines each: the packages that read these formats keep no line numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from avplatform.data.adapters.official_files import Defect
from avplatform.data.adapters.table.events import Event, Reading, raise_faults
from avplatform.data.adapters.table.readers.elan import read_elan
from avplatform.data.adapters.table.readers.lists import is_list, read_list
from avplatform.data.adapters.table.readers.objects import read_json
from avplatform.data.adapters.table.readers.parquet import read_parquet
from avplatform.data.adapters.table.readers.table import read_table
from avplatform.data.adapters.table.readers.text import text_of
from avplatform.data.adapters.table.readers.via import is_via, read_via
from avplatform.data.adapters.table.readers.vtt import read_vtt
from avplatform.models.errors import DataError
from avplatform.models.paths import expanded

READERS: dict[str, Callable[[Reading], None]] = {
    ".eaf": read_elan,
    ".json": read_json,
    ".jsonl": read_json,
    ".parquet": read_parquet,
    ".pq": read_parquet,
    ".vtt": read_vtt,
}
TEXTS = (".csv", ".tsv", ".txt", ".ann", ".lab")


def read_events(
    places: Sequence[str | Path], *, separator: str | None = None
) -> tuple[list[Event], list[Defect]]:
    """Read event lists of any of the formats.

    Args:
        places: files, or folders whose files of these formats are read in order of their names.
        separator: what separates several labels in one cell.

    Returns:
        The events, and what is odd in the files.

    Raises:
        DataError: a file is missing, unreadable, of no known format or has faults; names each one
            with file and line.
    """
    readings = [Reading(file, separator) for place in places for file in _files(expanded(place))]
    for reading in readings:
        _reader(reading)(reading)
    raise_faults(fault for reading in readings for fault in reading.faults)
    events = [event for reading in readings for event in reading.events]
    return events, [note for reading in readings for note in reading.notes]


def read_names(places: Sequence[str | Path]) -> list[Event]:
    """Read lists of videos: a table with the column "video", or a text with one name per line.

    Raises:
        DataError: a file is missing or unreadable, or a name is given with an event.
    """
    found: list[Event] = []
    for place in places:
        reading = Reading(expanded(place))
        text = text_of(reading)
        first, _, _ = text.partition("\n")
        if first.strip().lower() in ("video", "videos", "filename") or len(first.split("\t")) > 1:
            read_table(reading, text)
        else:
            for line, name in enumerate(text.splitlines(), 1):
                if name.strip():
                    reading.add(line, {"video": name})
        for event in reading.events:
            if event.label:
                reading.fault(event.line, f"lists the event '{event.label}'; give it in --events")
        raise_faults(reading.faults)
        found += reading.events
    return found


def _files(place: Path) -> Iterator[Path]:
    if place.is_dir():
        known = {*READERS, *TEXTS}
        inside = sorted(f for f in place.iterdir() if f.suffix.lower() in known and f.is_file())
        if not inside:
            raise DataError(f"{place} holds no event list ({', '.join(sorted(known))})")
        yield from (file for file in inside if not file.name.startswith("."))
        return
    if not place.is_file():
        raise DataError(f"no file {place}; give an event list, or a folder of them")
    yield place


def _reader(reading: Reading) -> Callable[[Reading], None]:
    suffix = reading.file.suffix.lower()
    if suffix in READERS:
        return READERS[suffix]
    if suffix not in TEXTS:
        known = ", ".join(sorted({*READERS, *TEXTS}))
        hint = "; save the sheet as csv" if suffix in (".xlsx", ".xls", ".ods") else ""
        raise DataError(f"{reading.file} is of no format that is read ({known}){hint}")
    text = text_of(reading)
    if is_via(text):
        return lambda reading: read_via(reading, text)
    if is_list(text):
        return lambda reading: read_list(reading, text)
    return lambda reading: read_table(reading, text)
