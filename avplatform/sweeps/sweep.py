"""Sweeps: turn a YAML file of axes into a list of runs, which are checked before the first starts.

    base: {task: avvp, data: stores/llp, epochs: 20}   # options that all runs share
    axes:
      optim.lr: [1.0e-4, 3.0e-4]                       # an option and its values
      decoding:                                        # options that go together, under a label
        mmil: {decoder: mmil}
        leap: {decoder: leap, task_config: {avss: official}}
    seeds: [1, 2, 3]                                   # or the number of seeds: 3

Dots in an option's name reach into groups. Every combination is a run, named after its values:
lr-1e-4_mmil_seed-1.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avplatform.config.compose import compose
from avplatform.config.run import RunConfig, option_names
from avplatform.config.values import Options, flat, load_yaml, merge, nest, to_dict
from avplatform.models.errors import AVError, DataError, UsageError, nearest
from avplatform.models.paths import expanded

PARTS = ("base", "axes", "seeds")
LONGEST = 200
"""Characters of a run's name: logs are named after it, and file systems allow 255 bytes."""


@dataclass(kw_only=True, frozen=True)
class PlannedRun:
    """A run of a sweep: its name (also its folder's), nested options, and value on each axis."""

    name: str
    options: Options
    axes: dict[str, Any] = field(default_factory=dict)


def read_sweep(path: str | Path) -> list[PlannedRun]:
    """Return the checked runs of a sweep file: all runs of one seed before those of the next seed.

    Raises:
        DataError: the file cannot be read.
        UsageError: a part or option is unknown, an axis is empty, or the options of a run are
            wrong; the message names it.
    """
    where = str(path)
    if not expanded(path).is_file():
        raise DataError(f"there is no sweep at {where}; give a YAML file with base, axes and seeds")
    runs = plan(load_yaml(path), where=where)
    for run in runs:
        resolve(run, where=where)
    return runs


def plan(values: dict[str, Any], *, where: str) -> list[PlannedRun]:
    """Return every combination of the axes of a sweep.

    Raises:
        UsageError: a part is unknown, an axis is empty or not a list, an option is one that the
            sweep sets itself, or two runs have the same name.
    """
    for name in values:
        if name not in PARTS:
            raise UsageError(
                f"{where}: unknown part '{name}'{nearest(str(name), PARTS)} "
                f"(known: {', '.join(PARTS)})"
            )
    base = nest(_mapping(values.get("base"), f"{where}: base"), where=where)
    axes = [
        _axis(str(name), choices, where)
        for name, choices in _mapping(values.get("axes"), f"{where}: axes").items()
    ]
    seeds = []
    if values.get("seeds") is not None:
        seeds.append(_axis("seed", _seeds(values["seeds"], where), where))
    if not axes and not seeds:
        raise UsageError(
            f"{where}: there are neither axes nor seeds, so nothing varies; "
            "use `avplatform train --config`"
        )
    _check_apart([*axes, *seeds], where)
    runs: dict[str, PlannedRun] = {}
    for chosen in (
        (*rest, *first) for first in itertools.product(*seeds) for rest in itertools.product(*axes)
    ):
        options = base
        for point in chosen:
            options = merge(options, point.options)
        name = "_".join(point.name for point in chosen)
        if len(name) > LONGEST:
            raise UsageError(
                f"{where}: the name {name[:40]}... has {len(name)} characters; "
                "give its values short labels"
            )
        if name in runs:
            raise UsageError(
                f"{where}: two runs are named {name}; give the values of one axis different labels"
            )
        runs[name] = PlannedRun(
            name=name, options=options, axes={point.axis: point.value for point in chosen}
        )
    for option in sorted(option_names(of_command=True)):
        if any(option in run.options for run in runs.values()):
            raise UsageError(f"{where}: leave out '{option}'; the sweep sets it for each run")
    return list(runs.values())


def resolve(run: PlannedRun, *, where: str) -> RunConfig:
    """Return the configuration of a run, as `avplatform train --config` would make it.

    Raises:
        UsageError: an option is unknown or a value is wrong; the message names the run.
    """
    try:
        return compose(("its options", run.options))
    except AVError as error:
        raise UsageError(f"{where}, run {run.name}: {error}") from None


def check_unchanged(folder: Path, wanted: Options) -> None:
    """Raise UsageError if an existing run was made with other options than wanted.

    Options that did not exist when the run was made count with their defaults.
    """
    stored = to_dict(compose((str(folder), load_yaml(folder))))
    for name in (n for n in wanted if n in option_names(repeated=True)):
        was, now = stored[name], wanted[name]
        if name == "data":
            was, now = _place(was), _place(now)
        if was != now:
            raise UsageError(
                f"{folder} was made with {name} {_short(was, now)}, but now it should have "
                f"{_short(now, was)}; give another --out, or delete that folder"
            )


def slug(text: Any) -> str:
    """Return a text as it can stand in a folder's name."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", str(text)).strip(".") or "none"


@dataclass(kw_only=True, frozen=True)
class _Point:
    """One value of an axis."""

    axis: str
    value: Any
    name: str
    options: Options


def _check_apart(axes: list[list[_Point]], where: str) -> None:
    """Raise UsageError if two axes set the same option, because one of them would do nothing."""
    owner: dict[str, list[_Point]] = {}
    for points in axes:
        for option in (name for point in points for name in flat(point.options)):
            if owner.setdefault(option, points) is not points:
                raise UsageError(
                    f"{where}: '{option}' is set on two axes (seeds are an axis too), so one of "
                    "them would do nothing; leave one of them out"
                )


def _axis(name: str, choices: Any, where: str) -> list[_Point]:
    if isinstance(choices, dict) and choices:
        points = []
        for label, options in choices.items():
            group = nest(_mapping(options, f"{where}: axis {name}, label {label}"), where=where)
            points.append(_Point(axis=name, value=str(label), name=slug(label), options=group))
        return points
    if not isinstance(choices, list) or not choices:
        raise UsageError(
            f"{where}: axis '{name}' must be a list of values, or labels with options; "
            f"it is {choices!r}"
        )
    short = slug(name.rsplit(".", 1)[-1])
    return [
        _Point(axis=name, value=v, name=f"{short}-{slug(v)}", options=nest({name: v}, where=where))
        for v in choices
    ]


def _seeds(seeds: Any, where: str) -> list[Any]:
    if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds > 0:
        return list(range(1, seeds + 1))
    if not isinstance(seeds, list) or not seeds or any(type(seed) is not int for seed in seeds):
        raise UsageError(
            f"{where}: seeds is {seeds!r}; give a list of whole numbers, or the number of seeds"
        )
    return seeds


def _mapping(value: Any, where: str) -> dict[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"{where} must be a mapping of options, not {value!r}")
    return value


def _place(data: Any) -> Any:
    here = isinstance(data, str) and expanded(data).exists()
    return str(expanded(data).resolve()) if here else data


def _short(value: Any, other: Any) -> str:
    """Return a value as text; a mapping is reduced to the entries that differ from the other."""
    if isinstance(value, dict) and isinstance(other, dict):
        value = {k: v for k, v in value.items() if other.get(k, v) != v or k not in other}
    return repr(value)
