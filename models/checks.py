"""Checks of the fields of a config, with errors that name the field, its value and what is allowed."""

from __future__ import annotations

import math
import typing
from typing import Any

from avplatform.models.errors import UsageError, nearest

# Far above what anybody trains, so that a hostile config cannot exhaust memory.
WIDTH, DEPTH, MAP_EDGE = 2**16, 128, 256


def at_least(config: Any, name: str, low: float) -> None:
    """Check `config.name >= low`; the error names the field, the value and the bound."""
    value = getattr(config, name)
    if not _is_number(value) or not low <= value < math.inf:
        what = "finite" if value == math.inf else f"at least {low}"
        raise UsageError(f"{type(config).__name__}.{name} is {value!r}; it must be {what}")


def sizes(config: Any, *names: str, most: int = WIDTH) -> None:
    """Check that these fields are whole numbers from 1 to `most`, or None."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not (
            _is_number(value) and isinstance(value, int) and 1 <= value <= most
        ):
            raise UsageError(
                f"{type(config).__name__}.{name} is {value!r}; it must be a whole number from 1 to {most}"
            )


def in_range(config: Any, name: str, low: float, high: float) -> None:
    """Check `low <= config.name <= high`."""
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
            raise UsageError(f"{type(config).__name__}.{name} is {value!r}; it must be a number")


def one_of(config: Any, name: str, choices: typing.Sequence[Any]) -> None:
    """Check that `config.name` is one of the choices, with the nearest one in the error."""
    value = getattr(config, name)
    if value not in choices:
        hint = (
            nearest(value, [c for c in choices if isinstance(c, str)])
            if isinstance(value, str)
            else ""
        )
        raise UsageError(
            f"{type(config).__name__}.{name} is {value!r}{hint}; choose from {', '.join(map(str, choices))}"
        )


def divides(config: Any, part: str, whole: int, what: str) -> None:
    """Check that `config.part` divides `whole`."""
    if whole % getattr(config, part):
        raise UsageError(
            f"{type(config).__name__}.{part} is {getattr(config, part)}; it must divide {what} ({whole})"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
