"""Paths as users give them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """Return a path with ~ and ~NAME expanded; ~NAME of an unknown user is kept as it is.

    In an ASCII locale, a name beyond ASCII becomes the one under which Python finds the file.
    """
    text = os.path.expanduser(path)
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        text = os.fsdecode(text.encode("utf-8", "surrogateescape"))
    return Path(text)
