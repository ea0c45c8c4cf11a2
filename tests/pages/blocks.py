"""Finds the code blocks of the pages, and the commands of a shell block."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md"] + sorted(
    file.relative_to(ROOT).as_posix() for file in (ROOT / "docs").rglob("*.md")
)
FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```$", flags=re.S | re.M)


@dataclass(frozen=True)
class Block:
    """A code block: its page, the line of its fence, its language or "", and its text."""

    page: str
    line: int
    language: str
    text: str


def blocks_in(text: str, page: str = "") -> list[Block]:
    """Return the code blocks of a page's text, in order."""
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found[2].strip(), found[3])
        for found in FENCE.finditer(text)
    ]


def blocks_of(page: str) -> list[Block]:
    """Return the code blocks of a page, in order."""
    return blocks_in((ROOT / page).read_text(encoding="utf-8"), page)


def commands_of(text: str) -> list[str]:
    r"""Return the commands of a shell block, without comments.

    Examples:
        >>> commands_of("a b \\\n  'c && d'   # says e\n\n# f\ng && h")
        ["a b 'c && d'", 'g', 'h']
    """
    found = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        words: list[list[str]] = [[]]
        for word in shlex.split(line, comments=True):
            if word == "&&":
                words.append([])
            else:
                words[-1].append(word)
        found += [shlex.join(command) for command in words if command]
    return found


def assignment(command: str) -> tuple[str, str] | None:
    """Return the name and the value of a command that sets a variable of the shell.

    Examples:
        >>> assignment("'NAMES=a b'"), assignment("avplatform list")
        (('NAMES', 'a b'), None)
    """
    found = re.fullmatch(r"([A-Z]+)=(.*)", shlex.split(command)[0])
    return (found[1], found[2]) if found else None


def arguments(command: str) -> list[str] | None:
    """Return what a command gives to `avplatform`, or None if it starts another program.

    Examples:
        >>> arguments("accelerate launch --config_file c.yaml train.py --cpu")
        ['train', '--cpu']
        >>> arguments("avplatform list"), arguments("pip install avplatform")
        (['list'], None)
        >>> arguments("avplatform runs ls --json > runs.json")
        ['runs', 'ls', '--json']
    """
    words = shlex.split(command)
    if ">" in words:  # what a shell does with the output
        words = words[: words.index(">")]
    starters = {"avplatform": [], "train.py": ["train"], "avplatform.features": ["extract"]}
    for number, word in enumerate(words):
        if word in starters and (word != "avplatform" or number == 0):
            launched = number == 0 or words[0] in ("python", "accelerate", "torchrun")
            return starters[word] + words[number + 1 :] if launched else None
    return None
