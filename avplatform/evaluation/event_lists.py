"""Scores of event lists, of any system, against lists of the true events."""

from __future__ import annotations

import json
import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from avplatform.data.adapters.official_files import Defect, defect_lines
from avplatform.data.adapters.table.checks import make_table
from avplatform.data.adapters.table.events import Event, names_of, raise_faults
from avplatform.data.adapters.table.readers import read_events
from avplatform.data.adapters.table.segments import Span, active_shares, joined
from avplatform.models.contracts import STREAMS
from avplatform.models.errors import DataError, UsageError, counted
from avplatform.models.paths import expanded
from avplatform.tasks.avvp.metrics import averages, score

LONGEST = 86_400.0  # seconds
CELLS = 2**22  # segments times classes of the videos that are scored at once
Spans = dict[tuple[str, str], list[Span]]
"""The spans of a stream by video and label, in order and apart."""


@dataclass(kw_only=True)
class Lists:
    """Predicted and true events of the same videos, with the labels spelt alike.

    `videos` are those of the true events, `remarks` what was left out or read by a fixed rule.
    """

    videos: list[str]
    classes: list[str]
    predicted: dict[str, list[Event]]
    true: dict[str, list[Event]]
    remarks: list[str] = field(default_factory=list)

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that an event names, or the joint one alone if none names another."""
        rows = [
            e for side in (self.predicted, self.true) for events in side.values() for e in events
        ]
        return STREAMS if any(e.stream != STREAMS[-1] for e in rows) else STREAMS[-1:]


def read_lists(
    predictions: str | Path,
    truth: str | Path,
    *,
    separator: str | None = None,
    threshold: float | None = None,
) -> Lists:
    """Read predicted and true events, and match their videos and labels.

    Videos match by their names without folder and suffix, labels also where they differ in case,
    spaces or underscores only.

    Args:
        predictions: an event list, a folder of them, or the folder of `avplatform predict`.
        truth: an event list or a folder of them; its videos are scored. A video without events is a
            row without a label.
        separator: what separates several labels in one cell.
        threshold: predicted events of a lower score are left out; None: all count.

    Raises:
        DataError: a list is missing, malformed or contradicts itself, has events without times, or
            the two have no video in common; or there is a threshold, and a predicted event has no
            score.
    """
    true, notes = read_events([truth], separator=separator)
    by_name = _names({event.video for event in true})
    true = [replace(event, video=by_name[event.video]) for event in true]
    videos = sorted({event.video for event in true})
    predicted, more = read_events(_places(predictions), separator=separator)
    predicted, below = _above(predicted, threshold)
    named = [
        (e, next((by_name[n] for n in names_of(e.video) if n in by_name), "")) for e in predicted
    ]
    others = sorted({event.video for event, name in named if not name})
    kept = [replace(event, video=name) for event, name in named if name]
    if others and not kept:
        raise DataError(
            f"{predictions} has no event of a video in {truth}, but of '{others[0]}', where that "
            f"has '{videos[0]}'; name the videos alike"
        )
    alike: dict[str, set[str]] = {}
    for event, name in named:
        alike.setdefault(name, set()).add(event.video)
    kept, spelt = _spelt_alike([event for event in kept if event.label], true)
    tables = [make_table(events, videos=videos) for events in (true, kept) if events]
    sides = [table.videos for table in tables] + [{}] * (2 - len(tables))
    raise_faults(
        fault
        for side in sides
        for rows in side.values()
        for event in rows
        if (fault := _unfit(event))
    )
    classes = sorted({label for table in tables for label in table.classes})
    found = Lists(videos=videos, classes=classes, true=sides[0], predicted=sides[1])
    oddities = [*notes, *more, *(note for table in tables for note in table.notes), *spelt]
    oddities = [note for note in oddities if note.kind != "column that is not read"]
    found.remarks = [*below, *defect_lines(oddities, "the list")]
    found.remarks += [
        f"{' and '.join(sorted(group))} are read as one video"
        for name, group in alike.items()
        if name and len(group) > 1
    ]
    without = [video for video in videos if not sides[1].get(video)]
    for group, kind, what in (
        (others, "predicted video", "without truth, not scored"),
        (without, "video", "without a predicted event"),
    ):
        if group:
            some = ", ".join(group[:3]) + (", ..." if len(group) > 3 else "")
            found.remarks.append(f"{counted(len(group), kind)} {what}: {some}")
    if strange := sorted(set(classes) - set(tables[0].classes)):
        found.remarks.append(f"predicted, but never true: {', '.join(strange)}")
    return found


def segment_figures(
    lists: Lists, *, segment: float = 1.0, covered: float = 0.5
) -> dict[str, float]:
    """Return the figures of video parsing by segments and by runs of segments, in percent.

    Events become segments by the rule of the import (`active_shares`), and the metrics are those of
    `tasks.avvp`. An event that covers too little of every segment is in none, and is told in
    `remarks`.
    """
    tables, lost = [], {"predicted": 0, "true": 0}
    ends = [max((e.offset or 0 for e in [*lists.predicted.get(v, []), *lists.true[v]]), default=0)
            for v in lists.videos]  # fmt: skip
    order = np.argsort(ends, kind="stable")
    for rows in _chunks([-(-ends[n] // segment) * len(lists.classes) for n in order]):
        videos = [lists.videos[order[n]] for n in rows]
        length = max(1, *(int(-(-ends[order[n]] // segment)) for n in rows))
        maps = {}
        for side in lost:
            events = getattr(lists, side)
            found = [
                _maps(events.get(v, []), lists.classes, length, segment, covered) for v in videos
            ]
            maps[side] = [np.stack([heard_seen[n] for heard_seen, _ in found]) for n in (0, 1)]
            lost[side] += sum(number for _, number in found)
        tables.append(score(*maps["predicted"], *maps["true"]))
    for side, number in lost.items():
        if number:
            what = f"{number} {side} {'event' if number == 1 else 'events'}"
            each = f"{covered:g} of every segment of {segment:g} s"
            lists.remarks.append(f"{what} cover less than {each}, and are in none")
    return averages(np.concatenate(tables))


def collar_figures(lists: Lists, *, collar: float = 0.2) -> dict[str, dict[str, float | None]]:
    """Return event-based F, precision and recall with collars per stream, in percent, by sed_eval.

    Onsets match within the collar, and offsets within the collar or half the length of the true
    event, whichever is longer. "micro" counts all events, "macro" is the mean over the classes. A
    figure is None where there is no event to count.

    Raises:
        UsageError: sed_eval is not installed.
    """
    try:
        from dcase_util.containers import MetaDataContainer
        from sed_eval.sound_event import EventBasedMetrics
    except ImportError:
        raise UsageError(
            'scores with collars need sed_eval; pip install "avplatform[score]", or leave out '
            "--collar"
        ) from None
    out: dict[str, dict[str, float | None]] = {}
    for stream in lists.streams:
        metrics = EventBasedMetrics(
            event_label_list=lists.classes, t_collar=collar, percentage_of_length=0.5
        )
        true, predicted = spans(lists.true, stream), spans(lists.predicted, stream)
        for video in lists.videos:
            rows = [
                MetaDataContainer([
                    {"filename": video, "event_label": label, "onset": onset, "offset": offset}
                    for label in lists.classes
                    for onset, offset in side.get((video, label), [])
                ])
                for side in (true, predicted)
            ]  # fmt: skip
            metrics.evaluate(reference_event_list=rows[0], estimated_event_list=rows[1])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
            whole = metrics.results_overall_metrics()["f_measure"]
            mean = metrics.results_class_wise_average_metrics()["f_measure"]
        values = {"micro_F": whole["f_measure"], "precision": whole["precision"],
                  "recall": whole["recall"], "macro_F": mean["f_measure"]}  # fmt: skip
        out[stream] = {n: None if np.isnan(v) else 100 * float(v) for n, v in values.items()}
    return out


def spans(events: dict[str, list[Event]], stream: str) -> Spans:
    """Return what is heard, what is seen, or, for the joint stream, what is both at once."""
    out: Spans = {}
    for video, rows in events.items():
        for label in {row.label for row in rows}:
            heard, seen = (
                joined(
                    row.span
                    for row in rows
                    if row.label == label and row.stream in (one, STREAMS[-1]) and row.span
                )
                for one in STREAMS[:2]
            )
            both = [
                (max(a, c), min(b, d)) for a, b in heard for c, d in seen if max(a, c) < min(b, d)
            ]
            out[video, label] = dict(zip(STREAMS, (heard, seen, both), strict=True))[stream]
    return out


def _above(events: list[Event], threshold: float | None) -> tuple[list[Event], list[str]]:
    """Return the events that reach a threshold, and a remark on the others.

    Raises:
        DataError: an event has no score.
    """
    if threshold is None:
        return events, []
    raise_faults(
        f"{e.place}: the event '{e.label}' has no score to compare with --threshold; fill it in, "
        "or leave --threshold out"
        for e in events
        if e.label and e.score is None
    )
    kept = [e for e in events if e.score is None or e.score >= threshold]
    some = counted(len(events) - len(kept), "predicted event")
    return kept, [f"{some} of a score below {threshold:g} left out"]


def _unfit(event: Event) -> str:
    """Return why an event cannot be scored, or an empty text."""
    if not event.timed:
        why = "has no times; only events with onset and offset can be scored"
    elif (event.offset or 0) > LONGEST:
        why = f"ends at {event.offset:g} s, after more than a day; give seconds"
    else:
        return ""
    return f"{event.place}: the event '{event.label}' {why}"


def _places(predictions: str | Path) -> list[Path]:
    """Return the lists of a folder of `avplatform predict`, or the place itself."""
    folder = expanded(predictions)
    if not (folder / "summary.json").is_file():
        return [folder]
    files = sorted(folder.glob("*/events.json"))
    if not files:
        raise DataError(f"{folder} holds no events.json; give the folder of `avplatform predict`")
    return [file for file in files if _has_events(file)]


def _has_events(file: Path) -> bool:
    """Return whether a timeline has events; one that cannot be read is left to its reader."""
    try:
        return bool(json.loads(file.read_text(encoding="utf-8"))["events"])
    except (OSError, ValueError, KeyError, TypeError):
        return True


def _names(videos: set[str]) -> dict[str, str]:
    """Return the name of each video, and of its short name where no other video has it."""
    short: dict[str, list[str]] = {}
    for video in videos:
        short.setdefault(names_of(video)[-1], []).append(video)
    found = {name: name for name, all_of_it in short.items() if len(all_of_it) == 1}
    return found | {v: n if len(of) == 1 else v for n, of in short.items() for v in of}


def _key(label: str) -> str:
    folded = unicodedata.normalize("NFKC", label).casefold()
    return re.sub(r"[\W_]+", "", folded) or folded


def _spelt_alike(
    predicted: Sequence[Event], true: Sequence[Event]
) -> tuple[list[Event], list[Defect]]:
    """Return predicted events with the true spelling of their labels, and which were changed."""
    known = {_key(event.label): event.label for event in true if event.label}
    out, changed = [], dict[str, Defect]()
    for event in predicted:
        label = known.get(_key(event.label), event.label)
        if label != event.label and event.label not in changed:
            text = f"'{event.label}' is read as '{label}'"
            changed[event.label] = Defect(
                "label spelt as the truth does", Path(event.file).name, event.line, text
            )
        out.append(replace(event, label=label))
    return out, list(changed.values())


def _chunks(sizes: Sequence[float]) -> Iterator[list[int]]:
    """Yield groups of positions, in order of size, that are scored at once."""
    group: list[int] = []
    for n, size in enumerate(sizes):
        if group and size * (len(group) + 1) > CELLS:
            yield group
            group = []
        group.append(n)
    if group:
        yield group


def _maps(
    rows: Sequence[Event], classes: Sequence[str], length: int, segment: float, covered: float
) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    """Return what is heard and seen, bool [T, C] each, and how many events are in no segment."""
    maps = {stream: np.zeros((length, len(classes)), bool) for stream in STREAMS[:2]}
    for stream, values in maps.items():
        for label in {row.label for row in rows}:
            mine = [r for r in rows if r.label == label and r.stream in (stream, STREAMS[-1])]
            shares = active_shares(
                [r.span for r in mine if r.span], length, seconds=segment, covered=covered
            )
            values[:, classes.index(label)] = shares > 0
    lost = 0
    for row in rows:
        begin, end = int((row.onset or 0) // segment), int(-(-(row.offset or 0) // segment))
        of = STREAMS[:2] if row.stream == STREAMS[-1] else (row.stream,)
        lost += not any(maps[s][begin:end, classes.index(row.label)].any() for s in of)
    return (maps[STREAMS[0]], maps[STREAMS[1]]), lost
