"""Paths as users give them."""

from __future__ import annotations

import difflib
import os
from pathlib import Path


def may_be_hub_id(text: str) -> bool:
    """Return whether a name, which is no folder, may be that of a repository on the Hub.

    That is owner/name, where the owner is no folder here.
    """
    local = text.startswith((".", "/", "~")) or text.count("/") != 1
    return not local and not expanded(text).parent.is_dir()


def nearest_path(text: str) -> str:
    """Return what to say of a folder that does not exist: an existing one of a similar name.

    It is the beginning of the path up to the part that is missing; empty where nothing is similar.
    """
    path = expanded(text)
    missing = next((p for p in (*reversed(path.parents), path) if not p.exists()), None)
    if missing is None:
        return ""
    try:
        names = [each.name for each in missing.parent.iterdir()]
    except OSError:
        return ""
    close = difflib.get_close_matches(missing.name, names, n=1, cutoff=0.6)
    return f"; did you mean '{missing.with_name(close[0])}'?" if close else ""


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
