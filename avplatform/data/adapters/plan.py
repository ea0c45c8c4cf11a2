"""The plan of an import: the clips in their order, how to read them, and what was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from avplatform.base.npy import BadFeature
from avplatform.data.adapters.official_files import NO_SPLIT, Annotations, Defect
from avplatform.data.store.schema import DataSpec
from avplatform.models.files import file_sha256

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

    `columns` holds the columns of the store for the good clips, or is None if there are none;
    `left_out` and `defects` come with the clips' positions in the split.
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


class ClipPlan:
    """A plan for a dataset that is read one clip after another.

    Args:
        spec: the specification of the store.
        source: the folder of the dataset.
        found: what the annotation files hold.
        load: returns the features of a clip. An `OSError`, `KeyError` or `ValueError` leaves the
            clip out.
    """

    block, parallel = 16, True

    def __init__(
        self,
        spec: DataSpec,
        source: Path,
        found: Annotations,
        load: Callable[[str], dict[str, np.ndarray]],
    ) -> None:
        self.spec, self.source, self.load = spec, source, load
        self.clip_ids, self.labels = found.clip_ids, found.labels
        self.splits, self.defects = found.splits, list(found.defects)
        self.remarks: list[str] = []
        stored = {int(row) for rows in self.splits.values() for row in rows}
        self.left_out = [
            LeftOut(clip_id, str(source), "belongs to no split")
            for row, clip_id in enumerate(self.clip_ids)
            if row not in stored
        ]
        self.sources: dict[str, Any] = {"annotations": stamps(found.files)}
        files = sorted((str(f), f.stat().st_mtime_ns) for f in source.rglob("*") if f.is_file())
        self.fingerprint = [self.sources["annotations"], files]

    def read(self, split: str, positions: Sequence[int], dtype: str) -> Part:
        """Read clips at positions of a split."""
        part, kept = Part(None), []
        features: dict[str, list[np.ndarray]] = {name: [] for name in self.spec.feature_names}
        for position in positions:
            row = int(self.splits[split][position])
            try:
                values = self._features(self.clip_ids[row], dtype)
            except (BadFeature, OSError, KeyError, ValueError) as error:
                file = str(getattr(error, "filename", None) or self.source)
                said = getattr(error, "strerror", None) or error
                reason = said if isinstance(error, BadFeature) else f"cannot be loaded: {said}"
                part.left_out.append((position, LeftOut(self.clip_ids[row], file, str(reason))))
                continue
            kept.append(row)
            for name, value in values.items():
                features[name].append(value)
        if kept:
            part.columns = {
                "row": np.array(kept),
                "clip_id": [self.clip_ids[row] for row in kept],
                **{name: np.stack(values) for name, values in features.items()},
                **{name: values[kept] for name, values in self.labels.items()},
            }
        return part

    def _features(self, clip_id: str, dtype: str) -> dict[str, np.ndarray]:
        """Return the features of a clip in the stored precision."""
        loaded, shapes, out = self.load(clip_id), self.spec.shapes(), {}
        for name in self.spec.feature_names:
            if name not in loaded:
                raise BadFeature(f"has no '{name}' features")
            values = np.asarray(loaded[name])
            if values.shape != tuple(shapes[name]):
                raise BadFeature(f"has {name} of shape {values.shape}, not {tuple(shapes[name])}")
            try:
                out[name] = cast(values, dtype)
            except BadFeature as error:
                raise BadFeature(f"its {name} {error}") from None
        return out

    def bytes_of(self, rows: set[int]) -> int:
        """Return 0, because only `load` knows which files hold a clip."""
        return 0


def stamps(files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Return the size and checksum of those files that exist, for the provenance."""
    return {
        name: {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
        for name, file in files.items()
        if file.is_file()
    }


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
    """Return the annotated clips that belong to no split; their features are not read.

    Args:
        defects: the defects of the annotation files.
        annotations: the folder of these files.
        what: what lists none of the clips, such as "no split file".
    """
    return [
        LeftOut(
            d.text,
            str(annotations / d.file),
            f"line {d.line}: stands in {what}, so it belongs to no split",
        )
        for d in defects
        if d.kind == NO_SPLIT
    ]
