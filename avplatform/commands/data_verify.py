"""`avplatform data verify`: check that a store is complete and makes sense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from avplatform.base.console import Console
from avplatform.base.files import give_json
from avplatform.commands.flags import parse_flags


@dataclass(kw_only=True)
class VerifyOptions:
    """Check a dataset: files, counts, values, labels, leaks and checksum.

    The exit code is 0 if it is correct (warnings are allowed), and 1 if it is wrong.
    """

    data: Annotated[str, tyro.conf.Positional]
    """folder that holds dataset.json, or a hub id (its shards are downloaded)"""
    annotations: str | None = None
    """folder of official annotation files, or your list of events, to compare all labels with"""
    audio_annotations: str | None = None
    """with --annotations: file of dense audio annotations to use instead of the folder's own"""
    against: str | None = None
    """another store: name the clips whose videos stand there too, with their splits"""
    fast: bool = False
    """check only sizes and footers of the shards; with a hub id nothing is downloaded"""
    json: str | None = None
    """write all findings to this file; without a name: print them as JSON, and nothing else"""


def run(args: list[str], prog: str) -> int:
    """Verify a dataset and print the findings."""
    options = parse_flags(VerifyOptions, args, prog)
    from avplatform.data.verify import verify_data

    console = Console(enabled=options.json != "-")
    with console.bar("verify", total=100) as bar:
        report = verify_data(
            options.data,
            annotations=options.annotations,
            audio_annotations=options.audio_annotations,
            against=options.against,
            fast=options.fast,
            note=console.note,
            progress=bar.fraction,
        )
    for line in report.lines():
        console.note(line)
    if options.json is not None:
        give_json(options.json, report.content())
    return 0 if report.ok else 1
