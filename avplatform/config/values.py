"""Options as nested dictionaries: read, merged, converted to types, built into a dataclass."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from avplatform.models.config import plain
from avplatform.models.contracts import Options
from avplatform.models.errors import DataError, UsageError, nearest, one_line
from avplatform.models.paths import expanded
from avplatform.models.typed_values import KindError, convert_field, field_kinds

Config = TypeVar("Config")


def as_yaml(options: Options) -> str:
    """Return options as the text of a YAML file that --config reads."""
    return yaml.safe_dump(options, sort_keys=False, allow_unicode=True)


def typed(cls: type, values: Options, *, where: str, prefix: str = "") -> Options:
    """Return nested options of dataclass `cls`, converted to their types; nothing is built yet.

    Raises:
        UsageError: a name is unknown (the message names the nearest one), or a value has the wrong
            type; the message starts with `where`.
    """
    kinds, out = field_kinds(cls), Options()
    for name, value in values.items():
        key = str(name).replace("-", "_")
        if key not in kinds:
            why = reason_refused(cls, key) or nearest(key, kinds)
            raise UsageError(f"{where}: unknown option '{prefix}{name}'{why}")
        if not dataclasses.is_dataclass(kinds[key]):
            try:
                out[key] = convert_field(cls, key, value)
            except KindError as error:
                raise UsageError(f"{where}: option '{prefix}{name}' is {error}") from None
        elif isinstance(value, dict):
            out[key] = typed(kinds[key], value, where=where, prefix=f"{prefix}{name}.")
        else:
            raise UsageError(
                f"{where}: '{prefix}{name}' holds several options; "
                f"write them as a mapping, not {value!r}"
            )
    return out


def reason_refused(cls: type, name: str) -> str:
    """Return why a dataclass has not got an option that others have, as the end of a message."""
    reason = getattr(cls, "refused", {}).get(name.replace("-", "_"))
    return f": {reason}" if reason else ""


def build(cls: type[Config], options: Options) -> Config:
    """Build dataclass `cls`, nested dataclasses included, from the options that `typed` returned.

    The dataclasses check their values on creation; nothing else checks options.

    Raises:
        UsageError: a value or a combination of values is wrong.
    """
    kinds = field_kinds(cls)  # type: ignore[arg-type]
    return cls(
        **{
            name: build(kinds[name], value) if dataclasses.is_dataclass(kinds[name]) else value
            for name, value in options.items()
        }
    )


def to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as a dictionary that YAML can hold."""
    return plain(dataclasses.asdict(config))


def flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested options as one flat dictionary with dotted names.

    Examples:
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
        DataError: the file does not exist, or is not a YAML mapping.
    """
    path = expanded(path)
    file = path / "config.yaml" if path.is_dir() else path
    if not file.is_file():
        raise DataError(
            f"there is no configuration at {file}; give a YAML file or a run folder that holds "
            "config.yaml"
        )
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is not valid YAML: {one_line(error, 300)}") from None
    if not isinstance(values, dict):
        raise DataError(f"{file} must hold a mapping of options, such as 'task: avel'")
    if _holds_itself(values, set(), set()):
        raise DataError(
            f"{file} holds an alias (*name) inside the value that it refers to; "
            "write the value out instead"
        )
    return values


def _holds_itself(value: Any, above: set[int], seen: set[int]) -> bool:
    """Return whether a value of a YAML file contains itself through an alias."""
    if not isinstance(value, (dict, list)) or id(value) in seen:
        return id(value) in above
    seen.add(id(value))
    inner = value.values() if isinstance(value, dict) else value
    return any(_holds_itself(v, above | {id(value)}, seen) for v in inner)


def merge(base: Options, extra: Options) -> Options:
    """Return `base` overridden by `extra`; nested mappings are merged."""
    out = dict(base)
    for key, value in extra.items():
        out[key] = (
            merge(out[key], value)
            if isinstance(value, dict) and isinstance(out.get(key), dict)
            else value
        )
    return out


def nest(options: dict[Any, Any], *, where: str) -> Options:
    """Return options with dotted names nested: {"optim.lr": 1} -> {"optim": {"lr": 1}}."""
    out: Options = {}
    for name, value in options.items():
        inner = nest(value, where=where) if isinstance(value, dict) else value
        for part in reversed(str(name).replace("-", "_").split(".")):
            if not part:
                raise UsageError(f"{where}: '{name}' is not the name of an option")
            inner = {part: inner}
        out = merge(out, inner)
    return out
