"""One threshold a class, chosen on validation and never on the split that is reported."""

from __future__ import annotations

from typing import Any

import numpy as np

from avplatform.models.errors import DataError
from avplatform.tasks.contracts import Analysis, Arrays, Metrics, Task

GRID = tuple(round(0.05 * i, 2) for i in range(1, 20))
MARK = "per class, chosen on validation"


def choose_thresholds(analysis: Analysis, validation: Metrics) -> Arrays:
    """Return per stream one threshold a class, the best of `GRID` and the task's own on the validation split.

    Of equally good ones the nearest to the task's own is taken, and a class of which validation says nothing keeps that one.

    Raises:
        DataError: the task gives no scores.
    """
    evidence = require_evidence(validation)
    grid = np.array(sorted({*GRID, analysis.default}, key=lambda t: (abs(t - analysis.default), t)))
    out = {}
    for stream, values in analysis.objective(validation.state(), evidence, grid).items():
        best = np.where(np.isnan(values), -np.inf, values).argmax(
            axis=0
        )  # the first of equals: the nearest
        out[stream] = np.where(np.isnan(values).all(axis=0), analysis.default, grid[best])
    return out


def apply_thresholds(task: Task, metrics: Metrics, thresholds: Arrays) -> Metrics:
    """Return the metrics of a split under other thresholds."""
    analysis = require_analysis(task)
    out = task.metrics()
    out.merge([analysis.redecide(metrics.state(), require_evidence(metrics), thresholds)])
    out.evidence = metrics.evidence
    return out


def named(analysis: Analysis, thresholds: Arrays) -> dict[str, dict[str, float]]:
    """Return thresholds by stream and class, JSON-ready."""
    return {
        s: {c: float(v) for c, v in zip(analysis.classes, values, strict=False)}
        for s, values in thresholds.items()
    }


def require_analysis(task: Task) -> Analysis:
    """Return the task's analysis.

    Raises:
        DataError: it has none.
    """
    analysis = task.analysis()
    if analysis is None:
        raise DataError(
            f"the task '{task.name}' has no analysis, so it has headline figures only; see Task.analysis"
        )
    return analysis


def require_evidence(metrics: Metrics) -> dict[str, Any]:
    """Return what thresholds are laid on.

    Raises:
        DataError: it was not kept.
    """
    if metrics.evidence is None:
        raise DataError(
            "these scores were kept without what they were made from; score the model again"
        )
    return metrics.evidence
