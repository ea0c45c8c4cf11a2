"""Labels of clips from listed events, for any task that can be taught by events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.data.adapters.official_files import Defect
from avplatform.data.adapters.plan import stamps
from avplatform.data.adapters.table.checks import known_when, make_table
from avplatform.data.adapters.table.events import Event
from avplatform.data.adapters.table.options import DEFAULT_SHARES, EventOptions
from avplatform.data.adapters.table.readers import read_events, read_names
from avplatform.data.adapters.table.segments import active_shares
from avplatform.data.adapters.table.splits import parse_shares, split_videos
from avplatform.data.store.schema import SPLITS
from avplatform.models.contracts import STREAMS
from avplatform.models.errors import DataError, UsageError
from avplatform.tasks.registry import TASKS

Window = tuple[float, float]


class EventLabels:
    """The labels and splits of clips, from event lists and options.

    Args:
        options: the files and the rules.
        videos: the names of the videos that there are.
        task: the task that the labels are for.
        segments: segments per clip.
        split: a split for all videos, or shares of the splits; default: the column of the list,
            or 0.8,0.1,0.1.
        fixed: the splits of videos that keep theirs, where the list has no column of splits.

    Raises:
        DataError: the lists are missing, malformed or contradict themselves.
        UsageError: the task is not taught by events, or splits are given twice.
    """

    def __init__(
        self,
        options: EventOptions,
        *,
        videos: Sequence[str],
        task: str,
        segments: int,
        split: str | None = None,
        fixed: dict[str, str] | None = None,
    ) -> None:
        self.options, self.segments, self.task = options, segments, TASKS[task]
        if self.task.from_events is None:
            raise UsageError(
                f"the task {task} cannot be taught by a list of events: {self.task.__name__} does "
                "not define `from_events`"
            )
        self.rule = self.task.from_events
        events, notes = read_events(options.events, separator=options.separator)
        listed = read_names(options.listed)
        self.table = make_table([*events, *listed], videos=videos)
        self.notes, self.classes = [*notes, *self.table.notes], self.table.classes
        self.remarks: list[str] = []
        self.split, self.splits = split, self._splits(split, fixed or {})
        chosen = self.table.splits or dict.fromkeys(self.splits, "this list")
        known = known_when(self.table, chosen)
        self.timed = known if self.table.splits else set(self.splits.values()) if known else set()
        self.spec = self._spec()
        """The fields of a store's specification that labels decide."""
        self.files = sorted({event.file for event in [*events, *listed]})
        self.found: dict[str, dict[str, int]] = {}
        """Clips of each class by split, of the videos that were asked for."""
        weak = [s for s in dict.fromkeys(self.splits.values()) if s not in self.timed]
        if weak:
            unscored = [split for split in weak if split != SPLITS[0]]
            self.remarks.append(
                f"the events of {', '.join(weak)} have no times: labels of whole videos"
                + (f"; {' and '.join(unscored)} cannot be scored by segments" if unscored else "")
            )
        if any(event.score is not None for rows in self.table.videos.values() for event in rows):
            self.remarks.append("scores are not read: every event counts, whatever its score")

    def _splits(self, given: str | None, fixed: dict[str, str]) -> dict[str, str]:
        """Return the split of each listed video."""
        videos = self.table.videos
        if self.table.splits:
            if given is not None:
                raise UsageError(
                    "--split is given, and so is a column split; leave one of them out"
                )
            return {video: self.table.splits[video] for video in videos}
        if given is not None and "," not in given:
            return dict.fromkeys(videos, given)
        shares = parse_shares(given or DEFAULT_SHARES)
        classes = {video: {event.label for event in rows} for video, rows in videos.items()}
        found = split_videos(classes, shares, seed=self.options.seed, fixed=fixed)
        divided = [split for video, split in found.items() if video not in fixed]
        if divided:
            counts = ", ".join(f"{s} {divided.count(s)}" for s in shares)
            new = "new videos" if len(divided) < len(found) else "videos"
            self.remarks.append(
                f"{new} divided by {given or DEFAULT_SHARES} (seed {self.options.seed}): {counts}"
            )
        return {video: found[video] for video in videos}

    def _spec(self) -> dict[str, Any]:
        empty = np.zeros((1, self.segments, len(self.classes)), np.float32)
        labels = self.rule.make(empty, empty)
        used, known = list(dict.fromkeys(self.splits.values())), {}
        for name, when in self.rule.labels.items():
            kept = SPLITS[:1] if when == "training" else used
            known[name] = [s for s in used if s in kept and (when == "always" or s in self.timed)]
        return {
            "classes": list(self.rule.classes(self.classes)),
            "labels": {name: list(values.shape[1:]) for name, values in labels.items()},
            "label_dtypes": {
                name: "uint8" if values.dtype == np.uint8 else "int64"
                for name, values in labels.items()
            },
            "label_splits": {name: splits for name, splits in known.items() if splits != used},
            "segments": self.segments,
            "segment_seconds": self.options.segment,
        }

    def provenance(self) -> dict[str, Any]:
        """Return what a store remembers of its labels: the files and the rules."""
        names = ("segment", "covered", "beyond", "seed", "separator")
        return {
            "annotations": stamps({Path(file).name: Path(file) for file in self.files}),
            "rules": {name: getattr(self.options, name) for name in names},
        }

    def labels(
        self, video: str, windows: Sequence[Window], *, duration: float, note: bool = True
    ) -> list[dict[str, np.ndarray]]:
        """Return the labels of the clips of a video.

        Args:
            video: the name of the video.
            windows: the start and the end of each clip in seconds.
            duration: the length of the video in seconds.
            note: record what is odd, and count the classes.

        Raises:
            DataError: the video is not listed, an event lies beyond its end, or the task cannot
                have events at the same time.
        """
        if video not in self.table.videos:
            raise DataError(f"the list of events does not have '{video}'; a video without events "
                            "is a row without a label")  # fmt: skip
        notes: list[Defect] = []
        rows = [self._within(row, duration, notes) for row in self.table.videos[video]]
        if self.rule.one_at_a_time:
            check_apart(rows, self.task.name)
        split, each = self.splits[video], self.options.segment
        firsts = [round(start / each) for start, _ in windows]  # clips begin where a segment does
        whole = [self._map(rows, stream, max(firsts) + self.segments) for stream in STREAMS[:2]]
        heard, seen = (np.stack([m[at : at + self.segments] for at in firsts]) for m in whole)
        if split in self.timed:
            notes += self._lost(rows, *whole)
        elif rows and len(windows) > 1:
            text = f"the labels of '{video}' hold for all of its {len(windows)} clips"
            notes.append(_defect("label of a video with several clips", rows[0], text))
        labels = self.rule.make(heard, seen)
        for name in labels:
            if split not in self.spec["label_splits"].get(name, [split]):
                labels[name] = np.zeros_like(labels[name])
        if note:
            self.notes += notes
            counts = self.found.setdefault(split, dict.fromkeys(self.classes, 0))
            for n, clips in enumerate((np.maximum(heard, seen).max(axis=1) > 0).sum(axis=0)):
                counts[self.classes[n]] += int(clips)
        return [{name: values[n] for name, values in labels.items()} for n in range(len(windows))]

    def missing_classes(self) -> list[str]:
        """Return a line for each class that no clip of a split has."""
        lines = []
        for label in self.classes:
            without = [split for split, counts in self.found.items() if not counts[label]]
            if without:
                where = " and ".join(without)
                lines.append(f"the class '{label}' has no clip in {where}")
        return lines

    def _within(self, row: Event, duration: float, notes: list[Defect]) -> Event:
        """Return an event, or the part of it that lies in its video."""
        if row.span is None or row.span[1] <= duration:
            return row
        onset, offset = row.span
        end = f"the video ends at {duration:.3f} s"
        if onset >= duration:
            raise DataError(
                f"{row.place}: the event '{row.label}' ({onset:g} to {offset:g} s) lies "
                f"beyond the end: {end}; give seconds, not milliseconds or frames"
            )
        if self.options.beyond == "refuse":
            raise DataError(
                f"{row.place}: the event '{row.label}' ends at {offset:g} s, and {end}; "
                "mend it, or give --beyond cut"
            )
        text = f"{row.label} of '{row.video}' to {offset:g} s, cut: {end}"
        notes.append(_defect("event beyond the end", row, text))
        return replace(row, offset=duration)

    def _map(self, rows: Sequence[Event], stream: str, segments: int) -> np.ndarray:
        """Return the covered shares of the active segments of a video: float32 [S, C]."""
        out = np.zeros((segments, len(self.classes)), np.float32)
        for label in {row.label for row in rows}:
            mine = [r for r in rows if r.label == label and r.stream in (stream, STREAMS[-1])]
            spans = [r.span for r in mine if r.span is not None]
            column = out[:, self.classes.index(label)]
            if len(spans) < len(mine):
                column[:] = 1  # somewhere in the video
            elif spans:
                column[:] = active_shares(
                    spans, segments, seconds=self.options.segment, covered=self.options.covered
                )
        return out

    def _lost(self, rows: Sequence[Event], heard: np.ndarray, seen: np.ndarray) -> list[Defect]:
        """Return the events that are active in none of the segments that they touch."""
        joint, each = np.minimum(heard, seen), self.options.segment
        alone = {STREAMS[0]: heard, STREAMS[1]: seen, STREAMS[-1]: joint}
        lost = []
        for row in rows:
            if row.span is None:
                continue
            onset, offset = row.span
            found = joint if self.task.streams == "joint" else alone[row.stream]
            begin, end = int(onset // each), int(-(-offset // each))
            if found[begin:end, self.classes.index(row.label)].any():
                continue
            if begin >= len(found):
                kind = "event after the last clip"
            elif self.task.streams == "joint" and row.stream != STREAMS[-1]:
                kind = "event that is not both heard and seen"
            else:
                kind = f"event that covers less than {self.options.covered:g} of every segment"
            text = f"{row.label} of '{row.video}', {onset:g} to {offset:g} s"
            lost.append(_defect(kind, row, text))
        return lost


def check_apart(rows: Sequence[Event], task: str) -> None:
    """Refuse events of two classes at the same time, for a task that has one at a time.

    Raises:
        DataError: two classes are both heard and seen at once; names file and line.
    """
    spans = []
    for label in {row.label for row in rows}:
        heard, seen = (
            [r for r in rows if r.label == label and r.stream in (stream, STREAMS[-1])]
            for stream in STREAMS[:2]
        )
        for one in heard:
            for other in seen:
                (a, b), (c, d) = one.span or (0, np.inf), other.span or (0, np.inf)
                if max(a, c) < min(b, d):
                    row = one if one.line > other.line else other
                    spans.append((max(a, c), min(b, d), row))
    spans.sort(key=lambda span: (span[0], span[1]))
    for n, (_, offset, row) in enumerate(spans):
        for onset, _, other in spans[n + 1 :]:
            if onset < offset and other.label != row.label:
                raise DataError(
                    f"{other.place}: '{other.label}' is at the same time as '{row.label}' "
                    f"({row.place}), and the task {task} has one event at a time; choose another "
                    "--task"
                )


def _defect(kind: str, row: Event, text: str) -> Defect:
    return Defect(kind, Path(row.file).name, row.line, text)
