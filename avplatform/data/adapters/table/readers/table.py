"""Tables as text: csv, tsv, and what a spreadsheet calls csv in other countries."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Iterable
from typing import Any

from avplatform.data.adapters.table.events import Reading, is_empty, labels_of, plain
from avplatform.models.errors import counted, nearest

COLUMNS = {
    "video": ("video", "filename"),
    "onset": ("onset",),
    "offset": ("offset",),
    "label": ("label", "labels", "event_label", "event_labels"),
    "stream": ("stream",),
    "split": ("split",),
    "score": ("score",),
}
"""The columns of a table, each with the names under which it is read."""
LIKELY = {
    "video": ("file", "file_name", "video_id", "clip", "clip_id", "name", "path", "youtube_id"),
    "onset": ("start", "begin", "start_time", "start_seconds", "onset_s", "from", "t0"),
    "offset": ("end", "stop", "end_time", "end_seconds", "offset_s", "to", "t1"),
    "label": ("class", "event", "category", "tag", "tags", "annotation", "class_name"),
}
"""Names of other formats, which a message tells the user to rename."""
DELIMITERS = ("\t", ",", ";")


def read_table(reading: Reading, text: str) -> None:
    """Read a table whose first line names its columns."""
    lines, skipped, given = text.split("\n"), 0, None
    if lines[0].lower().startswith("sep=") and len(lines[0].strip()) == 5:  # written for Excel
        given, skipped = lines[0].strip()[4], 1
    header_line = next((line for line in lines[skipped:] if line.strip()), "")
    delimiter = given or max(DELIMITERS, key=lambda mark: _recognised(header_line, mark))
    rows = csv.reader(io.StringIO("\n".join(lines[skipped:])), delimiter=delimiter, strict=True)
    header: Header | None = None
    line = 1 + skipped
    while True:
        try:
            cells = next(rows, None)
        except csv.Error as error:
            reading.fault(line, f"cannot be read as a row ({error}); check the quotes")
            break
        if cells is None:
            break
        if any(cell.strip() for cell in cells):
            if header is None:
                header = Header(reading, line, cells)
                if not header.columns:
                    return
            else:
                header.row(line, cells)
        line = 1 + skipped + rows.line_num
    if header is not None:
        header.finish()


class Header:
    """The columns of a table; turns its rows into events.

    Args:
        reading: receives the events and the faults.
        line: where the header stands.
        names: the names of the columns.
    """

    def __init__(self, reading: Reading, line: int, names: Iterable[Any]) -> None:
        self.reading, self.line = reading, line
        self.names = [plain(name).lower() for name in names]
        self.columns: dict[str, int] = {}
        self._commas: list[tuple[int, str]] = []
        self._points = False
        self._faults = len(reading.faults)
        for column, known in COLUMNS.items():
            places = [place for place, name in enumerate(self.names) if name in known]
            if len(places) > 1:
                twice = " and ".join(f"'{self.names[place]}'" for place in places)
                reading.fault(line, f"the columns {twice} say the same; keep one of them")
            elif places:
                self.columns[column] = places[0]
        self._check()
        self.several = "label" in self.columns and self.names[self.columns["label"]].endswith("s")

    def _check(self) -> None:
        needed = ["video", "label"] if {"label", "onset", "offset"} & set(self.columns) else []
        if ("onset" in self.columns) != ("offset" in self.columns):
            needed += ["onset", "offset"]
        missing = [name for name in needed or ["video"] if name not in self.columns]
        others = [name for name in self.names if not any(name in k for k in COLUMNS.values())]
        for name in missing:
            likely = [o for o in others if o in LIKELY.get(name, ())] or [
                o for o in others if nearest(o, COLUMNS[name])
            ]
            hint = f"; rename '{likely[0]}' to '{name}'" if likely else ""
            there = ", ".join(name for name in self.names if name) or "none"
            self.reading.fault(
                self.line,
                f"there is no column '{name}' (columns: {there[:200]}){hint}; the first line must "
                "name the columns video, onset, offset, label",
            )
        if missing:
            self.columns = {}
            return
        for name in others:
            unused = [column for column in COLUMNS if column not in self.columns]
            known = difflib.get_close_matches(name, unused, n=1, cutoff=0.8)
            renamed = next((c for c in unused if name in LIKELY.get(c, ())), None)
            if known or renamed:
                self.reading.fault(
                    self.line,
                    f"the column '{name}' is not known; did you mean '{renamed or known[0]}'? "
                    "Rename it, or delete it",
                )
            elif name:
                self.reading.note("column that is not read", self.line, name)

    def row(self, line: int, cells: list[Any]) -> None:
        """Add the events of one row."""
        if len(cells) > len(self.names) and any(not is_empty(c) for c in cells[len(self.names) :]):
            self.reading.fault(
                line,
                f"{counted(len(cells), 'cell')} under {counted(len(self.names), 'column')}; put "
                "quotes around a cell that holds the separator, such as a decimal comma",
            )
            return
        found: dict[str, Any] = {
            name: cells[place] for name, place in self.columns.items() if place < len(cells)
        }
        if isinstance(found.get("label"), str):
            separator = self.reading.separator
            found["label"] = labels_of(found["label"], several=self.several, separator=separator)
        for name in ("onset", "offset"):
            time = plain(found.get(name))
            self._points |= "." in time
            if "," in time:
                self._commas.append((line, f"{name} {time}"))
        self.reading.add(line, found)

    def finish(self) -> None:
        """Judge the decimal commas: 1,500 may be a second and a half or 1500 in a mixed file."""
        for line, text in self._commas:
            if self._points:
                self.reading.fault(
                    line, f"{text} has a decimal comma and other times have points; use one of them"
                )
            else:
                self.reading.note("decimal comma", line, text)
        if not self.reading.events and len(self.reading.faults) == self._faults:
            self.reading.fault(self.line, "there is no row below the names of the columns")


def _recognised(line: str, delimiter: str) -> int:
    names = next(csv.reader([line], delimiter=delimiter), [])
    return sum(plain(name).lower() in known for name in names for known in COLUMNS.values())
