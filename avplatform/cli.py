"""The command line: one module per command; an error ends in one message and an exit code."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Sequence

from avplatform.base.stopping import end_with_starter
from avplatform.base.utf8 import print_anything, start_in_utf8
from avplatform.models.errors import AVError, unknown_name


def main(argv: Sequence[str] | None = None, *, prog: str = "avplatform") -> int:
    """Run a command and return its exit code: 0, 1 (wrong data) or 2 (wrong usage)."""
    if argv is None or prog != "avplatform":  # a program, not a call from Python
        start_in_utf8()
    end_with_starter()
    args = [_with_home(arg) for arg in (sys.argv[1:] if argv is None else argv)]
    print_anything()
    if not args or args[0] in ("-h", "--help"):
        print(usage())
        return 0 if args else 2
    if args[0] == "--version":
        from avplatform.version import __version__

        print(__version__)
        return 0
    try:
        if args[0] not in COMMANDS:
            raise unknown_name("command", args[0], COMMANDS)
        module = importlib.import_module(f"avplatform.commands.{COMMANDS[args[0]][0]}")
        return module.run(args[1:], prog if prog != "avplatform" else f"avplatform {args[0]}")
    except AVError as error:
        process = os.environ.get("RANK", "0")
        if process == "0" or not process.isdigit():
            print(f"error: {error}", file=sys.stderr)
        elif not error.shared:
            print(f"error of process {process}: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        remedy = "; go on with --resume RUN" if args[0] == "train" else ""
        print(f"stopped{remedy}", file=sys.stderr)
        return 130


def _with_home(arg: str) -> str:
    """Return an argument with ~ expanded where the shell leaves it: --out=~/x, NAME=~/x, KIND:~/x.

    Examples:
        >>> _with_home("--weights=vggish=~/x") == f"--weights=vggish={os.path.expanduser('~/x')}"
        True
    """
    parts = re.fullmatch(r"((?:--[\w.-]+=)?(?:[\w-]+[=:])?)(~.*)", arg, re.DOTALL)
    return parts[1] + os.path.expanduser(parts[2]) if parts else arg


def usage() -> str:
    """Return the help text with the list of commands."""
    lines = ["usage: avplatform COMMAND [OPTIONS]", "", "commands:"]
    lines += [f"  {name:<14} {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join([*lines, "", "`avplatform COMMAND --help` lists a command's options."])


COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("train", "train, evaluate and save a model"),
    "eval": ("evaluate", "score a saved model or run on a split"),
    "score": ("score", "score event lists of any system against the true events"),
    "compare": ("compare", "compare runs: figures, paired test, classes"),
    "sweep": ("sweep", "train every combination of a file's axes and seeds"),
    "reproduce": (
        "reproduce",
        "train what the tables of a paper need, and compare with the published figures",
    ),
    "predict": (
        "predict",
        "find the events of videos: JSON, CSV, PNG, an HTML timeline, ELAN and WebVTT",
    ),
    "demo": ("demo", "serve a page on which models are tried with videos and labels"),
    "list": ("listing", "list the cells, tasks, encoders, decoders, datasets and presets"),
    "info": ("info", "describe one cell, preset, run or model"),
    "runs": ("runs", "ls: list the runs of a folder with their state, figure, date and size"),
    "board": ("board", "show the curves of a folder's runs in a browser, without a network"),
    "models": ("models", "ls: list the models in a folder, or those fetched from the Hub"),
    "data": ("data", "import official files, verify, simulate, describe or push a dataset"),
    "extract": ("extract", "extract segment features from video files"),
    "pseudo-label": (
        "pseudo_label",
        "make segment pseudo-labels by VALOR's procedure, or score them",
    ),
    "embed-labels": ("embed_labels", "embed label texts, and show which are similar"),
    "bank": ("bank", "make the bank by which a model finds labels that it was never trained on"),
    "convert": (
        "convert",
        "convert a checkpoint that the authors of a paper published to a model folder",
    ),
    "export": ("export", "write a model as one file for other runtimes: ONNX or torch.export"),
    "push": ("push", "push a run's model to the Hub, with its card"),
    "space": ("space", "push a Space that serves the demo of a model on the Hub"),
    "collection": (
        "collection",
        "push all runs of a sweep to the Hub, with their comparison",
    ),
    "doctor": ("doctor", "say what is installed, what is missing, and the command that mends it"),
}
"""Commands by name: the module in avplatform.commands, imported on use, and one line of help."""
