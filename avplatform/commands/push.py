"""`avplatform push` and `avplatform data push`: push a model or dataset and its card to the Hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import tyro

from avplatform.commands.flags import parse_flags
from avplatform.hub.push import push_data, push_run


@dataclass(kw_only=True)
class PushOptions:
    """Push a run's model to the Hub."""

    folder: Annotated[str, tyro.conf.Positional]
    """run folder or model folder; for data: the folder that holds dataset.json"""
    repo_id: Annotated[str, tyro.conf.Positional]
    """owner/name on the Hub"""
    private: bool = False
    """make a new repository private"""
    revision: str | None = None
    """branch to push to"""
    message: str | None = None
    """commit message"""


def run(args: list[str], prog: str) -> int:
    """Push a model and print the address."""
    return _run(push_run, args, prog, "Push a run's model to the Hub.")


def run_data(args: list[str], prog: str) -> int:
    """Push a dataset and print the address."""
    about = (
        "Push a data folder to the Hub: manifest, shards and card, in one commit. Mapped arrays "
        "are not pushed."
    )
    return _run(push_data, args, prog, about)


def _run(push: Callable[..., str], args: list[str], prog: str, about: str) -> int:
    options = parse_flags(PushOptions, args, prog, description=about)
    url = push(
        options.folder,
        options.repo_id,
        private=options.private,
        revision=options.revision,
        commit_message=options.message,
    )
    print(f"pushed to {url}")
    return 0
