"""Locales that are not UTF-8: commands start in Python's UTF-8 mode, and any text is printed."""

from __future__ import annotations

import io
import json
import locale
import os
import sys
from typing import Any


def start_in_utf8() -> None:
    """Start this program again in Python's UTF-8 mode, unless its locale is UTF-8.

    In an old locale (LC_ALL=C, ISO-8859-1), Python would read the names of files, which are UTF-8,
    as other text, and write them so into results. What is printed keeps the locale's encoding.
    """
    found = locale.getencoding()
    if (
        os.name != "posix"
        or sys.flags.utf8_mode
        or os.environ.get("PYTHONUTF8") == "1"  # a flag of the interpreter forbids the mode
        or found.lower().replace("-", "") == "utf8"
        or not sys.executable
    ):
        return
    printed = os.environ.get("PYTHONIOENCODING") or f"{found}:backslashreplace"
    told = {**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": printed}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], told)


def print_anything() -> None:
    """Let the standard output escape what its encoding lacks, such as letters of a file name."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def print_json(value: Any) -> None:
    """Print a value as JSON, in ASCII where the encoding of the output is not UTF-8."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(value, indent=2, ensure_ascii=not utf8))
