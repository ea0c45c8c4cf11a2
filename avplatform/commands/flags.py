"""Parse the flags of a command into its options."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import tyro

from avplatform.models.checks import no_urls
from avplatform.models.errors import DataError, UsageError, unknown_name
from avplatform.models.paths import expanded

Options = TypeVar("Options")


def parse_flags(kind: type[Options], args: Sequence[str], prog: str, **more: Any) -> Options:
    """Return the options that the flags give, or exit with tyro's message.

    Args:
        kind: dataclass of the options; its docstrings are the help.
        args: arguments of the command line.
        prog: name of the command in the help.
        more: further arguments of `tyro.cli`.

    Raises:
        UsageError: a URL was given to an option that takes a path on this machine.
    """
    for part in filter(dataclasses.is_dataclass, kind.__mro__):
        _hide_unset(part)
    options = tyro.cli(kind, args=_json_alone(kind, list(args)), prog=prog, **more)
    no_urls(options)
    return options


def from_options(kind: type[Options], options: Any) -> Options:
    """Build a dataclass from those options that have the names of its fields."""
    names = [f.name for f in dataclasses.fields(kind) if hasattr(options, f.name)]  # type: ignore[arg-type]
    return kind(**{name: getattr(options, name) for name in names})


def one_of(group: str, commands: Mapping[str, tuple[str, str]], args: list[str], prog: str) -> int:
    """Run the command of a group that the arguments name, and return its exit code.

    Args:
        group: name of the group.
        commands: by name, the module in avplatform.commands, and one line of help. The module may
            be followed by a colon and its function, if that is not `run`.
        args: the arguments.
        prog: name of the group in the help.
    """
    if not args or args[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:<10} {about}" for name, (_, about) in commands.items())
        print(f"usage: avplatform {group} COMMAND [OPTIONS]\n\ncommands:\n{lines}")
        return 0 if args else 2
    if args[0] not in commands:
        raise unknown_name(f"{group} command", args[0], commands)
    name, _, function = commands[args[0]][0].partition(":")
    module = importlib.import_module(f"avplatform.commands.{name}")
    code: int = getattr(module, function or "run")(args[1:], f"{prog} {args[0]}")
    return code


@contextlib.contextmanager
def writing(what: str, remedy: str = "") -> Iterator[None]:
    """Turn an error of the file system in the block into a DataError: what, why and the remedy."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{what}: {error.strerror}{remedy}") from None


def _json_alone(kind: type, args: list[str]) -> list[str]:
    """Return the arguments with "-", the standard output, after a --json that names no file."""
    takes_file = any(f.name == "json" and f.default is None for f in dataclasses.fields(kind))
    if not takes_file or "--json" not in args:
        return args
    after = args.index("--json") + 1
    if after == len(args) or args[after].startswith("--"):
        return [*args[:after], "-", *args[after:]]
    if expanded(args[after]).is_dir():
        raise UsageError(
            f"--json {args[after]}: that is a folder, not a file to write; to print JSON, put "
            "--json last, or write --json -"
        )
    return args


def _hide_unset(kind: type) -> None:
    """Leave "(default: None)" out of a dataclass's help, whose texts say what the default does."""
    own = kind.__dict__.get("__annotations__", {})
    unset = [f.name for f in dataclasses.fields(kind) if f.default is None and f.name in own]
    if any(isinstance(own[name], str) for name in unset):
        hints = typing.get_type_hints(kind, include_extras=True)
        for name in unset:
            own[name] = Annotated[hints[name], tyro.conf.arg(help_behavior_hint="")]
