"""Options as plain nested dictionaries: read, merged, made of the right kind, and built into a configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from avplatform.models.errors import DataError, UsageError, nearest
from avplatform.models.typed_values import KindError, convert_field, field_kinds

Options = dict[str, Any]
"""Options as a YAML file holds them: by name, groups nested."""
Config = TypeVar("Config")


def as_yaml(options: Options) -> str:
    """Return options as the text of a YAML file, such as --config reads."""
    return yaml.safe_dump(options, sort_keys=False, allow_unicode=True)


def typed(cls: type, values: Options, *, where: str, prefix: str = "") -> Options:
    """Return nested options of dataclass `cls`, each value of its option's kind; nothing is built or checked yet.

    Raises:
        UsageError: an unknown name, with the nearest right one, or a value of another kind; says where.
    """
    kinds, out = field_kinds(cls), Options()
    for name, value in values.items():
        key = str(name).replace("-", "_")
        if key not in kinds:
            raise UsageError(f"{where}: unknown option '{prefix}{name}'{nearest(key, kinds)}")
        if not dataclasses.is_dataclass(kinds[key]):
            try:
                out[key] = convert_field(cls, key, value)
            except KindError as error:
                raise UsageError(f"{where}: option '{prefix}{name}' is {error}") from None
        elif isinstance(value, dict):
            out[key] = typed(kinds[key], value, where=where, prefix=f"{prefix}{name}.")
        else:
            raise UsageError(
                f"{where}: '{prefix}{name}' holds several options; write them as a mapping, not {value!r}"
            )
    return out


def build(cls: type[Config], options: Options) -> Config:
    """Return dataclass `cls`, and those that it holds, of options that `typed` gave: the one place where they are checked.

    Raises:
        UsageError: a value, or a combination, that cannot be.
    """
    kinds = field_kinds(cls)  # type: ignore[arg-type]
    return cls(
        **{
            name: build(kinds[name], value) if dataclasses.is_dataclass(kinds[name]) else value
            for name, value in options.items()
        }
    )


def to_dict(config: Any) -> dict[str, Any]:
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
