"""`avplatform data import`: the official files of LLP or AVE made into a store."""

from __future__ import annotations

import sys

from avplatform.console import Bar, Console
from avplatform.data.importing.options import ImportOptions
from avplatform.flags import parse_flags


def run(args: list[str], prog: str) -> int:
    """Import; return 1 if a clip of the splits was left out (or, with --strict, would have been and nothing was written)."""
    options = parse_flags(ImportOptions, args, prog)
    from avplatform.cards import render_dataset_card
    from avplatform.data.importing import import_data
    from avplatform.data.importing.report import REPORT_FILE

    console = Console()
    try:
        with console.bar(f"import {options.dataset}", total=1) as bar:
            report = import_data(options, card=render_dataset_card, note=console.note, progress=_Advance(bar))
    except KeyboardInterrupt:
        print("stopped; the same command goes on after the last finished shard", file=sys.stderr)
        return 130
    for line in report.summary():
        console.note(line)
    if not report.written:
        console.note(f"nothing was written to {options.out} (--strict)")
        return 1
    counts = ", ".join(f"{split} {count}" for split, count in report.stored.items())
    console.note(f"wrote {options.out}: {counts}; {REPORT_FILE} lists what was left out and every defect")
    return 1 if report.bad else 0


class _Advance:
    """Moves a bar to the share of clips that are done."""

    def __init__(self, bar: Bar) -> None:
        self.bar = bar

    def __call__(self, done: int, total: int) -> None:
        self.bar.fraction(done / total)
