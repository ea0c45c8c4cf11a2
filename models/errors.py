"""Errors that a user can act on.

A message says what is wrong, where, and what would be right. The command line prints it without a
traceback and ends with the error's `exit_code`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_LISTED = 30
"""Names up to which an error about an unknown one lists all that are known."""


class AVError(ValueError):
    """An error in the user's input; the user sees its message alone."""

    exit_code = 1
    shared = False
    """Whether every process of a launch raises it, so that only the first one has to report it."""


class UsageError(AVError):
    """A wrong name, flag, value or combination, found before anything was built."""

    exit_code = 2
    shared = True


class DataError(AVError):
    """A file, folder, feature, label or checkpoint that is missing, unreadable or wrong."""

    exit_code = 1


def one_line(error: object, most: int = 200, *, named: bool = False) -> str:
    """Return what an error says, shortened to one line, or the name of its type if it is silent.

    Args:
        error: the error, or its text.
        most: the number of characters of its text that are kept.
        named: the name of its type stands before its text too.

    Examples:
        >>> one_line(OSError(" no   space"), 5), one_line(KeyError())
        ('no sp', 'KeyError')
        >>> one_line(OSError("no space"), named=True)
        'OSError: no space'
    """
    name, text = type(error).__name__, " ".join(str(error).split())[:most]
    return f"{name}: {text}" if named and text else text or name


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the known name nearest to `name`, or an empty string.

    Examples:
        >>> nearest("lepa", ["leap", "mmil", "dch"])
        "; did you mean 'leap'?"
    """
    by_lower = {str(k).lower(): k for k in known}
    close = difflib.get_close_matches(str(name).lower(), list(by_lower), n=1, cutoff=0.5)
    return f"; did you mean '{by_lower[close[0]]}'?" if close else ""


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural where it is needed.

    Examples:
        >>> counted(1, "process"), counted(2, "process"), counted(1200, "clip"), counted(0, "entry")
        ('1 process', '2 processes', '1,200 clips', '0 entries')
    """
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{count:,} {noun[:-1]}ies"
    return f"{count:,} {noun}{'es' if noun.endswith(('s', 'x', 'ch', 'sh')) else 's'}"


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Return the error for an unknown name, with the nearest known one.

    Examples:
        >>> str(unknown_name("decoder", "leep", ["dch", "leap"]))
        "unknown decoder 'leep'; did you mean 'leap'? (known: dch, leap)"
    """
    known = sorted(known)
    listed = f" (known: {', '.join(known)})"
    if len(known) > MOST_LISTED:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
        listed = f" (nearest of {len(known)}: {', '.join(close)})" if close else ""
    return UsageError(f"unknown {kind} '{name}'{nearest(name, known)}{listed}")
