"""The command line: one function a command; errors end in one message and an exit code, never in a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from models.errors import AVError, unknown_name


def main(argv: Sequence[str] | None = None, *, prog: str = "avplatform") -> int:
    """Run a command; return 0, 1 (data) or 2 (usage)."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(usage())
        return 0 if args else 2
    if args[0] == "--version":
        from avplatform import __version__

        print(__version__)
        return 0
    try:
        if args[0] not in COMMANDS:
            raise unknown_name("command", args[0], COMMANDS)
        return COMMANDS[args[0]][0](args[1:], prog if prog != "avplatform" else f"avplatform {args[0]}")
    except AVError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        print("stopped; go on with --resume RUN", file=sys.stderr)
        return 130


def usage() -> str:
    """Return the list of commands."""
    lines = ["usage: avplatform COMMAND [OPTIONS]", "", "commands:"]
    lines += [f"  {name:<10} {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join([*lines, "", "`avplatform COMMAND --help` lists a command's options."])


def _train(args: list[str], prog: str) -> int:
    from avplatform.commands.train import run

    return run(args, prog)


def _eval(args: list[str], prog: str) -> int:
    from avplatform.commands.evaluate import run

    return run(args, prog)


def _list(args: list[str], prog: str) -> int:
    from avplatform.commands.listing import run

    return run(args, prog)


def _data(args: list[str], prog: str) -> int:
    from avplatform.commands.data import run

    return run(args, prog)


def _push(args: list[str], prog: str) -> int:
    from avplatform.commands.push import run

    return run(args, prog)


COMMANDS: dict[str, tuple[Callable[[list[str], str], int], str]] = {
    "train": (_train, "train, evaluate and save a model"),
    "eval": (_eval, "score a saved model or run on a split"),
    "list": (_list, "list tasks, encoders, decoders and presets"),
    "data": (_data, "import official files, or simulate features from annotations"),
    "push": (_push, "push a run's model to the Hub, with its card"),
}
"""Commands by name: function and one line of help. A function imports what it needs when it runs."""
