"""Conversion of values from YAML and JSON files to the types of dataclass fields."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from functools import cache
from typing import Any

from avplatform.models.errors import DataError, nearest


class KindError(ValueError):
    """A value does not have the type of its field."""


def build(cls: type, data: dict[str, Any]) -> Any:
    """Build the dataclass `cls`, with its nested dataclasses, from a mapping of a JSON file.

    Raises:
        DataError: an unknown or missing field, or a value of the wrong type; names the field.
    """
    names = [f.name for f in dataclasses.fields(cls)]
    values = {}
    for key, value in data.items():
        if key == "_type":
            continue
        if key not in names:
            raise DataError(
                f"{cls.__name__} has no field '{key}'{nearest(key, names)} "
                f"(fields: {', '.join(names)})"
            )
        try:
            values[key] = convert_field(cls, key, value)
        except KindError as error:
            raise DataError(f"{cls.__name__}.{key} is {error}") from None
    try:
        return cls(**values)
    except TypeError as error:
        raise DataError(f"{cls.__name__} cannot be built: {error}") from None


def convert_field(cls: type, name: str, value: Any) -> Any:
    """Return `value` as the field `name` of the dataclass `cls` keeps it.

    Raises:
        KindError: it has the wrong type; names the value and the type.
        DataError: as `convert`.
    """
    try:
        return convert(field_kinds(cls)[name], value)
    except KindError:
        kind = next(f.type for f in dataclasses.fields(cls) if f.name == name)
        raise KindError(f"{value!r}; it must be of kind {kind}") from None


@cache
def field_kinds(cls: type) -> dict[str, Any]:
    """Return the types of the fields of a dataclass by name."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def convert(kind: Any, value: Any) -> Any:
    """Return `value` as a field of type `kind` keeps it.

    YAML 1.1 reads 1e-4 as a string and off as False: both are converted to what was meant. A string
    that a Literal does not list is passed through, because the field's own check names the nearest
    right value.

    Raises:
        KindError: it has the wrong type.
        DataError: it is a mapping that does not fit its dataclass.

    Examples:
        >>> convert(float | None, "1e-4"), convert(tuple[int, ...], [1, 2])
        (0.0001, (1, 2))
        >>> convert(typing.Literal["off", "paper"], False)
        'off'
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return _first(parts, value)
    if origin is typing.Literal:
        return _choice(parts, value)
    if tuple in (kind, origin):
        return _tuple(parts or (Any, ...), value)
    if origin is list and parts and isinstance(value, list):
        return [convert(parts[0], item) for item in value]
    if origin is dict and parts and isinstance(value, dict):
        return {convert(parts[0], key): convert(parts[1], item) for key, item in value.items()}
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return build(kind, value)  # type: ignore[arg-type]
    if kind is float:
        return _number(value)
    plain = origin or kind
    if not isinstance(plain, type):  # such as a type variable, which cannot be checked
        return value
    if not isinstance(value, plain) or (isinstance(value, bool) and plain is not bool):
        raise KindError
    return value


def _first(kinds: tuple[Any, ...], value: Any) -> Any:
    for kind in kinds:
        try:
            return convert(kind, value)
        except KindError:
            continue
    raise KindError


def _choice(known: tuple[Any, ...], value: Any) -> Any:
    if isinstance(value, bool) and value not in known:
        value = "on" if value else "off"
        if value not in known:
            raise KindError
    elif not isinstance(value, str) and value not in known:
        raise KindError
    return value


def _tuple(kinds: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise KindError
    if kinds[-1] is Ellipsis:
        return tuple(convert(kinds[0], item) for item in value)
    if len(value) != len(kinds):
        raise KindError
    return tuple(convert(kind, item) for kind, item in zip(kinds, value, strict=True))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise KindError
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise KindError from None
    if not math.isfinite(number):
        raise KindError
    return number
