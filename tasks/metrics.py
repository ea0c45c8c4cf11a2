"""Base classes of the metrics of tasks, and of the analyses that are made from them.

Axes: N clips, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

import numpy as np
from torch import Tensor

from avplatform.models.errors import DataError
from avplatform.tasks.batch import Batch

Arrays = dict[str, np.ndarray]


def selecting_figures(metric: str) -> list[str]:
    """Return the names of the figures whose mean selects an epoch; they are joined by +."""
    return metric.split("+") if metric else []


def selection_score(figures: Mapping[str, Any], metric: str) -> float | None:
    """Return the score that selects an epoch: the mean of its figures, or None if one is missing.

    Args:
        figures: the figures of an epoch on a split.
        metric: one figure, or several joined by +.

    Examples:
        >>> selection_score({"event_A": 50.0, "event_V": 60.0}, "event_A+event_V")
        55.0
    """
    values = [figures.get(name) for name in selecting_figures(metric)]
    known = [float(value) for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def selection_name(metric: str) -> str:
    """Return what the score that selects an epoch is called in sentences and tables.

    Examples:
        >>> selection_name("event_A"), selection_name("event_A+event_V")
        ('event_A', 'mean of 2 figures')
    """
    names = selecting_figures(metric)
    return metric if len(names) < 2 else f"mean of {len(names)} figures"


class Metrics:
    """Accumulator of decisions, keyed by row: any batch size, order and number of processes.

    A subclass defines `columns` and `compute`. A row that is added twice is an error; it is never
    counted twice. `evidence` holds what the decisions were made from, one entry per clip in the
    order of `state`, where the task has it (see `Task.evidence`); no headline figure reads it.
    """

    evidence: Arrays | None = None

    def __init__(self) -> None:
        self._parts: list[Arrays] = []

    def columns(self, decisions: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Return what `compute` reads: decisions and labels of a batch by name, each of B rows."""
        raise NotImplementedError

    def update(self, decisions: dict[str, Tensor], batch: Batch) -> None:
        """Add the decisions on one batch."""
        columns = {"row": batch.row.long(), **self.columns(decisions, batch)}
        self._parts.append({name: x.detach().cpu().numpy() for name, x in columns.items()})

    def state(self) -> Arrays:
        """Return all that was added, as arrays with one entry per clip, ordered by row (key "row").

        Raises:
            DataError: a row was added twice.
        """
        if not self._parts:
            return {}
        joined = {name: np.concatenate([p[name] for p in self._parts]) for name in self._parts[0]}
        rows, counts = np.unique(joined["row"], return_counts=True)
        if (counts > 1).any():
            twice = rows[counts > 1][0]
            raise DataError(f"clip row {twice} was scored twice; every clip counts once")
        order = np.argsort(joined["row"], kind="stable")
        return {name: values[order] for name, values in joined.items()}

    def scored(self) -> Arrays:
        """Return `state`, from which figures are computed.

        Raises:
            DataError: nothing was added.
        """
        if not self._parts:
            raise DataError("no clip was scored, so there are no figures; is the split empty?")
        return self.state()

    def merge(self, states: Iterable[Arrays]) -> None:
        """Replace the content by the union of the states of several processes.

        Raises:
            DataError: a row occurs twice.
        """
        self._parts = [state for state in states if state]
        self.state()

    def compute(self) -> dict[str, float]:
        """Return the headline figures in percent."""
        raise NotImplementedError

    def figures(self) -> dict[str, float]:
        """Return the figures of `compute` as Python floats, which can be written to JSON."""
        return {name: float(value) for name, value in self.compute().items()}

    def details(self) -> dict[str, Any]:
        """Return further figures as plain JSON values, such as scores per class or of subsets."""
        return {"clips": len(self)}

    @property
    def timed(self) -> bool:
        """Whether the clips have events with times, by which the usual figures are computed."""
        return True

    def constant(self) -> str | None:
        """Return "nothing" or "everything" if the decisions on all clips are that, else None."""
        return None

    def __len__(self) -> int:
        return sum(len(part["row"]) for part in self._parts)


class Analysis:
    """Base of what intervals, comparisons, calibration and thresholds are computed with.

    The methods read the arrays of `Metrics.state` and of `Task.evidence`, of N clips. `streams`
    names the predictions that have thresholds of their own; `default` is the threshold at which
    the task decides if no other is given.
    """

    classes: tuple[str, ...]
    streams: tuple[str, ...]
    default: float = 0.5

    def default_of(self, stream: str) -> float:
        """Return the threshold at which the task decides in a stream."""
        return self.default

    def contributions(self, state: Arrays) -> Arrays:
        """Return the score of each clip, [N] in percent, whose mean is the figure, by figure."""
        raise NotImplementedError

    def class_terms(self, state: Arrays) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
        """Return numerators and denominators of the score of each class, by level and stream.

        Shape: level -> stream -> two arrays [N, C]; the score of a class in percent is 100 times
        the sum of the first over N, divided by the sum of the second.
        """
        raise NotImplementedError

    def judged(self, state: Arrays, evidence: Arrays) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return the scores that thresholds apply to, and whether each belongs to a true event.

        Shape: stream -> two flat arrays of equal length, over clips, segments and maybe classes.
        """
        raise NotImplementedError

    def objective(self, state: Arrays, evidence: Arrays, grid: np.ndarray) -> Arrays:
        """Return how good each threshold of a grid is for each class; higher is better.

        Shape: grid [G] -> stream -> [G, C], NaN for a class of which the clips tell nothing.
        """
        raise NotImplementedError

    def redecide(self, state: Arrays, evidence: Arrays, thresholds: Arrays) -> Arrays:
        """Return the state with the decisions that other thresholds (stream -> [C]) give."""
        raise NotImplementedError

    def late(self, state: Arrays, segments: int) -> Arrays:
        """Return the state with truth and decisions of a separate audio stream shifted later."""
        return state

    def presence(self, state: Arrays) -> dict[str, Any] | None:
        """Return the scores of events that are only heard, only seen, or both; None: unlabelled."""
        return None
