"""values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from avplatform.config.run import RunConfig
from avplatform.models.errors import DataError, UsageError, nearest
from avplatform.models.typed_values import KindError, convert_field


def as_yaml(config: RunConfig) -> str:
    """Return a config as the YAML that --config reads."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def apply(config: RunConfig, values: dict[str, Any], *, where: str) -> RunConfig:
    """Return a copy of `config` with nested `values` put in; `where` names their source in errors.

    Raises:
        UsageError: an unknown name, with the nearest right one, or a value of the wrong kind.
    """
    return _apply(config, values, where=where, prefix="")


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Return a YAML-ready dictionary."""
    return _plain(dataclasses.asdict(config))


def flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested options as one level of names with dots.

    Example:
        >>> flat({"seed": 1, "optim": {"lr": 0.1}})
        {'seed': 1, 'optim.lr': 0.1}
    """
    out: dict[str, Any] = {}
    for name, value in options.items():
        out |= (
            flat(value, f"{prefix}{name}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{name}": value}
        )
    return out


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read options from a YAML file or from a run folder's config.yaml.

    Raises:
        DataError: no such file, or not a YAML mapping.
    """
    path = Path(path)
    file = path / "config.yaml" if path.is_dir() else path
    if not file.is_file():
        raise DataError(
            f"no configuration at {file}; give a YAML file or a run folder that holds config.yaml"
        )
    try:
        values = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise DataError(f"{file} must hold a mapping of options, such as 'task: avel'")
    if _holds_itself(values, set(), set()):
        raise DataError(f"{file} holds an alias (*name) inside what it stands for; write it out")
    return values


def _holds_itself(value: Any, above: set[int], seen: set[int]) -> bool:
    """Whether a value of a YAML file contains itself, by way of an anchor."""
    if not isinstance(value, (dict, list)) or id(value) in seen:
        return id(value) in above
    seen.add(id(value))
    inner = value.values() if isinstance(value, dict) else value
    return any(_holds_itself(v, above | {id(value)}, seen) for v in inner)


def _apply(config: Any, values: dict[str, Any], *, where: str, prefix: str) -> Any:
    names = [f.name for f in dataclasses.fields(config)]
    changes: dict[str, Any] = {}
    for name, value in values.items():
        key = str(name).replace("-", "_")
        if key not in names:
            raise UsageError(f"{where}: unknown option '{prefix}{name}'{nearest(key, names)}")
        current = getattr(config, key)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, dict):
                raise UsageError(
                    f"{where}: '{prefix}{name}' holds several options; write them as a mapping, not {value!r}"
                )
            changes[key] = _apply(current, value, where=where, prefix=f"{prefix}{name}.")
        else:
            try:
                changes[key] = convert_field(type(config), key, value)
            except KindError as error:
                raise UsageError(f"{where}: option '{prefix}{name}' is {error}") from None
    return dataclasses.replace(config, **changes)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def merge(base: Options, extra: Options) -> Options:
    """Return `base` with `extra` put over it, nested mappings merged."""
    out = dict(base)
    for key, value in extra.items():
        out[key] = (
            merge(out[key], value)
            if isinstance(value, dict) and isinstance(out.get(key), dict)
            else value
        )
    return out


def nest(options: dict[Any, Any], *, where: str) -> Options:
    """Return options with dotted names unfolded: {"optim.lr": 1} -> {"optim": {"lr": 1}}."""
    out: Options = {}
    for name, value in options.items():
        inner = nest(value, where=where) if isinstance(value, dict) else value
        for part in reversed(str(name).replace("-", "_").split(".")):
            if not part:
                raise UsageError(f"{where}: '{name}' is no name of an option")
            inner = {part: inner}
        out = merge(out, inner)
    return out


Options = dict[str, Any]
