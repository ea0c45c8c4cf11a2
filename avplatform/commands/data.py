"""`avplatform data COMMAND`: the commands for datasets, one module each."""

from __future__ import annotations

import importlib

from avplatform.models.errors import unknown_name

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
"""Commands by name, with the module in avplatform.commands and one line of help.

The module may be followed by a colon and its function, if that is not `run`.
"""


def run(args: list[str], prog: str) -> int:
    """Run the `data` command that the arguments name."""
    if not args or args[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:<10} {about}" for name, (_, about) in COMMANDS.items())
        print(f"usage: avplatform data COMMAND [OPTIONS]\n\ncommands:\n{lines}")
        return 0 if args else 2
    if args[0] not in COMMANDS:
        raise unknown_name("data command", args[0], COMMANDS)
    name, _, function = COMMANDS[args[0]][0].partition(":")
    module = importlib.import_module(f"avplatform.commands.{name}")
    return getattr(module, function or "run")(args[1:], f"{prog} {args[0]}")
