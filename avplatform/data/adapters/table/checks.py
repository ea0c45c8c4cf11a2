"""What a list of events says about each video, and whether it contradicts itself."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from avplatform.data.adapters.official_files import Defect
from avplatform.data.adapters.table.events import Event, names_of, plain, raise_faults
from avplatform.data.store.schema import BACKGROUND
from avplatform.models.errors import DataError, counted, nearest

RARE, USUAL = 2, 5  # rows of a class that may be a misspelling, and of the class that was meant


@dataclass
class EventTable:
    """The events of each video, and the splits that the list names.

    `videos` holds every video that is known and listed, also those without an event. `unknown` says
    which videos of the list are not among the known ones, `unlisted` which known ones the list
    does not have. `notes` are oddities that were read by a fixed rule.
    """

    videos: dict[str, list[Event]]
    classes: list[str]
    splits: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    notes: list[Defect] = field(default_factory=list)

    def timed(self, video: str) -> bool:
        """Whether it is known when the events of a video happen."""
        return all(event.timed for event in self.videos[video])


def make_table(events: Sequence[Event], *, videos: Collection[str]) -> EventTable:
    """Group events by video, and check them against each other.

    Args:
        events: the events, as `read_events` returns them.
        videos: the names of the videos.

    Raises:
        DataError: the events contradict each other (each fault is named with file and line), or
            none of them belongs to one of the videos.
    """
    found = EventTable(videos={}, classes=[])
    by_name = {plain(name): name for name in videos}
    unknown: dict[str, list[Event]] = {}
    for event in events:
        name = next((by_name[n] for n in names_of(event.video) if n in by_name), None)
        if name is None:
            unknown.setdefault(event.video, []).append(event)
        else:
            found.videos.setdefault(name, []).append(event)
    faults = [
        *_separators(events),
        *_spellings(events, found.notes),
        *_backgrounds(events),
        *(fault for video in found.videos for fault in _video(video, found)),
    ]
    faults += _all_or_none(found)
    raise_faults(faults)
    for name, rows in unknown.items():
        more = f" (and {counted(len(rows) - 1, 'more row')})" if len(rows) > 1 else ""
        hint = nearest(names_of(name)[-1], by_name)
        found.unknown.append(f"{rows[0].place}{more}: there is no video '{name}'{hint}")
    if not found.videos:
        raise DataError("\n".join([*found.unknown[:5], "none of the listed videos is there"]))
    found.unlisted = [name for name in videos if name not in found.videos]
    found.classes = sorted(
        {e.label for rows in found.videos.values() for e in rows if e.label},
        key=lambda label: (label.casefold(), label),
    )
    if not found.classes:
        raise DataError(f"{events[0].file} has no event of any of the videos")
    return found


def _video(video: str, table: EventTable) -> Iterable[str]:
    """Yield the contradictions in the rows of a video, and clean these rows."""
    rows = table.videos[video]
    splits: dict[str, Event] = {}
    for row in rows:
        if row.split is not None:
            splits.setdefault(row.split, row)
    if len(splits) > 1:
        (one, first), (other, second) = list(splits.items())[:2]
        text = f"'{video}' is in {other}, and in {one} ({first.place}); give it one split"
        yield f"{second.place}: {text}"
    elif splits:
        table.splits[video] = next(iter(splits))
    named = [row for row in rows if row.label]
    for row in rows:
        if not row.label and named:
            note = f"'{video}' has a row without an event, and events ({named[0].place})"
            table.notes.append(_defect("row without an event", row, note))
    timed = next((row for row in named if row.timed), None)
    weak = next((row for row in named if not row.timed), None)
    if timed is not None and weak is not None:
        text = f"'{video}' has events with times ({timed.place}) and this one without"
        yield f"{weak.place}: {text}; give all times, or none"
    table.videos[video] = list(_distinct(named, table.notes))


def _distinct(rows: Sequence[Event], notes: list[Defect]) -> Iterable[Event]:
    """Yield the rows without repeated ones, and note rows that overlap others of their class."""
    seen: dict[tuple[object, ...], Event] = {}
    for row in rows:
        key = (row.label, row.stream, row.onset, row.offset)
        if key in seen:
            text = f"{row.label}, first in {seen[key].unit} {seen[key].line}"
            notes.append(_defect("event listed twice", row, text))
            continue
        for other in seen.values():
            alike = other.label == row.label and other.stream == row.stream
            (a, b), (c, d) = row.span or (0, 0), other.span or (0, 0)
            if alike and max(a, c) < min(b, d):
                text = f"{row.label} overlaps {other.unit} {other.line}; they are joined"
                notes.append(_defect("events of one class that overlap", row, text))
                break
        seen[key] = row
        yield row


def _spellings(events: Sequence[Event], notes: list[Defect]) -> Iterable[str]:
    """Yield classes that are spelt in two ways, and note those that differ by a letter."""
    counts = Counter(event.label for event in events if event.label)
    first = {event.label: event for event in reversed(events)}
    by_key: dict[str, list[str]] = {}
    for label in counts:
        folded = unicodedata.normalize("NFKC", label).casefold()
        by_key.setdefault(re.sub(r"[\W_]+", "", folded) or folded, []).append(label)
    for labels in by_key.values():
        usual, *others = sorted(labels, key=lambda label: (-counts[label], first[label].line))
        for label in others:
            text = f"'{label}' is spelt '{usual}' elsewhere ({first[usual].place})"
            yield f"{first[label].place}: {text}; use one spelling for a class"
    common = [label for label in counts if counts[label] >= USUAL]
    for label in (label for label in counts if counts[label] <= RARE):
        for other in difflib.get_close_matches(label, common, n=1, cutoff=0.85):
            text = f"'{label}' ({counts[label]}), '{other}' ({counts[other]})"
            notes.append(_defect("classes that look alike", first[label], text))


def _separators(events: Sequence[Event]) -> Iterable[str]:
    """Yield labels with commas whose parts are labels themselves."""
    labels = {event.label for event in events}
    told = set()
    for event in events:
        parts = [part.strip() for part in event.label.split(",")]
        if len(parts) > 1 and labels & set(parts) and event.label not in told:
            told.add(event.label)
            text = f"'{event.label}' may be {counted(len(parts), 'label')}; separate them by ;"
            yield f"{event.place}: {text}, or give --separator ,"


def _backgrounds(events: Sequence[Event]) -> Iterable[str]:
    for event in events:
        if event.label.casefold() == BACKGROUND:
            text = f"'{event.label}' stands for no event; leave the label and the times empty"
            yield f"{event.place}: {text}, or delete the row"


def _all_or_none(table: EventTable) -> Iterable[str]:
    """Yield videos without a split where others have one."""
    if not table.splits:
        return
    for video, rows in table.videos.items():
        if video not in table.splits and rows:
            yield f"{rows[0].place}: '{video}' has no split, and other videos have; fill it in"
        elif video not in table.splits:
            yield f"'{video}' has no split, and other videos have; fill it in"


def known_when(table: EventTable, splits: Mapping[str, str]) -> set[str]:
    """Return the splits in which all events have times.

    Args:
        table: the events.
        splits: the split of each video, or one name for all where nobody chose the splits.

    Raises:
        DataError: a split has videos with times and others without.
    """
    when: dict[str, dict[bool, Event]] = {}
    for video, split in splits.items():
        for event in table.videos[video][:1]:
            when.setdefault(split, {}).setdefault(event.timed, event)
    for split, kinds in when.items():
        if len(kinds) > 1:
            raise DataError(
                f"{kinds[False].place}: the event has no times, and events of other videos of "
                f"{split} have ({kinds[True].place}); give all times of a split, or none"
            )
    return {split for split in set(splits.values()) if False not in when.get(split, {})}


def _defect(kind: str, event: Event, text: str) -> Defect:
    return Defect(kind, Path(event.file).name, event.line, text)
