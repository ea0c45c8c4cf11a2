"""Paths as Arrow must be given them."""

from __future__ import annotations

from pathlib import Path


def arrow_path(file: Path) -> Path:
    """Return a file's absolute path: Arrow takes a relative one such as file:x/train.parquet for an address."""
    return file.absolute()
