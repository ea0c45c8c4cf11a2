"""A sweep: one YAML file of axes becomes a list of runs, all of them checked before the first one starts.

    base: {task: avvp, data: stores/llp, epochs: 20}   # options that all runs share
    axes:
      optim.lr: [1.0e-4, 3.0e-4]                       # an option and its values; dots reach into groups
      decoding:                                        # options that go together, under a label
        mmil: {decoder: mmil}
        leap: {decoder: leap, task_config: {avss: official}}
    seeds: [1, 2, 3]                                   # or a number of them: 3

Every combination is a run, named after its values: lr-1e-4_mmil_seed-1.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avplatform.config.compose import compose
from avplatform.config.run import RunConfig, option_names
from avplatform.config.values import Options, flat, load_yaml, merge, nest
from avplatform.models.errors import AVError, DataError, UsageError, nearest

PARTS = ("base", "axes", "seeds")
LONGEST = (
    200  # characters of a run's name: file systems take 255 bytes, and logs are named after it
)


@dataclass(kw_only=True, frozen=True)
class PlannedRun:
    """A run of a sweep: its name (also its folder's), its options as a YAML file holds them, and its place on the axes."""

    name: str
    options: Options
    axes: dict[str, Any] = field(default_factory=dict)


def read_sweep(path: str | Path) -> list[PlannedRun]:
    """Return the runs of a sweep file, seeds last, so that one seed of everything comes before the next seed.

    Raises:
        DataError: the file cannot be read.
        UsageError: an unknown part or option, an empty axis, or a run that no configuration allows; says which.
    """
    where = str(path)
    if not Path(path).is_file():
        raise DataError(f"no sweep at {where}; give a YAML file with base, axes and seeds")
    runs = plan(load_yaml(path), where=where)
    for run in runs:
        resolve(run, where=where)
    return runs


def plan(values: dict[str, Any], *, where: str) -> list[PlannedRun]:
    """Return every combination of the axes of a sweep's content.

    Raises:
        UsageError: an unknown part, an axis that is empty or no list, an option that the sweep sets itself, or two runs of
            one name.
    """
    for name in values:
        if name not in PARTS:
            raise UsageError(
                f"{where}: unknown part '{name}'{nearest(str(name), PARTS)} (known: {', '.join(PARTS)})"
            )
    base = nest(_mapping(values.get("base"), f"{where}: base"), where=where)
    axes = [
        _axis(str(name), choices, where)
        for name, choices in _mapping(values.get("axes"), f"{where}: axes").items()
    ]
    seeds = (
        [_axis("seed", _seeds(values["seeds"], where), where)]
        if values.get("seeds") is not None
        else []
    )
    if not axes and not seeds:
        raise UsageError(
            f"{where}: neither axes nor seeds, so there is nothing to vary; use `avplatform train --config`"
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
                f"{where}: the name {name[:40]}... has {len(name)} characters; give its values short labels"
            )
        if name in runs:
            raise UsageError(
                f"{where}: two runs are named {name}; give the options of one axis under labels of their own"
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
        UsageError: an unknown option or a wrong value; says in which run.
    """
    try:
        return compose(("its options", run.options))
    except AVError as error:
        raise UsageError(f"{where}, run {run.name}: {error}") from None


def check_unchanged(folder: Path, wanted: Options) -> None:
    """Raise UsageError where a run that is there already was made with other options than wanted."""
    stored = load_yaml(folder)
    for name in (n for n in wanted if n in option_names(repeated=True)):
        was, now = stored.get(name, wanted[name]), wanted[name]
        if name == "data":
            was, now = _place(was), _place(now)
        if was != now:
            raise UsageError(
                f"{folder} was made with {name} {_short(was, now)}, but it is to have {_short(now, was)}; give another --out, "
                "or delete that folder"
            )


def slug(text: Any) -> str:
    """Return a text as part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", str(text)).strip(".") or "none"


@dataclass(kw_only=True, frozen=True)
class _Point:
    """One value of an axis."""

    axis: str
    value: Any
    name: str
    options: Options


def _check_apart(axes: list[list[_Point]], where: str) -> None:
    """Raise UsageError where two axes set the same option: one of them would do nothing."""
    owner: dict[str, list[_Point]] = {}
    for points in axes:
        for option in (name for point in points for name in flat(point.options)):
            if owner.setdefault(option, points) is not points:
                raise UsageError(
                    f"{where}: '{option}' is set on two axes (seeds are one), so one of them would do nothing"
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
            f"{where}: axis '{name}' must be a list of values, or labels with options; it is {choices!r}"
        )
    short = slug(name.rsplit(".", 1)[-1])
    return [
        _Point(
            axis=name,
            value=value,
            name=f"{short}-{slug(value)}",
            options=nest({name: value}, where=where),
        )
        for value in choices
    ]


def _seeds(seeds: Any, where: str) -> list[Any]:
    if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds > 0:
        return list(range(1, seeds + 1))
    if (
        not isinstance(seeds, list)
        or not seeds
        or any(isinstance(s, bool) or not isinstance(s, int) for s in seeds)
    ):
        raise UsageError(
            f"{where}: seeds is {seeds!r}; give a list of whole numbers, or how many there shall be"
        )
    return seeds


def _mapping(value: Any, where: str) -> dict[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"{where} must be a mapping of options, not {value!r}")
    return value


def _place(data: Any) -> Any:
    return str(Path(data).resolve()) if isinstance(data, str) and Path(data).exists() else data


def _short(value: Any, other: Any) -> str:
    """Show a value; of a mapping only in what it differs from the other."""
    if isinstance(value, dict) and isinstance(other, dict):
        value = {k: v for k, v in value.items() if other.get(k, v) != v or k not in other}
    return repr(value)
