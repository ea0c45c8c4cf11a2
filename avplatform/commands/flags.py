"""Parse the flags of a command into its options."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import tyro

Options = TypeVar("Options")


def parse_flags(kind: type[Options], args: Sequence[str], prog: str, **more: Any) -> Options:
    """Return the options that the flags give, or exit with tyro's message.

    Args:
        kind: dataclass of the options; its docstrings are the help.
        args: arguments of the command line.
        prog: name of the command in the help.
        more: further arguments of `tyro.cli`.
    """
    for part in filter(dataclasses.is_dataclass, kind.__mro__):
        _hide_unset(part)
    return tyro.cli(kind, args=list(args), prog=prog, **more)


def _hide_unset(kind: type) -> None:
    """Leave "(default: None)" out of a dataclass's help, whose texts say what the default does."""
    own = kind.__dict__.get("__annotations__", {})
    unset = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is None and field.name in own
    ]
    if any(isinstance(own[name], str) for name in unset):
        hints = typing.get_type_hints(kind, include_extras=True)
        for name in unset:
            own[name] = Annotated[hints[name], tyro.conf.arg(help_behavior_hint="")]
