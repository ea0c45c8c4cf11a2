"""Runs side by side: figures, spread over seeds, paired tests and differences per class."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from avplatform.config.run import option_names
from avplatform.config.values import flat, load_yaml
from avplatform.data.adapters.registry import find_adapter, make_task
from avplatform.evaluation.bootstrap import LEVEL, paired_ratios, paired_test
from avplatform.evaluation.selection import both_splits, mean_and_spread, selection_report
from avplatform.labels.held_out import with_others
from avplatform.models.av_model import CONFIG_FILE
from avplatform.models.config import AVModelConfig
from avplatform.models.errors import DataError, UsageError
from avplatform.models.paths import expanded
from avplatform.runs.folder import RunFolder, read_results
from avplatform.runs.predictions import Predictions, load_predictions, predictions_file
from avplatform.tasks.contracts import Task
from avplatform.tasks.metrics import Analysis
from avplatform.tasks.registry import TASKS, task_of_model


@dataclass(kw_only=True)
class FinishedRun:
    """A finished run: its folder, the content of results.json, and its flat options."""

    folder: Path
    results: dict[str, Any]
    options: dict[str, Any]


@dataclass(kw_only=True)
class ComparedRun(FinishedRun):
    """A finished run with its predictions of a split."""

    predictions: Predictions


RunT = TypeVar("RunT", bound=FinishedRun)


@dataclass(kw_only=True)
class Group(Generic[RunT]):
    """Runs that differ only in their seed."""

    label: str
    runs: list[RunT]


def compare(
    folders: Sequence[str | Path], *, split: str = "test", resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Compare the first run, together with its other seeds, to every other group of runs.

    The returned dictionary has "groups" (label, runs, seeds, figures with mean and spread,
    selection), "tests" (per other group and figure: difference, low, high, p) and "per_class" (per
    other group, level and stream: lists in the order of "classes"). If all runs scored validation
    and test after every epoch, it also has "selection_bias".

    Args:
        folders: run folders.
        split: validation or test.
        resamples: number of bootstrap resamples.
        seed: seed of the resamples.

    Raises:
        UsageError: there are fewer than two runs, a run is given twice (itself or a copy), or a
            folder is not a run folder.
        DataError: a run is not finished, has no predictions, or has another task, other data or
            other clips.
    """
    runs = read_runs(folders, split=split)
    groups = group_runs(runs)
    task = _task_of(runs[0])
    analysis = task.analysis()
    if analysis is None:
        raise DataError(
            f"the task '{task.name}' has no analysis, so its runs cannot be compared; "
            "see Task.analysis"
        )
    if not runs[0].predictions.metrics(task).timed:
        raise DataError(
            f"the events of {split} have no times, so nothing is known of when they happen; "
            "runs are compared by that: give onset and offset"
        )
    first, *others = groups
    states = {g.label: [run.predictions.state for run in g.runs] for g in groups}
    contributions = {name: list(map(analysis.contributions, own)) for name, own in states.items()}
    terms = {name: list(map(analysis.class_terms, own)) for name, own in states.items()}
    told = (run.predictions.videos for run in runs)
    videos = next((each for each in told if each is not None), None)
    sampling: dict[str, Any] = {"resamples": resamples, "seed": seed}
    drawing = sampling | {"videos": videos}
    content: dict[str, Any] = {
        **{name: runs[0].results[name] for name in ("task", "data", "data_checksum", "synthetic")},
        "split": split,
        "clips": len(runs[0].predictions),
        "bootstrap": sampling | {"level": LEVEL},
        "groups": [_summary(group, contributions[group.label], split) for group in groups],
        "tests": {
            g.label: paired_test(contributions[first.label], contributions[g.label], **drawing)
            for g in others
        },
        "per_class": {
            g.label: _per_class(terms[first.label], terms[g.label], analysis, drawing)
            for g in others
        },
    }
    # A run that picks its epoch on test does not score validation, so there is no bias to measure.
    if all(all(both_splits(RunFolder(run.folder).records())) for run in runs):
        content["selection_bias"] = {
            g.label: selection_report(
                [r.folder for r in g.runs],
                metric=_metric_of(g.runs[0], task),
                ties=g.runs[0].options.get("ties", "latest"),
            )
            for g in groups
        }
    return content


def _metric_of(run: ComparedRun, task: Task) -> str:
    """Return what picked the epoch of a run: a figure, or several joined by +."""
    return (run.results.get("selection") or {}).get("metric") or task.selection_metric


def read_runs(folders: Sequence[str | Path], *, split: str) -> list[ComparedRun]:
    """Read runs and check that they can be compared; raises as `compare` does."""
    paths = [expanded(folder) for folder in folders]
    if len(paths) < 2:
        raise UsageError("compare needs at least two run folders")
    seen: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir() or not (path / "config.yaml").is_file():
            raise UsageError(
                f"{path} is not a run folder (it has no config.yaml); "
                "give folders that `avplatform train` made"
            )
        if path.resolve() in seen:
            raise UsageError(
                f"{path} is the same run as {seen[path.resolve()]}; give each run once"
            )
        seen[path.resolve()] = path
    unfinished = [str(path) for path in paths if not RunFolder(path).results_file.is_file()]
    if unfinished:
        raise DataError(
            f"not finished: {', '.join(unfinished)} (no results.json); go on with "
            f"`avplatform train --resume {unfinished[0]}`, "
            f"or leave {'it' if len(unfinished) == 1 else 'them'} out"
        )
    runs = [_read(path, split) for path in paths]
    for run in runs[1:]:
        _check_pair(runs[0], run, split)
    return runs


def read_finished(path: Path) -> FinishedRun:
    """Read a finished run, without its predictions.

    Raises:
        DataError: results are missing, lack something, or are of a task that is not registered.
    """
    results = read_results(RunFolder(path).results_file)
    needed = ("task", "encoder", "decoder", "data", "data_checksum", "synthetic")
    if lacking := [name for name in needed if name not in results]:
        raise DataError(f"{path}/results.json lacks {', '.join(lacking)}; train the run again")
    if str(results["task"]) not in TASKS:
        raise DataError(
            f"{path} has the task '{results['task']}', which is not registered; "
            "import the package that registers it"
        )
    others = option_names(compared=False)  # data are compared by their checksum
    options = {k: v for k, v in flat(load_yaml(path)).items() if k.split(".")[0] not in others}
    return FinishedRun(folder=path, results=results, options=options)


def group_runs(runs: Sequence[RunT]) -> list[Group[RunT]]:
    """Return groups of runs that differ only in their seed, in the order of their first runs.

    Each group gets a label that tells it from the others.

    Raises:
        UsageError: two runs have equal options and the same seed, so their spread means nothing.
    """
    groups: dict[str, list[RunT]] = {}
    for run in runs:
        groups.setdefault(json.dumps(run.options, sort_keys=True), []).append(run)
    members = list(groups.values())
    for group in members:
        seeds: dict[Any, RunT] = {}
        for run in group:
            seed = run.results.get("seed")
            if seed is not None and (twin := seeds.setdefault(seed, run)) is not run:
                raise UsageError(
                    f"{twin.folder} and {run.folder} are the same training twice (equal options, "
                    f"seed {seed}) and would count as two seeds; leave one of them out"
                )
    labels = _labels(members)
    return [Group(label=label, runs=group) for label, group in zip(labels, members, strict=True)]


def _labels(groups: list[list[RunT]]) -> list[str]:
    """Return labels of groups: encoder and decoder, plus the options in which equal ones differ.

    If such labels are too long, or are not unique, the folders' names are the labels.
    """
    names = [f"{group[0].results['encoder']} + {group[0].results['decoder']}" for group in groups]
    labels = []
    for name, group in zip(names, groups, strict=True):
        alike = [g[0].options for g, n in zip(groups, names, strict=True) if n == name]
        keys = sorted({key for options in alike for key in options})
        own = [
            f"{key} {group[0].options.get(key)}"
            for key in keys
            if any(options.get(key) != alike[0].get(key) for options in alike)
        ]
        labels.append(", ".join([name, *own]))
    if any(len(label) > 70 for label in labels) or len(set(labels)) < len(labels):
        folders = [group[0].folder for group in groups]
        short = [folder.name for folder in folders]
        labels = short if len(set(short)) == len(short) else [str(folder) for folder in folders]
    return labels


def _read(path: Path, split: str) -> ComparedRun:
    file = predictions_file(path, split)
    if not file.is_file():
        raise DataError(
            f"{path} has no predictions of the {split} split; "
            f"`avplatform eval {path} --split {split} --predictions {file.parent}` writes them"
        )
    return ComparedRun(**vars(read_finished(path)), predictions=load_predictions(file))


def _task_of(run: ComparedRun) -> Task:
    """Return the task of a run, with the classes of its model or else of the task's dataset."""
    file = run.folder / "model" / CONFIG_FILE
    if file.is_file():
        config = AVModelConfig.from_dict(json.loads(file.read_text(encoding="utf-8")))
        task, dataset = task_of_model(config), find_adapter(config.task)
        # A model that knows the seen classes only was scored among all of them.
        open_classes = dataset is not None and dataset.unseen
        if open_classes and set(task.classes) < set(dataset.classes):  # type: ignore[union-attr]
            return make_task(task.name, task.config)
        return task
    return with_others(make_task(str(run.results["task"])), run.results.get("held_out") or ())


def _check_pair(first: ComparedRun, run: ComparedRun, split: str) -> None:
    """Raise DataError unless both runs were scored on the same clips of the same task."""
    a, b = first.results, run.results
    if a["task"] != b["task"]:
        raise DataError(
            f"{first.folder} has the task {a['task']}, {run.folder} has {b['task']}; "
            "compare runs of one task"
        )
    for name, what in (
        ("data", "was trained and scored on"),
        ("data_checksum", "has data with the checksum"),
    ):
        if a[name] != b[name]:
            raise DataError(
                f"{first.folder} {what} {a[name]}, {run.folder} {what} {b[name]}; "
                "compare runs on the same data"
            )
    if a.get("held_out") != b.get("held_out"):
        raise DataError(
            f"{first.folder} and {run.folder} held out different classes; "
            "compare runs that were trained on the same classes"
        )
    here, there = first.predictions.state, run.predictions.state
    truth = [name for name in here if name == "row" or name.startswith("true")]
    if any(not np.array_equal(here[name], there.get(name)) for name in truth):  # type: ignore[arg-type]
        raise DataError(
            f"{first.folder} and {run.folder} were scored on different {split} clips; "
            "score one of them again"
        )
    if first.predictions.about.get("thresholds") != run.predictions.about.get("thresholds"):
        raise DataError(
            f"the predictions of {first.folder} and {run.folder} were decided by different "
            "thresholds (own, and chosen on validation); "
            "write both in the same way with `avplatform eval --predictions`"
        )


def _summary(
    group: Group, contributions: list[dict[str, np.ndarray]], split: str
) -> dict[str, Any]:
    figures = {
        name: [float(run[name].mean()) for run in contributions] for name in contributions[0]
    }
    for position, run in enumerate(group.runs):
        stated = run.results.get(split) or {}
        own = run.predictions.about.get("thresholds") is None
        if own and any(
            abs(stated.get(name, v[position]) - v[position]) > 1e-4 for name, v in figures.items()
        ):
            raise DataError(
                f"the predictions in {run.folder} do not give the figures in its results.json; "
                f"write them again with `avplatform eval {run.folder} --split {split} "
                f"--predictions {run.folder}/predictions`"
            )
    return {
        "label": group.label,
        "runs": [str(run.folder) for run in group.runs],
        "seeds": [run.results.get("seed") for run in group.runs],
        "selection": (group.runs[0].results.get("selection") or {}).get("split"),
        "figures": {
            name: mean_and_spread(values) | {"values": values} for name, values in figures.items()
        },
    }


def _per_class(
    first: list[Any], other: list[Any], analysis: Analysis, drawing: dict[str, Any]
) -> dict[str, Any]:
    return {
        level: {
            stream: {"classes": list(analysis.classes)}
            | paired_ratios(
                [run[level][stream] for run in first],
                [run[level][stream] for run in other],
                **drawing,
            )
            for stream in first[0][level]
        }
        for level in first[0]
    }
