"""`avplatform push`: a run's model folder, with its card, to the Hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from avplatform.hub import push_run


@dataclass(kw_only=True)
class PushOptions:
    """Push a run's model to the Hub."""

    run: Annotated[str, tyro.conf.Positional]
    """run folder or model folder"""
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
    url = push_run(
        options.run,
        options.repo_id,
        private=options.private,
        revision=options.revision,
        commit_message=options.message,
    )
    print(f"pushed to {url}")
    return 0
