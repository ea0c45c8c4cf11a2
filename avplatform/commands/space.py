"""`avplatform space COMMAND`: the demo of a model as a Space on the Hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from avplatform.base.console import Console
from avplatform.commands.flags import one_of, parse_flags
from avplatform.hub.space import push_space
from avplatform.models.checks import MAY_BE_URL

COMMANDS: dict[str, tuple[str, str]] = {
    "push": ("space:run_push", "push a Space that serves the demo of a model"),
}


@dataclass(kw_only=True)
class SpaceOptions:
    """Push a Space that serves `avplatform demo` of a model, in one commit.

    A model on this machine is put into the Space; one on the Hub is only named.
    """

    model: Annotated[str, tyro.conf.Positional]
    """run folder, model folder, hub id, or training-free"""
    repo_id: Annotated[str, tyro.conf.Positional]
    """owner/name of the Space on the Hub"""
    private: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """make a new Space private"""
    requirement: Annotated[str | None, MAY_BE_URL] = None
    """what the Space installs avplatform from; default: this version, from the package index"""
    message: Annotated[str | None, MAY_BE_URL] = None
    """commit message"""


def run(args: list[str], prog: str) -> int:
    """Run the `space` command that the arguments name."""
    return one_of("space", COMMANDS, args, prog)


def run_push(args: list[str], prog: str) -> int:
    """Push a Space and print the address."""
    options, console = parse_flags(SpaceOptions, args, prog), Console()
    pushed = push_space(
        options.model,
        options.repo_id,
        requirement=options.requirement,
        private=options.private,
        commit_message=options.message,
        say=console.note,
    )
    console.note(pushed.text)
    return 0
