"""One number of a page: its sources, mean and spread over seeds, and difference to the paper's."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from avplatform.sweeps.ledger import Entry

ENOUGH = 3
"""Smallest number of seeds from which a spread is trusted."""

SPREADS = 2.0
"""A difference of at most this many standard deviations over seeds is "inside the spread"."""


@dataclass(kw_only=True, frozen=True)
class Term:
    """A number in a file, and its weight in a sum; `at` is the path of keys to it.

    `file` is results.json or metrics.jsonl. In metrics.jsonl, `record` is the event and the epoch
    of the line; None: the line that scores best on test (`Entry.test_selected`).
    """

    at: tuple[str, ...]
    weight: float = 1.0
    file: str = "results.json"
    record: tuple[str, int] | None = None


@dataclass(kw_only=True)
class Figure:
    """A number of ours or of the authors' checkpoint: one value per seed, a weighted sum of terms.

    `made_of` holds, for each value, the "file", "at" (path of keys) and "weight" of each of its
    terms. A term in metrics.jsonl also has "record", the event and epoch of its line.
    """

    values: list[float] = field(default_factory=list)
    made_of: list[list[dict[str, Any]]] = field(default_factory=list)
    paper: float | None = None

    @cached_property
    def mean(self) -> float:
        """Return the mean over seeds."""
        return statistics.fmean(self.values)

    @cached_property
    def spread(self) -> float | None:
        """Return the standard deviation over seeds (with n - 1); None for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def difference(self) -> float | None:
        """Return ours minus the paper's, or None without a published figure."""
        return None if self.paper is None else self.mean - self.paper

    @property
    def verdict(self) -> str | None:
        """Return "inside" or "outside" (the spread) or "n too small"; None without a difference."""
        if self.difference is None:
            return None
        if len(self.values) < ENOUGH or self.spread is None:
            return "n too small"
        return "inside" if abs(self.difference) <= SPREADS * self.spread else "outside"

    @property
    def record(self) -> dict[str, Any]:
        """Return the figure as page.json holds it."""
        return {
            "mean": self.mean,
            "std": self.spread,
            "n": len(self.values),
            "values": self.values,
            "paper": self.paper,
            "difference": self.difference,
            "verdict": self.verdict,
            "runs": sorted({str(Path(t["file"]).parent) for terms in self.made_of for t in terms}),
            "made_of": self.made_of,
        }


def measure(
    runs: Sequence[Sequence[Entry]],
    terms: Sequence[Sequence[Term]],
    *,
    root: Path,
    paper: float | None = None,
) -> Figure | None:
    """Return the figure of a sum of terms, or None if a run lacks one of the terms.

    A term is lacking if no clip has the class, or if there is no record.

    Args:
        runs: the runs of each value; all values have the same number of runs.
        terms: for each of a value's runs, the terms that it adds to the sum.
        root: folder that the page's paths are relative to.
        paper: the published figure.
    """
    figure = Figure(paper=paper)
    for group in runs:
        total, parts = 0.0, list[dict[str, Any]]()
        for entry, own in zip(group, terms, strict=True):
            for term in own:
                value = look_up(entry, term)
                if value is None:
                    return None
                total += term.weight * value
                part = {
                    "file": str(place(entry.folder, root) / term.file),
                    "at": list(term.at),
                    "weight": term.weight,
                }
                content = holder(entry, term)
                if term.file != "results.json" and content:
                    part["record"] = {key: content[key] for key in ("event", "epoch")}
                parts.append(part)
        figure.values.append(total)
        figure.made_of.append(parts)
    return figure if figure.values else None


def look_up(entry: Entry, term: Term) -> float | None:
    """Return the number that a term refers to in a run, or None."""
    value: Any = holder(entry, term)
    for name in term.at:
        value = value.get(name) if isinstance(value, dict) else None
    return None if value is None else float(value)


def holder(entry: Entry, term: Term) -> dict[str, Any] | None:
    """Return the content of the file, or the line of it, that holds a term's number."""
    if term.file == "results.json":
        return entry.results
    if term.record is None:
        return entry.test_selected
    event, epoch = term.record
    lines = (r for r in entry.records if r.get("event") == event and r.get("epoch") == epoch)
    return next(lines, None)


def mean_of(
    places: Sequence[tuple[str, ...]], *, weight: float = 1.0, file: str = "results.json"
) -> list[Term]:
    """Return the terms whose sum is the weighted mean of the numbers at some places."""
    return [Term(at=at, weight=weight / len(places), file=file) for at in places]


def place(path: Path, root: Path) -> Path:
    """Return a path relative to the page's folder."""
    return Path(os.path.relpath(path.resolve(), root.resolve()))


def read_rescored(folder: Path) -> Entry | None:
    """Return the results of a re-scored checkpoint in `folder`, or None if there are none.

    Raises:
        DataError: the results are damaged.
    """
    if not (folder / "results.json").is_file():
        return None
    entry = Entry(folder)
    _ = entry.results  # raises here, before the page is made
    return entry
