"""Events as a file lists them, and the faults and notes that reading them collects."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from avplatform.data.adapters.official_files import Defect
from avplatform.data.store.schema import SPLITS
from avplatform.models.contracts import STREAMS
from avplatform.models.errors import DataError, nearest

LISTED = 20  # faults in one message
BOTH = STREAMS[-1]  # an event that is heard and seen
STREAM_WORDS = {**{name: name for name in STREAMS}, "both": BOTH, "audio-visual": BOTH}
SPLIT_WORDS = {**{name: name for name in SPLITS}, "val": SPLITS[1], "valid": SPLITS[1],
               "dev": SPLITS[1]}  # fmt: skip
EMPTY = ("nan", "none", "null", "n/a", "<na>")
CLOCK = re.compile(r"(?:(\d+):)?(?:(\d+):)?(\d+(?:[.,]\d*)?|[.,]\d+)")
POWER = re.compile(r"\d+(?:\.\d+)?[eE][-+]?\d+")


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event of a video, or, without a label, the statement that a video has no event.

    Without times, the event is somewhere in the video. `stream` is where the event is noticed:
    "audio", "visual", or "av" for both. `file`, `unit` and `line` are where it stands.
    """

    video: str
    label: str = ""
    onset: float | None = None
    offset: float | None = None
    stream: str = BOTH
    split: str | None = None
    score: float | None = None
    file: str = ""
    line: int = 0
    unit: str = "line"

    @property
    def place(self) -> str:
        """The file and the line, as messages name them."""
        return f"{self.file}, {self.unit} {self.line}"

    @property
    def span(self) -> tuple[float, float] | None:
        """Onset and offset, or None if it is not known when the event happens."""
        if self.onset is None or self.offset is None:
            return None
        return self.onset, self.offset

    @property
    def timed(self) -> bool:
        """Whether it is known when the event happens."""
        return self.span is not None


@dataclass
class Reading:
    """What one file is read with, and what was found wrong or odd in it.

    Args:
        file: the file.
        separator: what separates several classes in one cell; default: see `labels_of`.
    """

    file: Path
    separator: str | None = None
    events: list[Event] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[Defect] = field(default_factory=list)
    unit: str = "line"

    def fault(self, line: int, text: str) -> None:
        """Add a fault, which refuses the file."""
        self.faults.append(f"{self.file}, {self.unit} {line}: {text}")

    def note(self, kind: str, line: int, text: str) -> None:
        """Add an oddity that is read by a fixed rule."""
        self.notes.append(Defect(kind, self.file.name, line, text))

    def add(self, line: int, cells: dict[str, Any]) -> None:
        """Add the event or events of a row.

        Args:
            line: where the row stands.
            cells: the values of the row by column: video, label (a text or a list), onset, offset,
                stream, split, score. A missing or empty value is not given.
        """
        before = len(self.faults)
        onset, offset = (self._time(line, name, cells.get(name)) for name in ("onset", "offset"))
        values: dict[str, Any] = {
            "video": plain(cells.get("video")),
            "onset": onset,
            "offset": offset,
            "stream": self._word(line, "stream", cells.get("stream"), STREAM_WORDS) or BOTH,
            "split": self._word(line, "split", cells.get("split"), SPLIT_WORDS),
            "score": self._score(line, cells.get("score")),
        }
        labels = cells.get("label")
        labels = [plain(label) for label in (labels if isinstance(labels, list) else [labels])]
        if not values["video"]:
            self.fault(line, "the video is not named; fill in the cell, or delete the row")
        if len(labels) > 1 and not all(labels):
            self.fault(line, "one of several labels is empty; delete its separator")
        for label in labels:
            if label.casefold() in EMPTY:
                self.fault(line, f"the label is '{label}', which programs write for an empty cell; "
                                 "leave the cell empty if the video has no event")  # fmt: skip
            if not label and (onset is not None or offset is not None):
                self.fault(line, "an event without a label; name its class, or delete the row")
            elif label and (onset is None) != (offset is None) and len(self.faults) == before:
                missing = "offset" if offset is None else "onset"
                self.fault(line, f"the event '{label}' has no {missing}; give both times, or none")
        if onset is not None and offset is not None and offset <= onset:
            what = "ends before it begins" if offset < onset else "has no length"
            self.fault(line, f"the event '{labels[0]}' {what} ({onset:g} to {offset:g} s); give "
                             "onset before offset, both in seconds")  # fmt: skip
        if len(self.faults) == before:
            values |= {"file": str(self.file), "line": line, "unit": self.unit}
            self.events += [Event(label=label, **values) for label in labels]

    def _time(self, line: int, name: str, value: Any) -> float | None:
        if is_empty(value):
            return None
        try:
            return seconds_of(value)
        except ValueError as error:
            self.fault(line, f"{name} {error}")
            return None

    def _word(self, line: int, name: str, value: Any, words: dict[str, str]) -> str | None:
        if is_empty(value):
            return None
        text = plain(value).casefold()
        if text not in words:
            known = ", ".join(words)
            self.fault(line, f"{name} is '{plain(value)}'{nearest(text, words)} (known: {known})")
        return words.get(text)

    def _score(self, line: int, value: Any) -> float | None:
        if is_empty(value):
            return None
        try:
            score = float(plain(value).replace(",", "."))
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            self.fault(line, f"score is '{plain(value)}', which is not a number")
            return None
        return score


def seconds_of(value: Any) -> float:
    """Return a time in seconds: `7`, `7.5`, `7,5`, `0:07.5` or `1:02:07.5`.

    Raises:
        ValueError: this is not a time; the text says what would be one.

    Examples:
        >>> seconds_of("7,5"), seconds_of("1:00:07.5"), seconds_of(7)
        (7.5, 3607.5, 7.0)
    """
    text = plain(value)
    right = "give seconds such as 7.5, or minutes and seconds such as 0:07.5"
    if text.startswith(("-", "\N{MINUS SIGN}")):
        raise ValueError(f"is '{text}', which is negative; {right}")
    if POWER.fullmatch(text):
        return float(text)
    found = CLOCK.fullmatch(text)
    if isinstance(value, bool) or found is None:
        raise ValueError(f"is '{text}', which is not a time; {right}")
    first, second, rest = found.groups()
    minutes = int(second or first or 0)
    hours = int(first) if second else 0
    if (second and minutes > 59) or (first and float(rest.replace(",", ".")) >= 60):
        raise ValueError(f"is '{text}', which has more than 59 minutes or seconds; {right}")
    # The seconds' own digits are kept, so that 0:07.1 is the number 7.1.
    whole, _, part = rest.replace(",", ".").partition(".")
    return float(f"{hours * 3600 + minutes * 60 + int(whole or 0)}.{part or 0}")


def is_empty(value: Any) -> bool:
    """Return whether a cell holds nothing."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or not plain(value)


def plain(value: Any) -> str:
    """Return a cell as text: composed Unicode, with single spaces and none around it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return " ".join(unicodedata.normalize("NFC", str(value)).split())


def labels_of(text: str, *, several: bool, separator: str | None = None) -> list[str] | str:
    """Return the labels in a cell.

    Semicolons and bars separate several labels, or the separator that the user gave. Commas do so
    too in a column of `several` labels ("labels"), unless the cell has one of the others: the name
    of a class may hold a comma.

    Examples:
        >>> labels_of("dog;siren", several=False), labels_of("siren, police", several=False)
        (['dog', 'siren'], 'siren, police')
    """
    if separator:
        parts = text.split(separator)
    elif ";" in text or "|" in text:
        parts = re.split("[;|]", text)
    else:
        parts = text.split(",") if several else [text]
    return parts if len(parts) > 1 else text


def names_of(video: str) -> list[str]:
    """Return the names that a video's file may have, from the cell that names it.

    Examples:
        >>> names_of("set1/dog.v2.mp4")
        ['set1/dog.v2.mp4', 'dog.v2.mp4', 'dog.v2']
    """
    name = PurePosixPath(PureWindowsPath(video).as_posix()).name
    return list(dict.fromkeys([video, name, PurePosixPath(name).stem]))


def raise_faults(faults: Iterable[str]) -> None:
    """Raise DataError with the faults, one per line, if there are any."""
    found = list(dict.fromkeys(faults))
    if not found:
        return
    more = [f"and {len(found) - LISTED} more faults"] if len(found) > LISTED else []
    raise DataError("\n".join([*found[:LISTED], *more]))
