"""`avplatform data import`: turn the official files of a dataset into a store."""

from __future__ import annotations

import sys

from avplatform.base.console import Console
from avplatform.commands.flags import parse_flags
from avplatform.data.importing.options import import_options


def run(args: list[str], prog: str) -> int:
    """Import a dataset; return 1 if a clip of the splits was left out.

    With --strict, nothing is written in that case.
    """
    options = parse_flags(import_options(), args, prog)
    from avplatform.data.importing import import_data
    from avplatform.data.importing.report import REPORT_FILE
    from avplatform.data.store.card import render_dataset_card

    console = Console()
    try:
        with console.bar(f"import {options.dataset}", total=1) as bar:
            report = import_data(
                options,
                card=render_dataset_card,
                note=console.note,
                progress=lambda done, total: bar.fraction(done / total),
            )
    except KeyboardInterrupt:
        print(
            "stopped; run the same command again to go on after the last finished shard",
            file=sys.stderr,
        )
        return 130
    for line in report.summary():
        console.note(line)
    if not report.written:
        console.note(f"nothing was written to {options.out} (--strict)")
        return 1
    counts = ", ".join(f"{split} {count}" for split, count in report.stored.items())
    console.note(
        f"wrote {options.out}: {counts}; {REPORT_FILE} lists what was left out and every defect"
    )
    return 1 if report.bad else 0
