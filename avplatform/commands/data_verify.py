"""`avplatform data verify`: whether a store is whole and makes sense."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from avplatform.base.console import Console
from avplatform.commands.flags import parse_flags
from avplatform.models.errors import DataError


@dataclass(kw_only=True)
class VerifyOptions:
    """Check a dataset: files, counts, values, labels, leaks, checksum. Exit code 0: right (warnings allowed), 1: wrong."""

    data: Annotated[str, tyro.conf.Positional]
    """folder that holds dataset.json, or a hub id (its shards are downloaded)"""
    annotations: str | None = None
    """folder of the official annotation files, to compare every clip's labels with"""
    audio_annotations: str | None = None
    """with --annotations: another file of dense audio annotations than the one in that folder, as at import"""
    fast: bool = False
    """check sizes and footers of the shards only; on the Hub nothing is downloaded"""
    json: str | None = None
    """write all findings to this file, - for standard output"""


def run(args: list[str], prog: str) -> int:
    """Verify and print what was found."""
    options = parse_flags(VerifyOptions, args, prog)
    from avplatform.data.verify import verify_data

    console = Console(enabled=options.json != "-")
    with console.bar("verify", total=100) as bar:
        report = verify_data(
            options.data,
            annotations=options.annotations,
            audio_annotations=options.audio_annotations,
            fast=options.fast,
            note=console.note,
            progress=bar.fraction,
        )
    for line in report.lines():
        console.note(line)
    if options.json == "-":
        sys.stdout.write(report.to_json())
    elif options.json is not None:
        try:
            Path(options.json).write_text(
                report.to_json(), encoding="utf-8", errors="backslashreplace"
            )
        except OSError as error:
            raise DataError(f"cannot write {options.json}: {error}") from None
    return 0 if report.ok else 1
