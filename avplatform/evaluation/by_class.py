"""Scores of single labels that a model was never trained on, with the nearest text that it knows.

How well such a label is found depends on what the model learned of related ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from avplatform.base.console import Console
from avplatform.labels.open import nearest_trained
from avplatform.models.av_model import AVModel
from avplatform.runs.results import class_figures
from avplatform.tasks.contracts import Task


def by_class(
    model: AVModel,
    task: Task,
    labels: Tensor | None,
    chosen: Sequence[str],
    details: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """Return figure, number of true segments and nearest trained class of some classes, by name.

    Args:
        model: a model that reads label texts.
        task: the task with the classes that the model chose among.
        labels: their label embeddings [C, E], with that of background last, if it has one.
        chosen: the classes to return.
        details: the details of a split with scores of single classes.
    """
    if not chosen or labels is None:
        return {}
    scores, counts = class_figures(details)
    rows = [task.classes.index(name) for name in chosen]
    nearest = nearest_trained(model, chosen, labels[rows])
    return {
        name: {
            "figures": {series: values[name] for series, values in scores.items()},
            "segments": {series: counts[series][name] for series in scores},
            "nearest_trained": nearest[name][0],
            "similarity": nearest[name][1],
        }
        for name in chosen
        if name in nearest
    }


def show_by_class(console: Console, found: dict[str, dict[str, Any]], *, title: str) -> None:
    """Print a table of what `by_class` returns."""
    if not found:
        return
    series = list(next(iter(found.values()))["figures"])
    rows = [
        [
            name,
            *(_cell(entry["figures"][s], entry["segments"][s]) for s in series),
            entry["nearest_trained"],
            f"{entry['similarity']:.2f}",
        ]
        for name, entry in found.items()
    ]
    console.table(title, ["", *series, "nearest trained class", "similarity"], rows)


def _cell(figure: float | None, count: int) -> str:
    """Return a figure, or a dash for a class that has no true segment."""
    return f"{figure or 0.0:.1f}" if count else "-"
