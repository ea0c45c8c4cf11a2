"""A run's configuration: defaults, preset, files and flags merged as dictionaries, then built and checked once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from avplatform.config.presets import preset_options
from avplatform.config.run import RunConfig, default_config, option_names
from avplatform.config.values import Options, build, load_yaml, merge, typed
from avplatform.models.errors import DataError, UsageError
from avplatform.models.typed_values import field_kinds

CELL = ("task", "encoder", "decoder", "supervision")
ABOUT = (
    "Train, evaluate and save a model. Defaults shown are those of the chosen --task, --encoder, --decoder, --preset "
    "and --config."
)
Layer = tuple[str, Options]
"""What errors call a source of options, and its options."""


def parse(args: Sequence[str], *, prog: str = "train.py") -> RunConfig:
    """Return the RunConfig of a command line: defaults, then preset, then --config, then flags.

    Raises:
        UsageError: a wrong name, value or combination.
        DataError: a config or run folder that cannot be read.
    """
    given = peek(args, (*CELL, "preset", "config", "resume"))
    if given.get("resume"):
        return _resumed(args, given["resume"], prog=prog)
    layers: list[Layer] = []
    if given.get("config"):
        own, values = option_names(of_command=True), load_yaml(given["config"])
        layers.append((given["config"], {k: v for k, v in values.items() if k not in own}))
    cls, options = _merged(_with_preset(layers, given), given)
    return build(cls, _with_flags(cls, options, args, prog))


def compose(*layers: Layer) -> RunConfig:
    """Return the configuration of layers of options, each over the ones before, and all over the defaults of their cell.

    The preset that the first layer names lies between the defaults and the layers.

    Raises:
        UsageError: a wrong name, value or combination.
    """
    return build(*_merged(_with_preset(layers, {}), {}))


def stored_config(folder: str | Path) -> RunConfig:
    """Return the configuration of a run's folder; options that it does not hold have the defaults of its cell.

    Raises:
        DataError: no configuration there, or not one that can be read.
        UsageError: an option that there is no longer, or a value that cannot be.
    """
    values = {**load_yaml(folder), "resume": None, "dry_run": False}
    return build(*_merged([(f"{folder}/config.yaml", values)], {}))


def changed_options(config: RunConfig, values: Options, *, where: str) -> Options:
    """Return the options of a configuration with others put over them; `where` names their source in errors.

    Raises:
        UsageError: an unknown name, or a value of another kind.
    """
    return merge(dataclasses.asdict(config), typed(type(config), values, where=where))


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


def _with_preset(layers: Sequence[Layer], given: Mapping[str, str]) -> list[Layer]:
    """Return the layers behind that of the preset which flags or the first layer name."""
    preset = given.get("preset") or (layers[0][1].get("preset") if layers else None)
    if not preset or not isinstance(preset, str):  # of another kind: refused with all the others
        return list(layers)
    options = preset_options(preset)
    wanted = {**{k: v for _, values in layers for k, v in values.items() if k in CELL}, **given}
    for name in CELL:
        if wanted.get(name, options[name]) != options[name]:
            raise UsageError(
                f"preset {preset} is for {name} {options[name]}, not {wanted[name]}; leave one of them out"
            )
    return [(f"preset {preset}", options), *layers]


def _merged(layers: Sequence[Layer], given: Mapping[str, str]) -> tuple[type[RunConfig], Options]:
    """Return the options of a cell's defaults and of layers over them, and the class that they are for."""
    cell: dict[str, Any] = {}
    for where, values in layers:
        for name in CELL:
            if not isinstance(values.get(name, ""), str):
                raise UsageError(f"{where}: option '{name}' is {values[name]!r}; it must be a name")
        cell |= {name: values[name] for name in CELL if values.get(name)}
    cell |= {name: given[name] for name in CELL if given.get(name)}
    defaults = default_config(**cell)
    cls, options = type(defaults), dataclasses.asdict(defaults)
    for where, values in layers:
        others = {name: value for name, value in values.items() if name not in CELL}
        options = merge(options, typed(cls, others, where=where))
    return cls, options


def _resumed(args: Sequence[str], path: str, *, prog: str) -> RunConfig:
    """Return the configuration of a run to go on with, with the flags that may change it."""
    if not Path(path).is_dir():
        raise DataError(f"--resume {path}: no such run folder")
    stored = stored_config(path)
    options = _with_flags(type(stored), dataclasses.asdict(stored), args, prog)
    check_resumed(stored, options)
    return build(type(stored), options)


def check_resumed(stored: RunConfig, options: Options) -> None:
    """Raise UsageError where options change what a run cannot change when it goes on."""
    before = dataclasses.asdict(stored)
    was, now = stored.precision, options["precision"]
    if "float64" in (was, now) and was != now:
        raise UsageError(
            f"--precision cannot change to or from float64 when a run is resumed (it was {was}): "
            "its weights have that precision; start a new run, or leave it out"
        )
    for name in options:
        if name not in option_names(resumable=True) and options[name] != before[name]:
            raise UsageError(
                f"--{name.replace('_', '-')} cannot change when a run is resumed (it was "
                f"{getattr(stored, name)!r}); start a new run, or leave it out"
            )


def _with_flags(cls: type[RunConfig], options: Options, args: Sequence[str], prog: str) -> Options:
    """Return options with those of a command line put over them, which shows them as the defaults."""
    flags = _unchecked(cls)
    shown = build(flags, options)
    found = tyro.cli(flags, default=shown, args=list(args), prog=prog, description=ABOUT)
    return dataclasses.asdict(found)


def _unchecked(cls: Any) -> Any:
    """Return a dataclass like `cls`, and like those that it holds, which checks nothing: a flag may mend what a file says."""
    groups = {
        name: _unchecked(kind)
        for name, kind in field_kinds(cls).items()
        if dataclasses.is_dataclass(kind)
    }
    return dataclasses.make_dataclass(
        cls.__name__,
        [(name, kind, dataclasses.field(default_factory=kind)) for name, kind in groups.items()],
        bases=(cls,),
        namespace={"__doc__": cls.__doc__, "__post_init__": lambda self: None},
        kw_only=True,
        frozen=cls.__dataclass_params__.frozen,
    )
