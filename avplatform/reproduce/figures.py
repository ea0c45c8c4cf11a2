"""One number of a page: where it comes from, its mean and spread over seeds, and how far it is from the paper's."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from avplatform.runs.folder import read_results
from avplatform.sweeps.ledger import Entry

ENOUGH = 3
"""Seeds from which on a spread is taken for one."""

SPREADS = 2.0
"""Standard deviations over seeds within which a difference lies "inside the spread"."""


@dataclass(kw_only=True, frozen=True)
class Term:
    """A number in a file, and its weight in a sum; `at` leads to it through the file's mappings.

    `file` is results.json, or metrics.jsonl, of which the record is meant that scores best on test (`Entry.test_selected`).
    """

    at: tuple[str, ...]
    weight: float = 1.0
    file: str = "results.json"


@dataclass(kw_only=True)
class Figure:
    """A number of ours, or of the authors' checkpoint: one value a seed, each a weighted sum of terms.

    `made_of` holds, for each value, {"file", "at" (place in it), "weight"} of each of its terms; of metrics.jsonl, "record"
    says by its event and epoch which line is meant.
    """

    values: list[float] = field(default_factory=list)
    made_of: list[list[dict[str, Any]]] = field(default_factory=list)
    paper: float | None = None

    @cached_property
    def mean(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.values)

    @cached_property
    def spread(self) -> float | None:
        """Standard deviation over seeds (n - 1 below the line); None for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        return None if self.paper is None else self.mean - self.paper

    @property
    def verdict(self) -> str | None:
        """Whether the difference lies inside the spread: inside, outside or "n too small"; None without a difference."""
        if self.difference is None:
            return None
        if len(self.values) < ENOUGH or self.spread is None:
            return "n too small"
        return "inside" if abs(self.difference) <= SPREADS * self.spread else "outside"

    @property
    def record(self) -> dict[str, Any]:
        """The figure as page.json holds it."""
        return {
            "mean": self.mean,
            "std": self.spread,
            "n": len(self.values),
            "values": self.values,
            "paper": self.paper,
            "difference": self.difference,
            "verdict": self.verdict,
            "runs": sorted(
                {str(Path(term["file"]).parent) for terms in self.made_of for term in terms}
            ),
            "made_of": self.made_of,
        }


def measure(
    runs: Sequence[Sequence[Entry]],
    terms: Sequence[Sequence[Term]],
    *,
    root: Path,
    paper: float | None = None,
) -> Figure | None:
    """Return the figure of a sum of terms; None where a seed's run lacks one of them (a class that no clip has, a record).

    Args:
        runs: a value's runs; all values have as many.
        terms: of each of these runs, the terms that go into the sum.
        root: folder that the page's paths start from.
        paper: the published figure.
    """
    figure = Figure(paper=paper)
    for group in runs:
        total = 0.0
        parts: list[dict[str, Any]] = []
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
                if term.file != "results.json" and entry.test_selected:
                    part["record"] = {
                        name: entry.test_selected[name] for name in ("event", "epoch")
                    }
                parts.append(part)
        figure.values.append(total)
        figure.made_of.append(parts)
    return figure if figure.values else None


def look_up(entry: Entry, term: Term) -> float | None:
    """Return the number that a term stands for in a run."""
    value: Any = entry.results if term.file == "results.json" else entry.test_selected
    for name in term.at:
        value = value.get(name) if isinstance(value, dict) else None
    return None if value is None else float(value)


def mean_of(
    places: Sequence[tuple[str, ...]], *, weight: float = 1.0, file: str = "results.json"
) -> list[Term]:
    """Return the terms whose sum is the mean of some numbers."""
    return [Term(at=at, weight=weight / len(places), file=file) for at in places]


def place(path: Path, root: Path) -> Path:
    """Return a path as seen from the page's folder."""
    return Path(os.path.relpath(path.resolve(), root.resolve()))


class Rescored(Entry):
    """The results of an authors' checkpoint, as `avplatform eval --json` left them in a folder of their own."""

    @cached_property
    def test_selected(self) -> dict[str, Any] | None:
        """There are no epochs of it."""
        return None


def read_rescored(folder: Path) -> Rescored | None:
    """Return what was re-scored into `folder`, or None.

    Raises:
        DataError: what is there is damaged.
    """
    file = folder / "results.json"
    if not file.is_file():
        return None
    read_results(file)
    return Rescored(folder)
