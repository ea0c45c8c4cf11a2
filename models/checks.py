"""Checks of config fields; the errors name the field, its value and what is allowed."""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from typing import Any

from avplatform.models.errors import UsageError, nearest
from avplatform.models.paths import URL, url_refused
from avplatform.models.typed_values import field_kinds

# Far above any size that is trained, so that a hostile config cannot exhaust the memory.
WIDTH, DEPTH, MAP_EDGE = 2**16, 128, 256
MAY_BE_URL = "may be a URL"
"""What a field that takes URLs too is annotated with; see `no_urls`."""
NAMED_URL = re.compile(rf"(?:[\w-]+[=:])?({URL.pattern})")


def at_least(config: Any, names: str | tuple[str, ...], low: float) -> None:
    """Check that these fields are finite numbers of at least `low`."""
    for name in (names,) if isinstance(names, str) else names:
        value = getattr(config, name)
        if not _is_number(value) or not low <= value < math.inf:
            raise _wrong(config, name, "finite" if value == math.inf else f"at least {low}")


def sizes(config: Any, *names: str, most: int = WIDTH) -> None:
    """Check that these fields are whole numbers from 1 to `most`, or None."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not (
            _is_number(value) and isinstance(value, int) and 1 <= value <= most
        ):
            raise _wrong(config, name, f"a whole number from 1 to {most}")


def in_range(config: Any, names: str | tuple[str, ...], low: float, high: float) -> None:
    """Check that these fields are numbers from `low` to `high`."""
    for name in (names,) if isinstance(names, str) else names:
        value = getattr(config, name)
        if not _is_number(value) or not low <= value <= high:
            raise UsageError(
                f"{type(config).__name__}.{name} is {value!r}; it must lie between {low} and {high}"
            )


def finite(config: Any, *names: str) -> None:
    """Check that these fields are finite numbers, or None."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not (_is_number(value) and math.isfinite(value)):
            raise _wrong(config, name, "a number")


def check_choices(config: Any) -> None:
    """Check that each field of a Literal type has one of its values, or None where that is allowed.

    The message suggests the nearest value.
    """
    kinds: dict[str, Any] = field_kinds(type(config))  # type: ignore[arg-type]
    for name, kind in kinds.items():
        parts, value = typing.get_args(kind), getattr(config, name)
        if value is None and type(None) in parts:
            continue
        literal = parts[0] if type(None) in parts else kind
        choices = typing.get_args(literal)
        if typing.get_origin(literal) is typing.Literal and value not in choices:
            hint = nearest(value, choices) if isinstance(value, str) else ""
            raise UsageError(
                f"{type(config).__name__}.{name} is {value!r}{hint}; "
                f"choose from {', '.join(map(str, choices))}"
            )


def no_urls(config: Any, prefix: str = "") -> None:
    """Check that no text of a dataclass is a URL, nor NAME=URL, which would be taken for a path.

    Those of a field `Annotated[str, MAY_BE_URL]` are not checked; nested dataclasses are.

    Args:
        config: the dataclass.
        prefix: what stands before the names of its fields in the message.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            no_urls(value, f"{prefix}{field.name}.")
        for text in value if isinstance(value, (list, tuple)) else [value]:
            found = NAMED_URL.fullmatch(text) if isinstance(text, str) else None
            if found:
                hint = typing.get_type_hints(type(config), include_extras=True)[field.name]
                if MAY_BE_URL not in getattr(hint, "__metadata__", ()):
                    name = f"{prefix}{field.name}".strip("_").replace("_", "-")
                    raise url_refused(found[1], f"option {name}: ")


def divides(config: Any, part: str, whole: int, what: str) -> None:
    """Check that `config.part` divides `whole`."""
    if whole % getattr(config, part):
        raise UsageError(
            f"{type(config).__name__}.{part} is {getattr(config, part)}; "
            f"it must divide {what} ({whole})"
        )


def _wrong(config: Any, name: str, right: str) -> UsageError:
    value = getattr(config, name)
    return UsageError(f"{type(config).__name__}.{name} is {value!r}; it must be {right}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_part(part: type, base: type, *needed: str) -> None:
    """Raise UsageError unless `part` is a subclass of `base` that defines the needed attributes."""
    if not (isinstance(part, type) and issubclass(part, base)):
        raise UsageError(f"{part!r} is not a subclass of {base.__name__}; derive the part from it")
    missing = []
    for name in needed:
        own, inherited = getattr(part, name, None), getattr(base, name, None)
        if own is inherited:
            about = (inherited.__doc__ or "").strip().splitlines()[:1] if inherited else []
            missing.append(" ".join([f"`{name}`", *(f"({line.rstrip('.')})" for line in about)]))
    if missing:
        raise UsageError(
            f"{part.__name__} does not define {', '.join(missing)}; "
            f"see the docstring of {base.__name__}"
        )
