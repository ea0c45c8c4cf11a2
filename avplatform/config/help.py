"""Which options `train --help` shows: the common ones, and those that the chosen cell reads."""

from __future__ import annotations

import copy
import dataclasses
import types
import typing
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import docstring_parser

from avplatform.config.run import RunConfig
from avplatform.config.values import flat
from avplatform.models.decoders import DECODERS
from avplatform.models.errors import UsageError
from avplatform.models.typed_values import field_kinds
from avplatform.tasks.registry import TASKS

COMMON = frozenset(
    {
        *("task", "encoder", "decoder", "supervision", "data", "init_from", "held_out", "seed"),
        *("epochs", "max_steps", "batch_size", "num_workers", "output_dir", "resume", "streaming"),
        *("preset", "config", "cpu", "dry_run", "precision", "optim.lr", "checkpointing.every"),
    }
)
"""Options of runs in general that the short help shows."""
PARTS = ("encoder_config", "decoder_config", "task_config")


def short_flags(config: RunConfig) -> dict[str, Any]:
    """Return the options that the short help shows, as the plain values that `show_help` prints.

    Raises:
        UsageError: the cell does not accept `config` itself.
    """
    hidden = hidden_options(config)
    first: dict[str, Any] = {"name": "", "about": type(config).__doc__, "flags": []}
    groups = [first]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not dataclasses.is_dataclass(value):
            first["flags"] += _flags(config, [field.name], hidden, "")
            continue
        names = [option.name for option in dataclasses.fields(value)]
        if flags := _flags(value, names, hidden, f"{field.name}."):
            known = _texts(type(config))  # type: ignore[arg-type]
            about = known.get(field.name) or type(value).__doc__
            groups.append({"name": field.name, "about": about, "flags": flags})
    cell = [config.task, config.encoder, config.decoder, config.supervision]
    return {"cell": cell, "hidden": len(hidden), "groups": groups}


def _flags(
    options: Any, names: list[str], hidden: frozenset[str], prefix: str
) -> list[dict[str, Any]]:
    """Return those of a dataclass's options that are shown: name, type, default and text."""
    kinds = field_kinds(type(options))  # type: ignore[arg-type]
    texts = _texts(type(options))  # type: ignore[arg-type]
    return [
        {
            "name": name,
            "kind": _plain_kind(kinds[name]),
            "default": getattr(options, name),
            "about": texts.get(name),
        }
        for name in names
        if f"{prefix}{name}" not in hidden
    ]


@cache
def _texts(kind: type) -> dict[str, str]:
    """Return the text below each field of a dataclass and of those that it derives from."""
    found: dict[str, str] = {}
    for part in filter(dataclasses.is_dataclass, reversed(kind.__mro__)):
        for param in docstring_parser.parse_from_object(part).params:
            found[param.arg_name] = " ".join((param.description or "").split())
    return found


def _plain_kind(kind: Any) -> Any:
    """Return a type as plain values, see `avplatform.config.flag_help.kind_of`."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return {"choices": list(inner)}
    if origin in (typing.Union, types.UnionType):
        (one,) = (part for part in inner if part is not type(None))
        return {"or_none": _plain_kind(one)}
    if origin is tuple:
        return {"items": ["..." if part is ... else _plain_kind(part) for part in inner]}
    return kind.__name__


def hidden_options(config: RunConfig) -> frozenset[str]:
    """Return the dotted names of the options that the short help leaves out.

    Of the options of encoder, decoder and task, it shows those of which the cell accepts more than
    one value while all others keep the values of `config`. Of all other options it shows the
    common ones, and the label embeddings where the decoder queries label texts.

    Raises:
        UsageError: the cell does not accept `config` itself.
    """
    _check(config)
    return frozenset(
        name for name in flat(dataclasses.asdict(config)) if not _is_shown(config, name)
    )


def _is_shown(config: RunConfig, name: str) -> bool:
    group, _, option = name.rpartition(".")
    if name == "labels.embeddings":
        return DECODERS[config.decoder].needs_labels
    if group not in PARTS:
        return name in COMMON
    if name == "task_config.supervision":  # --supervision sets it
        return False
    return any(_accepts(config, group, change) for change in _changes(config, group, option))


def _check(config: RunConfig) -> None:
    """Raise UsageError if options of encoder, decoder and task contradict each other."""
    task = TASKS[config.task](config.task_config, classes=("-",))
    task.check(config.encoder, config.decoder, config.encoder_config, config.decoder_config)


def _accepts(config: RunConfig, group: str, change: Callable[[], Any]) -> bool:
    """Return whether the cell accepts the options of a part with a change."""
    other = copy.copy(config)
    try:
        setattr(other, group, change())
        _check(other)
    except UsageError:
        return False
    return True


def _changes(config: RunConfig, group: str, option: str) -> Iterator[Callable[[], Any]]:
    """Yield functions that return the options of a part with another value of one of them.

    The options of the task must also fit its supervision. Those of encoder and decoder need not fit
    each other, since a user may change several.
    """
    part = getattr(config, group)
    options: Any = type(part)
    kind, value = field_kinds(options)[option], getattr(part, option)
    others: tuple[Any, ...] = ("other",)
    if typing.get_origin(kind) is typing.Literal:
        others = typing.get_args(kind)
    elif isinstance(value, (bool, int, float)):
        others = (not value,) if isinstance(value, bool) else (value + 1,)
    choice = typing.get_origin(kind) is typing.Literal or isinstance(value, bool)
    for other in others:
        if other != value and choice and group == "task_config":
            yield partial(dataclasses.replace, part, **{option: other})
        elif other != value:
            yield partial(_unchecked_copy, part, option, other)


def _unchecked_copy(part: Any, option: str, value: Any) -> Any:
    """Return a copy of a part's options with another value of one, of which it need not approve."""
    changed = copy.copy(part)
    object.__setattr__(changed, option, value)
    return changed
