"""What an import of any dataset consists of: the clips in their order, a way to read some of them, and what was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from avplatform.base.npy import BadFeature
from avplatform.data.adapters.official_files import NO_SPLIT, Defect
from avplatform.data.store.schema import DataSpec
from avplatform.models.errors import DataError
from avplatform.models.files import expanded, file_sha256

MARKER = "SYNTHETIC.txt"
"""Lies in a folder of official layout whose features were made up, so that they never pass as real ones."""


WHOLE_NUMBERS = "features are whole numbers"
"""A kind of defect that is listed once for a part of a dataset, not for each clip."""


@dataclass
class LeftOut:
    """A clip that is not stored; `file` is the one at fault, with the row where it holds many clips."""

    clip_id: str
    file: str
    reason: str


@dataclass
class Part:
    """Some clips as read: columns of the good ones (None if all are bad), positions of the bad ones and of defects."""

    columns: dict[str, Any] | None
    left_out: list[tuple[int, LeftOut]] = field(default_factory=list)
    defects: list[tuple[int, Defect]] = field(default_factory=list)


class Plan(Protocol):
    """A dataset that is ready to be read."""

    spec: DataSpec
    splits: dict[str, np.ndarray]  # the rows of each split, in the order in which they are stored
    block: int  # clips that are read at once
    parallel: bool  # whether several blocks may be read at once
    defects: list[Defect]
    left_out: list[LeftOut]  # clips that no split names: see `in_no_split`
    remarks: list[str]  # what a user should know: parts that are not there
    sources: dict[str, Any]  # what was read, for the provenance
    fingerprint: list[Any]  # changes when a source file does

    def read(self, split: str, positions: Sequence[int], dtype: str) -> Part:
        """Read the clips at positions of a split, as `dtype`."""
        ...

    def bytes_of(self, rows: set[int]) -> int:
        """Return the size of the official feature files of some clips."""
        ...


class ClipPlan:
    """A plan for a dataset that is read one clip after another.

    Args:
        spec: of the store.
        source: folder of the dataset.
        clip_ids: of all clips; clip n is row n of every label.
        splits: rows by split.
        labels: by name, [N, ...].
        load: returns the features of a clip; what it raises (`OSError`, `KeyError`, `ValueError`) leaves the clip out.
        files: annotation files by name.
        defects: what is odd in them.
    """

    block, parallel = 16, True

    def __init__(
        self,
        spec: DataSpec,
        *,
        source: Path,
        clip_ids: list[str],
        splits: dict[str, np.ndarray],
        labels: dict[str, np.ndarray],
        load: Callable[[str], dict[str, np.ndarray]],
        files: Mapping[str, Path],
        defects: Sequence[Defect] = (),
    ) -> None:
        self.spec, self.splits, self.defects = spec, splits, list(defects)
        self.source, self.clip_ids, self.labels, self.load = source, clip_ids, labels, load
        self.remarks: list[str] = []
        stored = {int(row) for rows in splits.values() for row in rows}
        self.left_out = [
            LeftOut(clip_id, str(source), "belongs to no split")
            for row, clip_id in enumerate(clip_ids)
            if row not in stored
        ]
        stamps = {
            name: {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
            for name, file in files.items()
            if file.is_file()
        }
        self.sources: dict[str, Any] = {"annotations": stamps}
        found = sorted((str(f), f.stat().st_mtime_ns) for f in source.rglob("*") if f.is_file())
        self.fingerprint = [stamps, found]

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
            out[name] = cast(values, dtype)
        return out

    def bytes_of(self, rows: set[int]) -> int:
        """Return 0: which files hold a clip is not known here."""
        return 0


def cast(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return features in the stored precision.

    Raises:
        BadFeature: a value is NaN or infinite, or too large for it.
    """
    if not np.isfinite(values).all():
        raise BadFeature("holds NaN or infinite values")
    with np.errstate(over="ignore"):
        stored = values.astype(dtype, copy=False)
    if stored.dtype != values.dtype and not np.isfinite(stored).all():
        raise BadFeature(f"holds values too large for {dtype}; use --dtype float32")
    return stored


def whole_numbers(dtype: np.dtype, file: str, clip_id: str | None = None) -> Defect | None:
    """Return what to say of features that are whole numbers in their files: they are taken as they stand, not scaled."""
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
    """Whether a defect that is listed once for a folder of features and type of numbers was seen before; remember it."""
    if defect.kind != WHOLE_NUMBERS:
        return False
    key = (defect.file.rsplit("/", 1)[0], defect.text.partition(",")[0])
    repeated = key in seen
    seen.add(key)
    return repeated


def in_no_split(defects: Sequence[Defect], annotations: Path, what: str) -> list[LeftOut]:
    """Return the clips that stand in an annotation file but in none that names a split, so that nothing is read of them."""
    return [
        LeftOut(
            d.text,
            str(annotations / d.file),
            f"line {d.line}: stands in {what}, so it belongs to no split",
        )
        for d in defects
        if d.kind == NO_SPLIT
    ]


def find(source: Path, given: str | None, names: Sequence[str]) -> Path | None:
    """Return a file or folder: the one that is given, or the first of `names` in the source or its `data/`.

    Raises:
        DataError: the one that is given is not there.
    """
    if given is not None:
        path = expanded(given)
        if not path.exists():
            raise DataError(f"{path} is not there")
        return path
    places = [place / name for name in names for place in (source, source / "data")]
    return next((place for place in places if place.exists()), None)


def is_synthetic(source: Path, parts: Sequence[Path]) -> bool:
    """Whether the source, a part of it or a folder around one says that its features were made up."""
    places = {source, source / "data"}
    for part in parts:
        places |= {part, *list(part.resolve().parents)[:3]}
    return any((place / MARKER).is_file() for place in places)
