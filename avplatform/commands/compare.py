"""`avplatform compare`: compare finished runs with each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from avplatform.base.console import Console
from avplatform.base.files import give_json
from avplatform.commands.flags import parse_flags
from avplatform.evaluation.bootstrap import check_resamples
from avplatform.evaluation.compare import compare
from avplatform.evaluation.compare_page import (
    figure_table,
    method,
    selection_table,
    test_table,
    write_comparison,
)
from avplatform.models.checks import at_least
from avplatform.models.paths import expanded


@dataclass(kw_only=True)
class CompareOptions:
    """Compare the first run to every other; runs that differ only in their seed count as one.

    Of such runs the mean and the spread are shown.
    """

    runs: Annotated[list[str], tyro.conf.Positional]
    """folders of finished runs of the same task and data"""
    out: str | None = None
    """folder for the page (Markdown), the numbers (JSON) and the pictures; default: print only"""
    split: Literal["validation", "test"] = "test"
    """split to compare on"""
    bootstrap: int = 1000
    """number of resamples of the videos"""
    seed: int = 0
    """seed of the resamples"""
    json: str | None = None
    """write all numbers to this file; without a name: print them as JSON, and nothing else"""


def run(args: list[str], prog: str) -> int:
    """Compare runs as the flags say."""
    options = parse_flags(CompareOptions, args, prog)
    check_resamples(options.bootstrap)
    at_least(options, "seed", 0)
    console = Console(enabled=options.json != "-")
    content = compare(
        options.runs, split=options.split, resamples=options.bootstrap, seed=options.seed
    )
    kind = " (SYNTHETIC features)" if content["synthetic"] else ""
    where = f"{content['split']} of {content['data']}{kind}, {content['clips']} clips, percent"
    columns, rows = figure_table(content)
    turned = [[name, *(row[at] for row in rows)] for at, name in enumerate(columns) if at]
    console.table(where, ["", *(row[0] for row in rows)], turned)
    for other in content["tests"]:
        console.table(
            f"{other}, minus {content['groups'][0]['label']}", *test_table(content, other)
        )
    if content["tests"]:
        console.note(method(content))
    if "selection_bias" in content:
        console.table("what picking the epoch on test adds", *selection_table(content))
    if options.out:
        for file in write_comparison(content, expanded(options.out)):
            console.note(f"wrote {file}")
    if options.json is not None:
        give_json(options.json, content)
    return 0
