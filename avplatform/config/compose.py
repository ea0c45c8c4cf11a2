"""Compose a run's configuration from defaults, preset, files and flags.

The sources are merged as dictionaries, and the result is built and checked once.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from avplatform.config.flag_help import ABOUT, default_hint, show_help
from avplatform.config.help import short_flags
from avplatform.config.presets import preset_options
from avplatform.config.run import FOLLOW, LABELS, RunConfig, default_config, option_names
from avplatform.config.values import Options, build, flat, load_yaml, merge, reason_refused, typed
from avplatform.models.errors import DataError, UsageError
from avplatform.models.paths import expanded
from avplatform.models.typed_values import field_kinds

CELL = ("task", "encoder", "decoder", "supervision")
Layer = tuple[str, Options]
"""A source of options: its name in error messages, and its options."""


def parse(args: Sequence[str], *, prog: str = "train.py") -> RunConfig:
    """Return the RunConfig of a command line: defaults, then preset, then --config, then flags.

    Raises:
        UsageError: a name, value or combination of options is wrong.
        DataError: a config file or run folder cannot be read.
    """
    given = peek(args, (*CELL, "preset", "config", "resume"))
    if given.get("resume"):
        return _resumed(args, given["resume"], prog=prog)
    layers = [file_layer(given["config"])] if given.get("config") else []
    layers = _with_preset(layers, given)
    cls, options = _merged(layers, given)
    config = build(cls, _with_flags(cls, options, args, prog))
    return _left_open(config, layers, peek(args, (*FOLLOW, LABELS)))


def file_layer(path: str | Path) -> Layer:
    """Return the options in a YAML file or run folder, without those of a single command.

    Raises:
        DataError: the file does not exist, or is not a YAML mapping.
    """
    own = option_names(of_command=True)
    return str(path), {name: v for name, v in load_yaml(path).items() if name not in own}


def compose(*layers: Layer) -> RunConfig:
    """Return the configuration of layers of options over the defaults of their cell.

    Each layer overrides the ones before. A preset that the first layer names comes between the
    defaults and the layers.

    Raises:
        UsageError: a name, value or combination of options is wrong.
    """
    layers = tuple(_with_preset(layers, {}))
    return _left_open(build(*_merged(layers, {})), layers)


def _left_open(
    config: RunConfig, layers: Sequence[Layer], flags: Collection[str] = ()
) -> RunConfig:
    """Return a configuration that knows which options neither a layer nor a flag has set."""
    given = {name for _, values in layers for name in flat(values)} | set(flags)
    config.left_open = frozenset(FOLLOW) - given
    config.labels_left_open = LABELS not in given
    return config


def stored_config(folder: str | Path) -> RunConfig:
    """Return the configuration that a run's folder holds; missing options get defaults.

    Raises:
        DataError: the folder holds no configuration that can be read.
        UsageError: an option no longer exists, or its value is wrong.
    """
    values = {**load_yaml(folder), "resume": None, "dry_run": False}
    return build(*_merged([(f"{folder}/config.yaml", values)], {}))


def changed_options(config: RunConfig, values: Options, *, where: str) -> Options:
    """Return a configuration's options overridden by `values`, which errors call `where`.

    Raises:
        UsageError: a name is unknown, or a value has the wrong type.
    """
    return merge(dataclasses.asdict(config), typed(type(config), values, where=where))


def peek(args: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Return the values of some flags (`--name value`, `--name=value`); parse no others."""
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
    """Return the layers, preceded by the preset that the flags or the first layer name."""
    preset = given.get("preset") or (layers[0][1].get("preset") if layers else None)
    if not preset or not isinstance(preset, str):  # `typed` refuses a wrong type later
        return list(layers)
    options = preset_options(preset)
    wanted = {**{k: v for _, values in layers for k, v in values.items() if k in CELL}, **given}
    for name in CELL:
        if wanted.get(name, options[name]) != options[name]:
            raise UsageError(
                f"preset {preset} is for {name} {options[name]}, not {wanted[name]}; "
                "leave one of them out"
            )
    return [(f"preset {preset}", options), *layers]


def _merged(layers: Sequence[Layer], given: Mapping[str, str]) -> tuple[type[RunConfig], Options]:
    """Return the config class of the layers' cell, and its defaults with the layers over them."""
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
    """Return the configuration of a resumed run, with the flags that may change it."""
    if not expanded(path).is_dir():
        raise DataError(f"--resume {path}: there is no such run folder")
    stored = stored_config(path)
    return resumed_with(stored, _with_flags(type(stored), dataclasses.asdict(stored), args, prog))


def resumed_with(stored: RunConfig, options: Options) -> RunConfig:
    """Return the configuration of a resumed run with all its options, of which some have changed.

    Raises:
        UsageError: an option has changed that a resumed run must keep, or a value is wrong.
    """
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
    return build(type(stored), options)


def _with_flags(cls: type[RunConfig], options: Options, args: Sequence[str], prog: str) -> Options:
    """Return options overridden by a command line's flags, whose help shows them as defaults.

    `--help` shows the common options and those of the cell, `--help-all` shows all.
    """
    task_options = field_kinds(cls)["task_config"]  # type: ignore[arg-type]
    for flag in (arg.partition("=")[0] for arg in args if arg.startswith("--task-config.")):
        if why := reason_refused(task_options, flag.partition(".")[2]):
            raise UsageError(f"unknown option {flag}{why}")
    if "--help-all" in args:
        args = ["--help"]
    elif {"-h", "--help"} & set(args):
        with contextlib.suppress(UsageError):  # nothing is hidden where a file is to be mended
            show_help(short_flags(build(cls, options)), prog)
    flags = _unchecked(cls)
    found = tyro.cli(
        flags, default=build(flags, options), args=list(args), prog=prog, description=ABOUT
    )
    return dataclasses.asdict(found)


def _unchecked(cls: Any) -> Any:
    """Return a subclass of dataclass `cls` without checks, nested dataclasses included.

    Flags are parsed with it, because a flag may correct a wrong value from a file.
    """
    kinds, fields = field_kinds(cls), list[tuple[str, Any, Any]]()
    for known in dataclasses.fields(cls):
        kind: Any = kinds[known.name]
        made: dict[str, Any] = {"default": known.default}
        if known.default is dataclasses.MISSING:
            made = {"default_factory": known.default_factory}
        if dataclasses.is_dataclass(kind):
            kind = _unchecked(kind)
            made = {"default_factory": kind}
        elif known.default is None:
            kind = Annotated[kind, tyro.conf.arg(help_behavior_hint=default_hint)]
        fields.append((known.name, kind, dataclasses.field(**made)))
    return dataclasses.make_dataclass(
        cls.__name__,
        fields,
        bases=(cls,),
        namespace={"__doc__": cls.__doc__, "__post_init__": lambda self: None},
        kw_only=True,
        frozen=cls.__dataclass_params__.frozen,
    )
