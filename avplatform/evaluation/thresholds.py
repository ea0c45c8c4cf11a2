"""One threshold per class, chosen on validation and never on the split that is reported."""

from __future__ import annotations

from typing import Any

import numpy as np

from avplatform.models.errors import DataError
from avplatform.tasks.contracts import Task
from avplatform.tasks.metrics import Analysis, Arrays, Metrics

GRID = tuple(round(0.05 * i, 2) for i in range(1, 20))
MARK = "per class, chosen on validation"


def choose_thresholds(analysis: Analysis, validation: Metrics) -> Arrays:
    """Return one threshold per stream and class: the best on validation of `GRID` and the default.

    Of equally good thresholds the one nearest to the task's default is chosen. A class that the
    validation split says nothing about keeps the default.

    Raises:
        DataError: the metrics keep no scores.
    """
    evidence = require_evidence(validation)
    defaults = {stream: analysis.default_of(stream) for stream in analysis.streams}
    grid, out = np.array(sorted({*GRID, *defaults.values()})), {}
    for stream, values in analysis.objective(validation.state(), evidence, grid).items():
        default = defaults[stream]
        nearest = np.argsort(abs(grid - default), kind="stable")
        # The first of equally good ones, which is the nearest to the default.
        best = np.where(np.isnan(values), -np.inf, values)[nearest].argmax(axis=0)
        out[stream] = np.where(np.isnan(values).all(axis=0), default, grid[nearest][best])
    return out


def apply_thresholds(task: Task, metrics: Metrics, thresholds: Arrays) -> Metrics:
    """Return the metrics of a split, decided again with other thresholds."""
    analysis = require_analysis(task)
    out = task.metrics()
    out.merge([analysis.redecide(metrics.state(), require_evidence(metrics), thresholds)])
    out.evidence = metrics.evidence
    return out


def named(analysis: Analysis, thresholds: Arrays) -> dict[str, dict[str, float]]:
    """Return thresholds by stream and class, ready for JSON."""
    return {
        s: {c: float(v) for c, v in zip(analysis.classes, values, strict=False)}
        for s, values in thresholds.items()
    }


def require_analysis(task: Task) -> Analysis:
    """Return the task's analysis.

    Raises:
        DataError: the task has none.
    """
    analysis = task.analysis()
    if analysis is None:
        raise DataError(
            f"the task '{task.name}' has no analysis, so it has headline figures only; "
            "see Task.analysis"
        )
    return analysis


def require_evidence(metrics: Metrics) -> dict[str, Any]:
    """Return the evidence (scores per clip) that thresholds are applied to.

    Raises:
        DataError: the metrics did not keep it.
    """
    if metrics.evidence is None:
        raise DataError(
            "these metrics were kept without the scores behind them; score the model again"
        )
    return metrics.evidence
