"""The scores of a sweep's finished runs, in one table per task and data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avplatform.evaluation.compare_page import figure_table
from avplatform.evaluation.selection import mean_and_spread
from avplatform.runs.folder import RunFolder, read_results
from avplatform.sweeps.sweep import PlannedRun
from avplatform.tasks.registry import TASKS

SPLIT = "test"
Table = tuple[str, list[str], list[list[str]]]
"""Title, columns and rows."""


def score_tables(runs: Sequence[PlannedRun], folder: Path) -> list[Table]:
    """Return tables of the task's main figures on test, without the runs that are not finished.

    Runs that differ only in their seed share a row, with their mean and standard deviation, as in
    `avplatform compare`.

    Raises:
        DataError: the results of a run cannot be read.
    """
    kinds: dict[tuple[str, str, bool], dict[str, list[dict[str, Any]]]] = {}
    for run in runs:
        file = RunFolder(folder / run.name).results_file
        if file.is_file() and SPLIT in (found := read_results(file)):
            same = (found["task"], found["data"], found["synthetic"])
            kinds.setdefault(same, {}).setdefault(_label(run, found), []).append(found)
    return [_table(*same, groups) for same, groups in kinds.items()]


def shown_figures(results: dict[str, Any]) -> list[str]:
    """Return the task's main figures on test, or all if a run has none of them."""
    known, task = list(results[SPLIT]), results["task"]
    return [name for name in (TASKS[task].shown if task in TASKS else ()) if name in known] or known


def _label(run: PlannedRun, results: dict[str, Any]) -> str:
    """Return the values of a run on all axes but the seed, or its model if there is no other."""
    values = [f"{axis} {value}" for axis, value in run.axes.items() if axis != "seed"]
    return ", ".join(values) or f"{results['encoder']} + {results['decoder']}"


def _table(task: str, data: str, synthetic: bool, groups: dict[str, list[dict[str, Any]]]) -> Table:
    shown = shown_figures(next(iter(groups.values()))[0])
    content = [
        {
            "label": label,
            "runs": own,
            "selection": (own[0].get("selection") or {}).get("split"),
            "figures": {name: mean_and_spread([run[SPLIT][name] for run in own]) for name in shown},
        }
        for label, own in groups.items()
    ]
    kind = " (SYNTHETIC features)" if synthetic else ""
    return f"{task}, {SPLIT} of {data}{kind}, percent", *figure_table({"groups": content})
