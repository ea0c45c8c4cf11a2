"""The facts of the cells, presets and options of this package, kept as a file of the package.

`list`, `info` and `train --help` read them, since importing every model, and torch with them, would
take most of their time. `python -m tests.facts` writes the file, and a test compares it with what
`avplatform.catalogue.facts` collects. In a source checkout they are not read where a module that
they are made of was changed after the file.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

FILE = "facts.json"
ROOT = Path(__file__).resolve().parents[2]
MADE_OF = (
    *("avplatform/catalogue", "avplatform/config", "avplatform/data/adapters"),
    *("models", "tasks"),
)
"""The folders of a checkout whose modules and tables the facts are made of."""
TOGETHER = 10.0
"""Seconds within which `git clone` may write a module after the facts that were made of it."""
REGISTRIES = (
    "avplatform.models.encoders",
    "avplatform.models.decoders",
    "avplatform.tasks.registry",
    "avplatform.data.adapters.registry",
)
"""The modules whose import comes before any registration of a part of another package."""
HELP = ("-h", "--help")


def kept_facts() -> dict[str, Any] | None:
    """Return the facts that stand for all parts; None where others may be registered, or changed.

    As long as no registry is imported, nothing can be registered.
    """
    return None if any(name in sys.modules for name in REGISTRIES) else current_facts()


def current_facts() -> dict[str, Any] | None:
    """Return the facts of this package's own parts; None in a checkout that was changed since."""
    return None if outdated() else all_facts()


@cache
def outdated() -> bool:
    """Return whether this is a checkout that was changed after the facts were kept; say so once."""
    changed = changed_module(ROOT)
    if changed is not None:
        print(
            f"note: {changed} is newer than the kept facts, so they are computed, which takes "
            "longer; in this checkout, python -m tests.facts keeps them again",
            file=sys.stderr,
        )
    return changed is not None


def changed_module(root: Path) -> str | None:
    """Return the newest module of a checkout if it is newer than the kept facts, else None.

    An installed package, whose modules nobody changes, has none; nor has a checkout just made.
    """
    if not (root / "pyproject.toml").is_file():
        return None
    times = {
        path: os.stat(path).st_mtime
        for folder in MADE_OF
        for place, _, names in os.walk(root / folder)
        for name in names
        if name.endswith((".py", ".yaml", ".csv"))
        for path in [os.path.join(place, name)]
    }
    newest = max(times, key=lambda path: times[path])
    kept = (root / "avplatform" / "catalogue" / FILE).stat().st_mtime
    return os.path.relpath(newest, root) if times[newest] > kept + TOGETHER else None


@cache
def all_facts() -> dict[str, Any]:
    """Return the facts of this package's own parts."""
    return unpacked(files("avplatform.catalogue").joinpath(FILE).read_text(encoding="utf-8"))


def kept_description(target: str) -> dict[str, Any] | None:
    """Return the description of a cell, preset or name of a model; None where it is not kept.

    The names are those that `avplatform.catalogue.cells.find_cell` reads.
    """
    facts = kept_facts()
    if facts is None:
        return None
    name = facts["models"].get(target, target)
    parts = name.replace("/", "-").split("-")
    if parts[0] in facts["tasks"] and len(parts) == 3:
        parts.append(facts["tasks"][parts[0]]["supervisions"][0])
    known: dict[str, Any] = facts["described"]
    return known.get(name, known.get("-".join(parts)))


def kept_flags(args: Sequence[str]) -> dict[str, Any] | None:
    """Return what the short help of `train` shows, if the arguments ask for it and it is kept.

    Beside --help they may choose a preset, or the task, encoder, decoder and supervision.
    """
    facts = kept_facts()
    if facts is None or not set(HELP) & set(args):
        return None
    given: dict[str, str] = {}
    rest = iter([arg for arg in args if arg not in HELP])
    for arg in rest:
        name, equals, value = arg.removeprefix("--").partition("=")
        if not arg.startswith("--") or name in given:
            return None
        given[name] = value if equals else next(rest, "")
    if set(given) == {"preset"}:
        return facts["flags"].get(given["preset"])
    if set(given) - {"task", "encoder", "decoder", "supervision"}:
        return None
    task = given.get("task", next(iter(facts["tasks"])))
    if task not in facts["tasks"]:
        return None
    about = facts["tasks"][task]
    encoder = given.get("encoder", about["default_encoder"])
    decoder = given.get("decoder", facts["default_decoder"])
    supervision = given.get("supervision", about["supervisions"][0])
    return facts["flags"].get(f"{task}-{encoder}-{decoder}-{supervision}")


def packed(value: Any) -> str:
    """Return plain values as JSON in which equal dictionaries and lists are written once.

    Each line is one of them. What lies inside it is named by the number of its line, as "#3"; a
    string that begins with # is written with another # before it.

    Examples:
        >>> print(packed({"a": [1, 2], "b": [1, 2]}), end="")
        [1,2]
        {"a":"#0","b":"#0"}
    """
    lines: dict[str, int] = {}

    def place(inner: Any) -> Any:
        if isinstance(inner, str):
            return f"#{inner}" if inner.startswith("#") else inner
        if isinstance(inner, dict):
            made: Any = {key: place(one) for key, one in inner.items()}
        elif isinstance(inner, (list, tuple)):
            made = [place(one) for one in inner]
        else:
            return inner
        line = json.dumps(made, ensure_ascii=False, separators=(",", ":"))
        return f"#{lines.setdefault(line, len(lines))}"

    place(value)
    return "".join(f"{line}\n" for line in lines)


def unpacked(text: str) -> Any:
    """Return the plain values that `packed` wrote.

    Examples:
        >>> unpacked(packed({"a": [1, "#"], "b": [1, "#"]}))
        {'a': [1, '#'], 'b': [1, '#']}
    """
    made: list[Any] = []

    def whole(inner: Any) -> Any:
        if isinstance(inner, str) and inner.startswith("#"):
            return inner[1:] if inner.startswith("##") else made[int(inner[1:])]
        return inner

    for line in json.loads(f"[{text.rstrip().replace(chr(10), ',')}]"):
        if isinstance(line, dict):
            made.append({key: whole(one) for key, one in line.items()})
        else:
            made.append([whole(one) for one in line])
    return made[-1]
