"""Options for events that a user lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from avplatform.data.adapters.table.splits import DEFAULT_SHARES, parse_shares
from avplatform.models.checks import at_least, check_choices, in_range
from avplatform.models.errors import UsageError
from avplatform.tasks.avvp import AVVP

DEFAULT_TASK = AVVP.name
"""The task of listed events where nobody says one: it keeps apart what is heard and seen."""


@dataclass(kw_only=True)
class EventOptions:
    """How listed events become labels of clips."""

    events: tuple[str, ...] = ()
    """events: tables (csv, tsv, parquet, JSON), files of ELAN, Audacity, VIA, sed_eval or WebVTT"""
    listed: Annotated[tuple[str, ...], tyro.conf.arg(name="videos")] = ()
    """events: lists of videos that may have no event at all, one name a line"""
    separator: str | None = None
    """events: what separates several labels of a cell; default: ; and |, and , under "labels\""""
    segment: float = 1.0
    """events: length of a segment in seconds"""
    covered: float = 0.5
    """events: share of a segment that an event has to cover to be in it"""
    beyond: Literal["cut", "refuse"] = "cut"
    """events: one that ends after its video is cut (and listed), or the video is left out"""
    seed: int = 0
    """events: seed of the splits"""


@dataclass(kw_only=True)
class TableOptions(EventOptions):
    """Import options of listed events, for features that were extracted before."""

    task: str | None = None
    """events: task that the labels are for; default: that of the store, and avvp for folders"""
    segments: int | None = None
    """events: segments per clip; default: those of the store, or 10"""
    split: str | None = None
    """events: a split for all, or shares by video; default: the column, the store's, 0.8,0.1,0.1"""


def check_events(options: Any) -> None:
    """Raise UsageError where an option of events has an impossible value, or does nothing."""
    in_range(options, "segment", 0.01, 3600)
    if not options.events:
        plain = EventOptions()
        for name in vars(plain):
            if name != "segment" and getattr(options, name) != getattr(plain, name):
                flag = {"listed": "videos"}.get(name, name)
                raise UsageError(f"--{flag} is for events; give them with --events")
        return
    at_least(options, "seed", 0)
    in_range(options, "covered", 0.001, 1)
    check_choices_of(options)
    if options.separator is not None and not options.separator.strip():
        raise UsageError("--separator is empty; give the text that separates labels, such as ,")
    if options.split is not None and "," in options.split:
        parse_shares(options.split)


def check_choices_of(options: Any) -> None:
    """Check the choices of `EventOptions` alone, in options that hold others too."""
    names = vars(EventOptions())
    check_choices(EventOptions(**{name: getattr(options, name) for name in names}))


__all__ = ["DEFAULT_SHARES", "DEFAULT_TASK", "EventOptions", "TableOptions", "check_events"]
