"""The import options that every dataset has; each adapter adds its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tyro

NONE = "none"


@dataclass(kw_only=True)
class ImportOptions:
    """Turn the files that a dataset's authors published into a store and list every clip left out.

    Raises:
        UsageError: an option belongs to another dataset, or two options contradict each other.
    """

    dataset: tyro.conf.Positional[str]
    """which dataset the files belong to"""
    source: tyro.conf.Positional[str]
    """folder of the dataset; the options below name parts that lie elsewhere"""
    out: str
    """folder to write; it must not exist yet"""
    name: str | None = None
    """name of the dataset in its card and in results; default: the dataset's own"""
    dtype: Literal["float16", "float32"] = "float16"
    """stored precision of the features"""
    strict: bool = False
    """write nothing if a clip of the splits would be left out"""
    workers: int | None = None
    """threads that read; default: one per core, at most 8"""
    annotations: str | None = None
    """folder of the annotation files; default: SOURCE or SOURCE/data"""

    def content(self) -> dict[str, object]:
        """Return the options that decide the contents of the store, with the dataset's own ones."""
        left_out = ("out", "strict", "workers")
        return {name: value for name, value in vars(self).items() if name not in left_out}
