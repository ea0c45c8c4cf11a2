"""`avplatform data card`: render the card of a data folder from its manifest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated

import tyro

from avplatform.base.utf8 import print_json
from avplatform.commands.flags import parse_flags
from avplatform.models.errors import DataError, UsageError
from avplatform.models.paths import expanded


@dataclass(kw_only=True)
class CardOptions:
    """Print the card of a data folder: its content, origin, omitted clips and known defects."""

    folder: Annotated[str, tyro.conf.Positional]
    """folder that holds dataset.json"""
    write: bool = False
    """write the card to README.md in the folder instead"""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """print what the card is made of, as JSON"""


def run(args: list[str], prog: str) -> int:
    """Print or write the card."""
    options = parse_flags(CardOptions, args, prog)
    from avplatform.data.store.card import render_dataset_card
    from avplatform.data.store.schema import Manifest

    manifest = Manifest.read(options.folder)
    if options.json:
        if options.write:
            raise UsageError("--write writes the card, --json prints its facts; leave one out")
        print_json(json.loads(manifest.to_json()))
        return 0
    card = render_dataset_card(manifest)
    if not options.write:
        print(card, end="")
        return 0
    file = expanded(options.folder) / "README.md"
    try:
        file.write_text(card, encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write {file}: {error}") from None
    print(f"wrote {file}")
    return 0
