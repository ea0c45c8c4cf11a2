"""Reproduce targets: find the data, plan the runs, train the missing ones, collect the results."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avplatform.base.console import Console
from avplatform.catalogue.published import REFINEMENTS
from avplatform.config.values import merge, to_dict
from avplatform.data.adapters.registry import find_adapter
from avplatform.data.reading.source import DataSource, locate_store, open_data
from avplatform.data.store.schema import LABEL_FILE, MANIFEST_FILE, Manifest
from avplatform.models.errors import DataError, UsageError, nearest
from avplatform.models.paths import expanded
from avplatform.reproduce.figures import read_rescored
from avplatform.reproduce.tables import Shelf
from avplatform.reproduce.targets import JOINT, RIVAL, TABLES, Setting, settings_of
from avplatform.sweeps.checks import check_runs
from avplatform.sweeps.ledger import Entry
from avplatform.sweeps.runner import PROGRAM, Job, Outcome, run_jobs, train_jobs
from avplatform.sweeps.sweep import PlannedRun, check_unchanged, resolve
from avplatform.tasks.registry import TASKS

Stores = dict[str, tuple[str, DataSource]]
"""The name that the user gave and the store, by task."""
RUNS, CHECKPOINTS, LOGS, LABELS = "runs", "checkpoints", "logs", "labels"


@dataclass(kw_only=True)
class Plan:
    """What a page needs, by the stem of each setting.

    `runs` holds the planned runs, `missing` why a setting is not run, and `checkpoints` the
    authors' checkpoints that are scored again. `stages` holds the runs of the models that refine
    the labels of other runs, which no row of the page shows.
    """

    settings: dict[str, Setting]
    runs: dict[str, list[PlannedRun]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    checkpoints: dict[str, Path] = field(default_factory=dict)
    stages: dict[str, list[PlannedRun]] = field(default_factory=dict)


def find_data(given: Sequence[str], *, cache_dir: str | None = None) -> Stores:
    """Return stores by task; a folder may be a store, or hold several.

    Raises:
        UsageError: two stores have the same task.
        DataError: there is no store.
    """
    found: Stores = {}
    for name in (store for text in given for store in _stores(text)):
        tasks = list(TASKS) if name == "demo" else [_task_of(name, cache_dir)]
        for task in tasks:
            if task in found:
                raise UsageError(
                    f"--data gives two datasets for {task}: {found[task][0]} and {name}; "
                    "leave one out"
                )
            found[task] = (name, open_data(name, task=task, cache_dir=cache_dir))
    return found


def make_plan(
    targets: Sequence[str],
    data: Stores,
    *,
    labels: dict[str, str],
    seeds: int,
    only: Sequence[str],
    extra: dict[str, Any],
    checkpoints: Path | None,
    out: Path = Path(),
) -> Plan:
    """Return the plan of some targets: their runs for every seed.

    Args:
        targets: names of tables and figures.
        data: the data by task, as `find_data` returns them.
        labels: label embeddings by kind.
        seeds: number of seeds, counted from 1.
        only: texts, one of which a setting's stem must contain.
        extra: options that all runs get, such as a short schedule.
        checkpoints: folder of model folders that `avplatform convert` wrote.
        out: the page's folder; the runs name files in it.

    Raises:
        UsageError: nothing can be run, or a checkpoint's folder has no known name.
    """
    plan = Plan(settings=settings_of(targets))
    if checkpoints is not None:
        plan.checkpoints = _find_checkpoints(checkpoints, plan.settings, set(data))
    for stem, setting in plan.settings.items():
        if setting.task not in data:
            dataset = find_adapter(setting.task)
            name = dataset.title if dataset else setting.task
            why = f"no data for {setting.task} given; give --data with a store of {name}"
        elif setting.labels not in ("", "glove", *labels):
            kind = setting.labels
            file = _vectors_of(data[setting.task][0]) if kind == JOINT else None
            why = f"no {kind.upper()} vectors given; give --labels {kind}={file or 'FILE'}"
        elif only and not any(text in stem for text in only):
            why = "left out by --only"
        else:
            plan.runs[stem] = [
                _planned(setting, seed, data, labels, extra, out) for seed in range(1, seeds + 1)
            ]
            continue
        plan.missing[stem] = f"not run: {why}"
    for base in (plan.settings[stem].base for stem in plan.runs):
        if base is not None and base.stem not in plan.runs:
            plan.stages[base.stem] = [
                _planned(base, seed, data, labels, extra, out) for seed in range(1, seeds + 1)
            ]
    if not plan.runs and not plan.checkpoints:
        reasons = {reason.removeprefix("not run: ") for reason in plan.missing.values()}
        raise UsageError(f"nothing to run: {'; '.join(sorted(reasons))}")
    return plan


def _vectors_of(store: str) -> Path | None:
    """Return the file of the text vectors that a store holds beside its features, if it does."""
    file = expanded(store) / LABEL_FILE
    return file if file.is_file() else None


def carry_out(
    plan: Plan,
    out: Path,
    *,
    parallel: int,
    console: Console,
    data: Stores,
    cache_dir: str | None = None,
    cpu: bool = False,
) -> Outcome:
    """Train and score what is missing; existing runs must have the same options and data.

    Args:
        plan: what to run.
        out: the page's folder.
        parallel: how many jobs run at a time.
        console: where progress is said.
        data: the stores by task.
        cache_dir: folder for cached data of the jobs that train nothing; runs have it as an option.
        cpu: whether these jobs stay on the CPU.

    Raises:
        UsageError: a run in the folder was made with other options or other data.
    """
    planned = {**plan.stages, **plan.runs}
    runs = [run for seed in zip(*planned.values(), strict=True) for run in seed]
    check_runs(runs, where="reproduce")
    cached = [] if cache_dir is None else ["--cache-dir", cache_dir]
    stay = ["--cpu"] if cpu else []
    jobs = [
        _score_job(stem, path, out, data[plan.settings[stem].task], [*cached, *stay])
        for stem, path in plan.checkpoints.items()
    ]
    refined = {
        run.name: _refine_job(setting, seed, out, data[setting.task], cached, stay)
        for stem, setting in plan.settings.items()
        for seed, run in enumerate(plan.runs.get(stem, []), start=1)
        if setting.rule
    }
    jobs += {job.name: job for job in refined.values()}.values()
    jobs += [
        dataclasses.replace(job, needs=(refined[job.name].name,)) if job.name in refined else job
        for job in train_jobs(runs, out / RUNS, parallel=parallel, where="reproduce")
    ]
    check_there(plan, out, data)
    return run_jobs(jobs, logs=out / LOGS, parallel=parallel, console=console)


def check_there(plan: Plan, out: Path, data: Stores) -> None:
    """Check that the existing runs in a folder are those of the plan.

    Raises:
        UsageError: a run in the folder was made with other options or other data.
    """
    of_bases = {s.base.stem: s.base for s in plan.settings.values() if s.base is not None}
    settings = {**of_bases, **plan.settings}
    for stem, planned in {**plan.stages, **plan.runs}.items():
        checksum = data[settings[stem].task][1].checksum
        for run in planned:
            entry = Entry(out / RUNS / run.name)
            if (entry.folder / "config.yaml").is_file():
                check_unchanged(entry.folder, to_dict(resolve(run, where="reproduce")))
            if entry.finished and entry.results.get("data_checksum") != checksum:
                raise UsageError(
                    f"{entry.folder} was trained on other data than --data now holds; "
                    "give another --out"
                )


def collect(
    plan: Plan, out: Path, *, data: Stores, labels: dict[str, str], failed: dict[str, str]
) -> Shelf:
    """Return the finished runs and scores that fill the page."""
    shelf = Shelf(root=out, missing=dict(plan.missing), labels=labels)
    shelf.features = {task: describe_features(source) for task, (_, source) in data.items()}
    for stem, planned in plan.runs.items():
        runs = {run.name: Entry(out / RUNS / run.name) for run in planned}
        absent = [n for n, e in runs.items() if not e.finished]
        shelf.runs[stem] = [entry for name, entry in runs.items() if name not in absent]
        if absent:
            words = next(
                (failed[name] for name in absent if name in failed),
                "not finished; run the same command again",
            )
            shelf.missing[stem] = f"{len(absent)} of {len(planned)} runs missing: {words}"
    for stem in plan.checkpoints:
        if (found := read_rescored(out / CHECKPOINTS / stem)) is not None:
            shelf.checkpoints[stem] = found
    return shelf


def describe_features(source: DataSource) -> str:
    """Return a short text about a store's features: name, streams and sizes."""
    features = source.spec.features
    parts = [f"audio {features.audio_dim}", f"visual {features.visual_dim}"]
    if features.map_size is not None:
        parts[1] += f" x {features.map_size[0]} x {features.map_size[1]}"
    parts += [f"motion {features.motion_dim}"] if features.motion_dim else []
    return f"{source.name}{' (SYNTHETIC)' if source.synthetic else ''}: {', '.join(parts)}"


def _planned(
    setting: Setting,
    seed: int,
    data: Stores,
    labels: dict[str, str],
    extra: dict[str, Any],
    out: Path,
) -> PlannedRun:
    options = merge({"preset": setting.preset}, setting.options)
    options = merge(options, {"data": data[setting.task][0], "seed": seed, **extra})
    if setting.labels in labels:
        options = merge(options, {"labels": {"embeddings": labels[setting.labels]}})
    if setting.rule:
        file = str(_refined_file(setting, seed, out))
        options = merge(options, {"task_config": {REFINEMENTS[setting.rule]: file}})
    options["score_test"] = True  # so that one training gives the figures of both selections
    return PlannedRun(name=f"{setting.stem}_seed-{seed}", options=options)


def _refined_file(setting: Setting, seed: int, out: Path) -> Path:
    """Return the file of the labels that the run of a setting trains on; "drop" has no seeds."""
    if setting.base is None:
        return out / LABELS / f"{'_'.join((setting.rule, *RIVAL))}.json"
    return out / LABELS / f"{setting.rule}_{setting.base.stem}_seed-{seed}.json"


def _refine_job(
    setting: Setting,
    seed: int,
    out: Path,
    data: tuple[str, DataSource],
    cached: Sequence[str],
    stay: Sequence[str],
) -> Job:
    """Return the job that refines labels, with the trained model of the base setting if any.

    The flags `stay` are of the device, which only a job with a model has.
    """
    file = _refined_file(setting, seed, out)
    base = "" if setting.base is None else f"{setting.base.stem}_seed-{seed}"

    def command() -> list[str]:
        of_base = ["--model", str(out / RUNS / base), *stay]
        asked = of_base if base else [f"--{RIVAL[0]}", RIVAL[1]]
        told = [*asked, "--data", data[0], "--out", str(file), *cached]
        return [*PROGRAM, "pseudo-label", setting.rule, *told]

    return Job(
        name=f"labels {file.stem}",
        command=command,
        done=file.is_file,
        needs=(base,) if base else (),
    )


def _score_job(
    stem: str, model: Path, out: Path, data: tuple[str, DataSource], flags: Sequence[str]
) -> Job:
    file = out / CHECKPOINTS / stem / "results.json"

    def done() -> bool:
        if not file.is_file() or any(
            p.stat().st_mtime > file.stat().st_mtime for p in model.glob("*.*")
        ):
            return False
        found = read_rescored(file.parent)
        return found is not None and found.results.get("data_checksum") == data[1].checksum

    def command() -> list[str]:
        file.parent.mkdir(parents=True, exist_ok=True)
        return [*PROGRAM, "eval", str(model), "--data", data[0], "--json", str(file), *flags]

    return Job(name=f"checkpoint {stem}", command=command, done=done)


def _find_checkpoints(
    folder: Path, settings: dict[str, Setting], tasks: set[str]
) -> dict[str, Path]:
    """Return model folders by stem.

    A folder is named like the runs of its setting, or like their -official preset.
    """
    if not folder.is_dir():
        raise DataError(
            f"--checkpoints {folder}: there is no such folder; give the folder of the model "
            "folders that `avplatform convert` wrote"
        )
    known = settings_of(list(TABLES))
    found = {}
    for path in sorted(p for p in folder.iterdir() if (p / "config.json").is_file()):
        stem = path.name if path.name in known else path.name.removesuffix("-official")
        if stem not in known:
            raise UsageError(
                f"--checkpoints: the folder {path} does not have the name of a setting of the "
                f"paper's tables{nearest(path.name, known)} (known: {', '.join(known)})"
            )
        if stem in settings and settings[stem].task in tasks:
            found[stem] = path
    return found


def _stores(text: str) -> list[str]:
    folder = expanded(text)
    if not folder.is_dir() or (folder / MANIFEST_FILE).is_file():
        return [text]
    inside = sorted(str(file.parent) for file in folder.glob(f"*/{MANIFEST_FILE}"))
    return inside or [text]


def _task_of(name: str, cache_dir: str | None) -> str:
    path, _ = locate_store(name, None if cache_dir is None else expanded(cache_dir), None)
    return Manifest.read(path).spec.task
