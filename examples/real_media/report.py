"""Tables of the models trained on the composed clips: figures over seeds, and class counts."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from avplatform.evaluation.markdown import markdown_table
from examples.real_media.plan import Plan
from examples.real_media.sources import CLASSES

FIGURES = ("A", "V", "AV", "Type@AV", "Event@AV")


def score_table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Return the table of the figures on the test split.

    They are the mean and standard deviation over the seeds, and the scores of the anchors, which
    know nothing of the content.

    Args:
        results: results.json of every seed, by the name of the row.
    """
    names = [f"{level}_{figure}" for level in ("segment", "event") for figure in FIGURES]
    rows = [
        [row, *(spread([run["test"][name] for run in runs]) for name in names)]
        for row, runs in results.items()
    ]
    first = next(iter(results.values()))[0]
    for name, values in first["details"]["test"]["anchors"].items():
        rows.append([f"({name.replace('_', ' ')})", *(f"{values[figure]:.1f}" for figure in names)])
    return markdown_table(["", *(name.replace("_", " ") for name in names)], rows)


def class_table(plan: Plan, results: dict[str, list[dict[str, Any]]]) -> str:
    """Return the table of the classes.

    Per class, it has the number of events in training and test and, for every row of results, the
    segment F on the test split (audio/visual).
    """
    lines = []
    for label in CLASSES:
        counts = [
            _events(plan, label, split, stream)
            for stream in ("audio", "visual")
            for split in ("train", "test")
        ]
        scores = []
        for runs in results.values():
            found = [
                [run["details"]["test"]["class_segment"][stream][label] for run in runs]
                for stream in ("audio", "visual")
            ]
            scores.append(" / ".join(_mean(values) for values in found))
        lines.append([label, *map(str, counts), *scores])
    heads = ["class", "heard train", "heard test", "seen train", "seen test", *results]
    return markdown_table(heads, lines)


def spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation."""
    if len(values) < 2:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):.0f}" if known else "–"


def _events(plan: Plan, label: str, split: str, stream: str) -> int:
    return sum(
        e.label == label and e.stream == stream
        for c in plan.clips
        if c.split == split
        for e in c.events
    )
