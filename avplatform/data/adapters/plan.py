"""The plan of an import: the clips in their order, how to read them, and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from avplatform.base.npy import BadFeature
from avplatform.data.adapters.official_files import NO_SPLIT, Defect
from avplatform.data.store.schema import DataSpec

WHOLE_NUMBERS = "features are whole numbers"
"""A kind of defect that is listed once per folder of features, not once per clip."""


@dataclass
class LeftOut:
    """A clip that is not stored; `reason` names the row where `file` holds many clips."""

    clip_id: str
    file: str
    reason: str


@dataclass
class Part:
    """Some clips as read from the official files.

    `columns` holds the good clips, or is None if there are none; `left_out` and `defects` come with
    the clips' positions in the split.
    """

    columns: dict[str, Any] | None
    left_out: list[tuple[int, LeftOut]] = field(default_factory=list)
    defects: list[tuple[int, Defect]] = field(default_factory=list)


class Plan(Protocol):
    """A dataset whose official files are open and checked, ready to be read block by block."""

    spec: DataSpec
    splits: dict[str, np.ndarray]  # the rows of each split, in the order in which they are stored
    block: int  # number of clips to read at once
    parallel: bool  # whether several threads may read at once
    defects: list[Defect]
    left_out: list[LeftOut]  # clips in no split, see `in_no_split`
    remarks: list[str]  # notes for the user, e.g. which optional parts are missing
    sources: dict[str, Any]  # the files that are read, for the provenance
    fingerprint: list[Any]  # changes whenever a source file does

    def read(self, split: str, positions: Sequence[int], dtype: str) -> Part:
        """Read the clips at some positions of a split, with features of type `dtype`."""
        ...

    def bytes_of(self, rows: set[int]) -> int:
        """Return the size in bytes of some clips' features in the official files."""
        ...


def cast(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return features in the stored precision.

    Raises:
        BadFeature: a value is NaN, infinite, or too large for that precision.
    """
    if not np.isfinite(values).all():
        raise BadFeature("holds NaN or infinite values")
    with np.errstate(over="ignore"):
        stored = values.astype(dtype, copy=False)
    if stored.dtype != values.dtype and not np.isfinite(stored).all():
        raise BadFeature(f"holds values too large for {dtype}; use --dtype float32")
    return stored


def whole_numbers(dtype: np.dtype, file: str, clip_id: str | None = None) -> Defect | None:
    """Return a defect where a feature file holds integers, which are stored unscaled; else None."""
    if dtype.kind == "f":
        return None
    first = f"; first in {clip_id}" if clip_id is not None else ""
    return Defect(
        WHOLE_NUMBERS,
        file,
        0,
        f"{dtype}, stored as the numbers that stand there, not scaled back{first}",
    )


def is_repeated(defect: Defect, seen: set[tuple[str, str]]) -> bool:
    """Return whether a defect was listed before, and remember it in `seen`.

    Only WHOLE_NUMBERS can repeat: it is listed once per folder of features and type of numbers.
    """
    if defect.kind != WHOLE_NUMBERS:
        return False
    key = (defect.file.rsplit("/", 1)[0], defect.text.partition(",")[0])
    repeated = key in seen
    seen.add(key)
    return repeated


def in_no_split(defects: Sequence[Defect], annotations: Path, what: str) -> list[LeftOut]:
    """Return the annotated clips that belong to no split; their features are not read."""
    return [
        LeftOut(
            d.text,
            str(annotations / d.file),
            f"line {d.line}: stands in {what}, so it belongs to no split",
        )
        for d in defects
        if d.kind == NO_SPLIT
    ]
