"""Measure how much picking the epoch on the test split adds to the score.

Many published figures come from training loops that score the test split after every epoch and
report the best epoch. A run with `score_test` scores test as well as validation, changes nothing
else, and so shows what each way of picking the epoch would report.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.models.errors import DataError
from avplatform.runs.folder import RunFolder
from avplatform.runs.results import best_record
from avplatform.tasks.metrics import selection_score

Record = dict[str, Any]


def selection_bias(
    validation: Sequence[Record], test: Sequence[Record], *, metric: str, ties: str = "latest"
) -> dict[str, Any]:
    """Return a run's test scores at the epoch picked on validation and on test, and the difference.

    Args:
        validation: one record per epoch, with "epoch" and the figures on validation.
        test: the same on test.
        metric: the figure that picks the epoch, or several joined by +, whose mean does.
        ties: which of equally good epochs is picked, "latest" or "first".

    Raises:
        DataError: no epoch was scored on both splits.
    """
    tested = {record["epoch"]: record for record in test}
    validated = {
        record["epoch"]: record
        for record in validation
        if selection_score(record, metric) is not None
    }
    epochs = sorted(validated.keys() & tested.keys())
    if not epochs:
        raise DataError("no epoch was scored on both validation and test; train with --score-test")
    picked = {}
    for split, records in (("validation", validated), ("test", tested)):
        best = best_record([records[epoch] for epoch in epochs], metric=metric, ties=ties)
        assert best is not None
        # The mean of several figures is no figure of a record, but what the epochs differ in.
        record = tested[best["epoch"]]
        picked[split] = {metric: selection_score(record, metric), **record}
    names = [
        n
        for n, v in tested[epochs[0]].items()
        if n != metric and n in validated[epochs[0]] and _is_figure(n, v)
    ]
    names = [metric, *names]
    return {
        "metric": metric,
        "epochs": len(epochs),
        **{
            f"picked_on_{split}": {name: record[name] for name in ("epoch", *names)}
            for split, record in picked.items()
        },
        "added": {name: picked["test"][name] - picked["validation"][name] for name in names},
    }


def selection_report(
    runs: Sequence[str | Path], *, metric: str, ties: str = "latest"
) -> dict[str, Any]:
    """Return `selection_bias` of every run, with the mean and spread of the metric over the runs.

    Args:
        runs: run folders, such as the seeds of one configuration.
        metric: the figure that picks the epoch, or several joined by +, whose mean does.
        ties: which of equally good epochs is picked, "latest" or "first".

    Raises:
        DataError: a run lacks scores of one of the splits; the message names the run.
    """
    entries = {}
    for run in runs:
        try:
            entries[str(run)] = selection_bias(
                *both_splits(RunFolder(run).records()), metric=metric, ties=ties
            )
        except DataError as error:
            raise DataError(f"{run}: {error}") from None
    summary = {
        key: mean_and_spread([entry[key][metric] for entry in entries.values()])
        for key in ("picked_on_validation", "picked_on_test", "added")
    }
    return {"metric": metric, "runs": entries, "summary": summary}


def both_splits(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Return the validation and the test records of a metrics.jsonl."""
    epochs = [r for r in records if r.get("event") == "epoch"]
    validation = [r for r in epochs if r.get("split", "validation") == "validation"]
    return validation, [r for r in records if r.get("event") == "test_epoch"]


def mean_and_spread(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean and standard deviation (n - 1; None for a single value) of runs."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "spread": spread, "runs": len(values)}


def _is_figure(name: str, value: Any) -> bool:
    known = name.startswith("loss") or name in ("epoch", "step", "lr")
    return isinstance(value, float) and not known
