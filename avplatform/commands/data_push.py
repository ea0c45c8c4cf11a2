"""`avplatform data push`: a store, with its card, to a dataset repository on the Hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro


@dataclass(kw_only=True)
class PushOptions:
    """Push a data folder to the Hub: manifest, shards and card, in one commit; mapped arrays stay here."""

    folder: Annotated[str, tyro.conf.Positional]
    """folder that holds dataset.json"""
    repo_id: Annotated[str, tyro.conf.Positional]
    """owner/name on the Hub"""
    private: bool = False
    """make a new repository private"""
    revision: str | None = None
    """branch to push to"""
    message: str | None = None
    """commit message"""


def run(args: list[str], prog: str) -> int:
    """Push and print the address."""
    options = tyro.cli(PushOptions, args=args, prog=prog)
    from avplatform.hub import push_data

    url = push_data(
        options.folder,
        options.repo_id,
        private=options.private,
        revision=options.revision,
        commit_message=options.message,
    )
    print(f"pushed to {url}")
    return 0
