"""`avplatform data COMMAND`: the commands for datasets, one module each."""

from __future__ import annotations

from avplatform.commands.flags import one_of

COMMANDS: dict[str, tuple[str, str]] = {
    "import": ("data_import", "turn the official files of a dataset into a store"),
    "verify": (
        "data_verify",
        "check files, counts, values, labels and leaks of a data folder or a hub id",
    ),
    "card": ("data_card", "print or write the card of a data folder"),
    "simulate": ("data_simulate", "draw synthetic features from annotations"),
    "push": ("push:run_data", "push a data folder to the Hub"),
}


def run(args: list[str], prog: str) -> int:
    """Run the `data` command that the arguments name."""
    return one_of("data", COMMANDS, args, prog)
