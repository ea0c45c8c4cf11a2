"""`avplatform push` and `avplatform data push`: push a model or dataset and its card to the Hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

import tyro

from avplatform.base.console import Console
from avplatform.commands.flags import parse_flags
from avplatform.hub.push import Pushed, push_data, push_run
from avplatform.hub.space import push_space
from avplatform.models.checks import MAY_BE_URL
from avplatform.models.errors import UsageError


@dataclass(kw_only=True)
class PushDataOptions:
    """Push a data folder to the Hub: manifest, shards and card, in one commit.

    Mapped arrays are not pushed. What the Hub has already is not sent again.
    """

    folder: Annotated[str, tyro.conf.Positional]
    """the folder that holds dataset.json"""
    repo_id: Annotated[str, tyro.conf.Positional]
    """owner/name on the Hub"""
    private: bool = False
    """make a new repository private"""
    revision: str | None = None
    """branch to push to"""
    message: Annotated[str | None, MAY_BE_URL] = None
    """commit message"""


@dataclass(kw_only=True)
class PushOptions(PushDataOptions):
    """Push a run's model and its card to the Hub, in one commit.

    What the Hub has already is not sent again.
    """

    folder: Annotated[str, tyro.conf.Positional]
    """run folder, model folder, or the hub id of a model to copy"""
    results_only: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """push the card, the config and results.json, without the weights"""
    with_space: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """push a Space of the same name too, which serves the demo of the model"""


def run(args: list[str], prog: str) -> int:
    """Push a model, and the Space of its demo if it is asked for, and print the addresses."""
    options = parse_flags(PushOptions, args, prog)
    if options.with_space and (options.results_only or options.revision):
        raise UsageError(
            "--with-space serves the model on the main branch; leave out --results-only and "
            "--revision"
        )
    code = _run(push_run, options, results_only=options.results_only)
    if options.with_space:
        code = _run(push_space, replace(options, folder=options.repo_id))
    return code


def run_data(args: list[str], prog: str) -> int:
    """Push a dataset and print the address."""
    return _run(push_data, parse_flags(PushDataOptions, args, prog))


def _run(push: Callable[..., Pushed], options: PushDataOptions, **more: bool) -> int:
    console = Console()
    pushed = push(
        options.folder,
        options.repo_id,
        private=options.private,
        revision=options.revision,
        commit_message=options.message,
        say=console.note,
        **more,
    )
    console.note(pushed.text)
    return 0
