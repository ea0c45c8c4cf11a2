"""compose."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from avplatform.config.presets import preset_options
from avplatform.config.run import RunConfig, default_config
from avplatform.config.values import apply, load_yaml
from avplatform.models.errors import DataError, UsageError

CELL = ("task", "encoder", "decoder", "supervision")


RESUMABLE = (
    *(
        "max_steps",
        "epochs",
        "cpu",
        "num_workers",
        "threads",
        "checkpointing",
        "save_plots",
        "precision",
        "cache_dir",
    ),
    *("trackers", "project", "on_nan", "score_test"),
)


def parse(args: Sequence[str], *, prog: str = "train.py") -> RunConfig:
    """Return the RunConfig of a command line: defaults, then preset, then --config, then flags.

    Raises:
        UsageError: a wrong name, value or combination.
        DataError: a config or run folder that cannot be read.
    """
    given = peek(args, (*CELL, "preset", "config", "resume"))
    if given.get("resume"):
        return _resumed(args, given["resume"], prog=prog)
    layers: list[tuple[str, dict[str, Any]]] = []
    if given.get("config"):
        values = load_yaml(given["config"])
        for name in ("output_dir", "resume", "config", "dry_run"):
            values.pop(name, None)
        layers.append((str(given["config"]), values))
    preset = given.get("preset") or (layers[0][1].get("preset") if layers else None)
    if preset:
        options = preset_options(preset)
        wanted = {
            **{
                name: value
                for _, values in layers
                for name, value in values.items()
                if name in CELL
            },
            **given,
        }
        for name in CELL:
            if wanted.get(name, options[name]) != options[name]:
                raise UsageError(
                    f"preset {preset} is for {name} {options[name]}, not {wanted[name]}; leave one of them out"
                )
        layers.insert(0, (f"preset {preset}", options))
    for where, values in layers:
        for name in CELL:
            if not isinstance(values.get(name, ""), str):
                raise UsageError(f"{where}: option '{name}' is {values[name]!r}; it must be a name")
    cell: dict[str, Any] = {}
    for _, values in layers:
        cell.update({name: values[name] for name in CELL if values.get(name)})
    cell.update({name: given[name] for name in CELL if given.get(name)})
    config = default_config(**cell)
    for where, values in layers:
        config = apply(config, {k: v for k, v in values.items() if k not in CELL}, where=where)
    return _cli(config, args, prog)


def peek(args: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Return the values of some flags without parsing the others (`--name value` or `--name=value`)."""
    found = {}
    for index, arg in enumerate(args):
        flag, _, value = arg.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if flag.startswith("--") and name in names:
            if "=" in arg:
                found[name] = value
            elif index + 1 < len(args):
                found[name] = args[index + 1]
    return found


def _resumed(args: Sequence[str], path: str, *, prog: str) -> RunConfig:
    """Return the config of a run to go on with; only flags that do not change the run may differ."""
    if not Path(path).is_dir():
        raise DataError(f"--resume {path}: no such run folder")
    values = load_yaml(path)
    stored = default_config(**{name: values[name] for name in CELL if name in values})
    stored = apply(
        stored, {**values, "resume": None, "dry_run": False}, where=f"{path}/config.yaml"
    )
    config = _cli(stored, args, prog)
    check_resumed(path, stored=stored, config=config)
    return config


def check_resumed(path: str, *, stored: RunConfig, config: RunConfig) -> None:
    """Raise UsageError where a config changes what a run cannot change when it goes on."""
    if "float64" in (config.precision, stored.precision) and config.precision != stored.precision:
        raise UsageError(
            f"--precision cannot change to or from float64 when a run is resumed (it was {stored.precision}): its weights "
            "have that precision; start a new run, or leave it out"
        )
    for field in dataclasses.fields(config):
        if field.name not in (*RESUMABLE, "resume", "dry_run") and getattr(
            config, field.name
        ) != getattr(stored, field.name):
            raise UsageError(
                f"--{field.name.replace('_', '-')} cannot change when a run is resumed (it was "
                f"{getattr(stored, field.name)!r}); start a new run, or leave it out"
            )


def _cli(config: RunConfig, args: Sequence[str], prog: str) -> RunConfig:
    about = (
        "Train, evaluate and save a model. Defaults shown are those of the chosen --task, --encoder, --decoder, --preset "
        "and --config."
    )
    return tyro.cli(type(config), default=config, args=list(args), prog=prog, description=about)
