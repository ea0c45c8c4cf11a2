"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """Return a path with ~ and ~NAME written out; of a user that is not known, as it stands (pathlib raises RuntimeError)."""
    return Path(os.path.expanduser(path))
