"""`avplatform collection`: push the runs of a sweep to the Hub, with a card that compares them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from avplatform.base.console import Console
from avplatform.commands.flags import parse_flags
from avplatform.sweeps.collection import push_collection


@dataclass(kw_only=True)
class CollectionOptions:
    """Push all finished runs of a folder, a card that compares them, and a collection of all.

    If the push stops, the same command goes on; what the Hub has already is not sent again.
    """

    folder: Annotated[str, tyro.conf.Positional]
    """folder of run folders, such as that of a sweep"""
    name: Annotated[str, tyro.conf.Positional]
    """owner/name of the card on the Hub; runs go to owner/name-RUN"""
    private: bool = False
    """make new repositories and the collection private"""
    results_only: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """push cards, configs and results, without weights"""


def run(args: list[str], prog: str) -> int:
    """Push all runs of a folder and print the address of the collection."""
    options = parse_flags(CollectionOptions, args, prog)
    console = Console()
    url = push_collection(
        options.folder,
        options.name,
        results_only=options.results_only,
        private=options.private,
        say=console.note,
    )
    console.note(f"collection: {url}")
    return 0
