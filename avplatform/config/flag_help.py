"""The help of `train` from plain values, which need neither the models nor torch to be imported.

`avplatform.config.help` makes these values from a configuration; those of every cell and preset are
kept with the package (`avplatform.catalogue.kept`).
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal, NoReturn

import tyro

ABOUT = (
    "Train, evaluate and save a model. The defaults shown are those of the chosen --task, "
    "--encoder, --decoder, --preset and --config. --job FLAVOR --job-repo OWNER/NAME trains on a "
    "machine of the Hub instead (docs/where.md)."
)
PLAIN = {"str": str, "int": int, "float": float, "bool": bool}


def show_help(flags: dict[str, Any], prog: str) -> NoReturn:
    """Print the help of some options and end the program, as tyro does.

    Args:
        flags: "cell", the names of task, encoder, decoder and supervision; "hidden", the number of
            options that are left out; "groups", as `short_flags` makes them.
        prog: name of the program.
    """
    task, encoder, decoder, supervision = flags["cell"]
    about = (
        f"{ABOUT} These are the common options and those of {encoder} + {decoder} on {task} "
        f"({supervision}); --help-all shows {flags['hidden']} more."
    )
    first, *groups = flags["groups"]
    inner = [(group["name"], _options(group)) for group in groups]
    tyro.cli(_options(first, inner), args=["--help"], prog=prog, description=about)
    raise SystemExit(0)


def default_hint(default: str) -> str:
    """Return what the help says of a default; texts of options say what "None" does."""
    return "" if default == "None" else f"(default: {default})"


def kind_of(facts: Any) -> Any:
    """Return the type of an option from plain values.

    Examples:
        >>> kind_of({"or_none": {"items": ["int", "..."]}}) == (tuple[int, ...] | None)
        True
    """
    if isinstance(facts, str):
        return PLAIN[facts]
    (form, inner), *_ = facts.items()
    if form == "or_none":
        return kind_of(inner) | None
    if form == "items":
        return tuple[tuple(... if one == "..." else kind_of(one) for one in inner)]  # type: ignore[misc]
    return Literal[tuple(inner)]


def _options(group: dict[str, Any], inner: Any = ()) -> type:
    """Return a dataclass with the options of a group, and with further groups inside it."""
    fields: list[tuple[str, Any, Any]] = []
    for flag in group["flags"]:
        told: dict[str, Any] = {"help": flag["about"]}
        value = flag["default"]
        if value is None:
            told["help_behavior_hint"] = default_hint
        kind: Any = kind_of(flag["kind"])
        kind = Annotated[kind, tyro.conf.arg(**told)]
        value = tuple(value) if isinstance(value, list) else value
        fields.append((flag["name"], kind, dataclasses.field(default=value)))
    fields += [(name, kind, dataclasses.field(default_factory=kind)) for name, kind in inner]
    made = dataclasses.make_dataclass("Options", fields, kw_only=True)
    made.__doc__ = group["about"]
    return made
