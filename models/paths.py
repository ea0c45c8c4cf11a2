"""Paths as users give them."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from avplatform.models.errors import UsageError

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://.+")


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

    Raises:
        UsageError: it is a URL, which would become a folder of that name, such as "s3:".
    """
    if isinstance(path, str) and URL.fullmatch(path):
        raise url_refused(path)
    text = os.path.expanduser(path)
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        text = os.fsdecode(text.encode("utf-8", "surrogateescape"))
    return Path(text)


def url_refused(url: str, where: str = "") -> UsageError:
    """Return the error for a URL where only paths on this machine, or names, can be used.

    Args:
        url: the URL.
        where: the beginning of the message, such as "option out: ".
    """
    return UsageError(
        f"{where}{url} is a URL, and a path on this machine (or a name) is needed here; only "
        "`avplatform extract`, `predict` and `pseudo-label` read and write object stores, in the "
        "options whose help says so"
    )
