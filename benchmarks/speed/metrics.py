"""Metrics of all clips at once, against a loop over clips: the ten of LLP, and AVE's accuracy.

The baselines are written from the description of the published evaluation: one clip after the
other, one class after the other, events as lists. With look-ups, the truth of each clip is taken
from the annotation tables by pandas, as published; ours has it from the store, as always. The
results must be equal to the last bit. With `AVP_LLP_DIR` set, LLP's annotations are the truth;
otherwise random events are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
import pandas as pd

from avplatform.tasks.avel.metrics import segment_accuracy
from avplatform.tasks.avvp.metrics import averages, score
from benchmarks.timing import Comparison, Setting, Side

CLIPS, SEGMENTS, CLASSES = 1200, 10, 25
AVE_CLIPS, AVE_LABELS = 402, 29
Maps = list[np.ndarray]
Run = tuple[int, int]


def comparisons(setting: Setting) -> dict[str, Callable[[], Iterable[Comparison]]]:
    """Return what is timed."""
    return {"llp": llp, "ave": ave}


def llp() -> Iterable[Comparison]:
    """Yield the ten metrics of LLP with dense truth and with look-ups."""
    tables, names, classes = annotations()
    truth = [dense(table, names, classes) for table in tables]
    predicted = predictions(truth)
    ours = lambda: averages(score(*predicted, *truth))  # noqa: E731

    def plain() -> dict[str, float]:
        return loop(predicted, [lambda i, maps=maps: maps[i] for maps in truth])

    def looking_up() -> dict[str, float]:
        def look(table: pd.DataFrame) -> Callable[[int], np.ndarray]:
            return lambda i: one_clip(table, names[i], classes)

        return loop(predicted, [look(table) for table in tables])

    for title, baseline, floor, aim in (
        ("dense truth", plain, 224, 300),
        ("truth looked up", looking_up, 400, 700),
    ):
        side = Side(
            name=f"ten LLP metrics, {CLIPS:,} clips, {title}",
            run=ours,
            difference=lambda baseline=baseline: furthest(baseline(), ours()),
            floor=floor,
            aim=aim,
            repeats=30,
        )
        yield Comparison(title=side.name, plain=baseline, sides=[side])


def ave() -> Iterable[Comparison]:
    """Yield AVE's accuracy, of labels [N, T]."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, AVE_LABELS, (AVE_CLIPS, SEGMENTS))
    wrong = rng.integers(0, AVE_LABELS, true.shape)
    predicted = np.where(rng.random(true.shape) < 0.75, true, wrong)

    def plain() -> float:
        right = 0
        for clip in range(len(true)):
            for segment in range(true.shape[1]):
                if predicted[clip, segment] == true[clip, segment]:
                    right += 1
        return right / (len(true) * true.shape[1])

    ours = lambda: segment_accuracy(predicted, true)  # noqa: E731
    side = Side(
        name=f"AVE accuracy, {AVE_CLIPS} clips",
        run=ours,
        difference=lambda: abs(plain() - ours()),
        floor=30,
        aim=80,
        repeats=2000,
    )
    yield Comparison(title=side.name, plain=plain, sides=[side], plain_repeats=20)


@cache
def annotations() -> tuple[list[pd.DataFrame], list[str], list[str]]:
    """Return the tables of audio and of visual events, the clips, and the classes."""
    if folder := os.environ.get("AVP_LLP_DIR"):
        read = lambda name: pd.read_csv(f"{folder}/{name}.csv", sep="\t")  # noqa: E731
        tables = [read("AVVP_eval_audio"), read("AVVP_eval_visual")]
        names = read("AVVP_test_pd")["filename"].tolist()
        return tables, names, sorted({c for table in tables for c in table["event_labels"]})
    rng = np.random.default_rng(0)
    names = [f"clip_{number:04d}_0_10" for number in range(2 * CLIPS)]
    classes = [f"class {number}" for number in range(CLASSES)]
    tables = []
    for events in (4131, 2495):  # as many as LLP's tables hold, of validation and test
        onset = rng.integers(0, SEGMENTS, events)
        columns = {
            "filename": rng.choice(names, events),
            "onset": onset,
            "offset": np.minimum(SEGMENTS, onset + rng.integers(1, SEGMENTS + 1, events)),
            "event_labels": rng.choice(classes, events),
        }
        tables.append(pd.DataFrame(columns))
    return tables, names[:CLIPS], classes


def dense(table: pd.DataFrame, names: list[str], classes: list[str]) -> np.ndarray:
    """Return the events of clips as a map, bool [N, T, C]."""
    return np.stack([one_clip(table, name, classes).astype(bool) for name in names])


def one_clip(table: pd.DataFrame, name: str, classes: list[str]) -> np.ndarray:
    """Look up the events of one clip in a table: [T, C]."""
    found = np.zeros((SEGMENTS, len(classes)))
    rows = table[table["filename"] == name]
    for number in range(len(rows)):
        row = rows.iloc[number]
        found[row["onset"] : row["offset"], classes.index(row["event_labels"])] = 1
    return found


def predictions(truth: Maps) -> Maps:
    """Return the truth with errors: decisions of audio and of visual, bool [N, T, C]."""
    rng = np.random.default_rng(1)
    kept = [maps & (rng.random(maps.shape) < 0.8) for maps in truth]
    return [maps | (rng.random(maps.shape) < 0.01) for maps in kept]


def loop(predicted: Maps, true: list[Callable[[int], np.ndarray]]) -> dict[str, float]:
    """Return the ten metrics in percent, by a loop over clips and classes."""
    scores: dict[str, list[float]] = {}
    for clip in range(len(predicted[0])):
        found = [maps[clip].astype(float).T for maps in predicted]  # each (C, T)
        wanted = [look(clip).astype(float).T for look in true]
        found.append(found[0] * found[1])
        wanted.append(wanted[0] * wanted[1])
        for level, count in (("segment", segments), ("event", events)):
            counts = [count(p, t) for p, t in zip(found, wanted, strict=True)]
            for stream, one in zip(("A", "V", "AV"), counts, strict=True):
                scores.setdefault(f"{level}_{stream}", []).append(clip_f(*one))
            both = [a + v for a, v in zip(*counts[:2], strict=True)]
            scores.setdefault(f"{level}_Event@AV", []).append(clip_f(*both))
    means = {name: 100 * float(np.mean(np.array(values))) for name, values in scores.items()}
    for level in ("segment", "event"):
        a, v, av = (means[f"{level}_{stream}"] for stream in ("A", "V", "AV"))
        means[f"{level}_Type@AV"] = (a + v + av) / 3
    return means


def segments(found: np.ndarray, wanted: np.ndarray) -> list[np.ndarray]:
    """Count the segments of each class: right, said in error, and missed."""
    return [
        np.sum(found * wanted, axis=1),
        np.sum(found * (1 - wanted), axis=1),
        np.sum((1 - found) * wanted, axis=1),
    ]


def events(found: np.ndarray, wanted: np.ndarray) -> list[np.ndarray]:
    """Count the events of each class: right, said in error, and missed."""
    counts = [np.zeros(len(found)) for _ in range(3)]
    for label in range(len(found)):
        said, real = runs(found[label]), runs(wanted[label])
        right = sum(any(overlap(event, other) >= 0.5 for other in real) for event in said)
        missed = sum(not any(overlap(event, other) >= 0.5 for other in said) for event in real)
        for count, value in zip(counts, (right, len(said) - right, missed), strict=True):
            count[label] = value
    return counts


def runs(row: np.ndarray) -> list[Run]:
    """Return the runs of ones as (start, end)."""
    found, start = [], None
    for segment in range(len(row)):
        if row[segment] == 1 and start is None:
            start = segment
        if row[segment] == 0 and start is not None:
            found.append((start, segment))
            start = None
    return found if start is None else [*found, (start, len(row))]


def overlap(one: Run, other: Run) -> float:
    """Return the intersection of two runs over their union."""
    shared = max(0, min(one[1], other[1]) - max(one[0], other[0]))
    return shared / (one[1] - one[0] + other[1] - other[0] - shared)


def clip_f(right: np.ndarray, wrong: np.ndarray, missed: np.ndarray) -> float:
    """Return the mean F of the classes that are there or said, one after the other."""
    total, number = 0.0, 0
    for label in range(len(right)):
        if right[label] + wrong[label] > 0 or right[label] + missed[label] > 0:
            total += 2 * right[label] / (2 * right[label] + wrong[label] + missed[label])
            number += 1
    return total / number if number else 1.0


def furthest(one: dict[str, float], other: dict[str, float]) -> float:
    """Return the largest difference of two sets of figures."""
    assert one.keys() == other.keys()
    return max(abs(one[name] - other[name]) for name in one)
