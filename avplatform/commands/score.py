"""`avplatform score`: score the event lists of any system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from avplatform.base.console import Console
from avplatform.commands.flags import parse_flags
from avplatform.models.checks import finite, in_range


@dataclass(kw_only=True)
class ScoreListsOptions:
    """Score event lists of any system: F of segments and of events, as video parsing is scored.

    Both lists are read in every format of `avplatform data import`: tables (csv, tsv, parquet,
    JSON), files of ELAN, Audacity, VIA, sed_eval or WebVTT.
    """

    predictions: Annotated[str, tyro.conf.Positional]
    """predicted events: a list, a folder of lists, or the folder of `avplatform predict`"""
    truth: str
    """true events: a list or a folder of lists; a video without events is a row without a label"""
    segment: float = 1.0
    """length of a segment in seconds"""
    covered: float = 0.5
    """share of a segment that an event has to cover to be in it"""
    threshold: float | None = None
    """leave out predicted events whose score is lower; default: every listed event counts"""
    collar: float | None = None
    """seconds by which onsets may differ: adds F by sed_eval (DCASE: 0.2); default: left out"""
    separator: str | None = None
    """what separates several labels of a cell; default: ; and |, and , under "labels\""""
    json: str | None = None
    """write the figures to this file; without a name: print them as JSON, and nothing else"""


def run(args: list[str], prog: str) -> int:
    """Score lists as the flags say."""
    options = parse_flags(ScoreListsOptions, args, prog)
    in_range(options, "segment", 0.01, 3600)
    in_range(options, "covered", 0.001, 1)
    if options.collar is not None:
        in_range(options, "collar", 0, 3600)
    if options.threshold is not None:
        finite(options, "threshold")
    from avplatform.base.files import give_json
    from avplatform.evaluation.event_lists import collar_figures, read_lists, segment_figures

    console = Console(enabled=options.json != "-")
    lists = read_lists(
        options.predictions,
        options.truth,
        separator=options.separator,
        threshold=options.threshold,
    )
    content: dict[str, Any] = {
        "videos": len(lists.videos),
        "classes": lists.classes,
        "events": {
            "predicted": sum(map(len, lists.predicted.values())),
            "true": sum(map(len, lists.true.values())),
        },
        "segment": options.segment,
        "covered": options.covered,
        "threshold": options.threshold,
        "figures": segment_figures(lists, segment=options.segment, covered=options.covered),
    }
    if options.collar is not None:
        found = collar_figures(lists, collar=options.collar)
        content |= {"collar": options.collar, "collar_figures": found}
    content["remarks"] = lists.remarks
    title = f"{content['videos']} videos, {len(lists.classes)} classes, percent"
    figures = content["figures"]
    kinds = [name.removeprefix("segment_") for name in figures if name.startswith("segment_")]
    rows = [
        [level, *(f"{figures[f'{level}_{kind}']:.2f}" for kind in kinds)]
        for level in ("segment", "event")
    ]
    console.table(title, ["F", *kinds], rows)
    if options.collar is not None:
        names = list(next(iter(found.values())))
        rows = [
            [stream, *("-" if value is None else f"{value:.2f}" for value in values.values())]
            for stream, values in found.items()
        ]
        console.table(f"events, collar {options.collar:g} s (sed_eval)", ["stream", *names], rows)
    if len(lists.streams) == 1:
        console.note("no event names a stream: each counts as both heard and seen")
    for remark in lists.remarks:
        console.note(remark)
    if options.json:
        give_json(options.json, content)
    return 0
