"""The platform's dataset format: the specification of the contents, and the manifest of a store."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.models.checks import in_range, sizes
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import AVError, DataError, UsageError, counted, nearest
from avplatform.models.paths import expanded, nearest_path
from avplatform.models.typed_values import build
from avplatform.tasks.contracts import Task

SCHEMA_VERSION = 3
BACKGROUND = "background"  # the class of a segment without an event, in tasks that have one
CATEGORY = "category"
"""Name of the label for what a clip was collected for, which need not occur in it: int64 []."""
MANIFEST_FILE = "dataset.json"
LABEL_FILE = "label_embeddings.safetensors"
"""Vectors of the label texts in the space of a store's features, for `--labels.embeddings`."""
EXTRACT_REPORT_FILE = "extract_report.json"
SPLITS = ("train", "validation", "test")
FEATURE_DTYPES = ("float16", "float32")
LARGEST = 2**31 - 1  # most values per clip in a column: the limit of Arrow's lists
LABEL_DTYPES = ("uint8", "int64")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # splits and labels, which become file names
FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(kw_only=True)
class DataSpec:
    """The specification of a dataset's contents.

    `labels` maps each label's name to its shape per clip ([] for one number), and `label_dtypes` to
    "uint8" (0 or 1) or "int64" (the index of a class). `label_splits` names the splits in which a
    label is known, for labels that are not known in all splits (some datasets do not annotate the
    segments of training clips); in other splits the column holds zeros. `frames_per_segment` is
    above 1 where a dataset of vectors keeps several visual vectors per segment. `texts` are label
    texts of the classes by spelling; empty means that the class names serve as texts.
    `unseen` names the classes that no training clip has and that are scored all the same. A clip
    lasts `segments` times `segment_seconds`.

    Raises:
        UsageError: classes are missing or repeated, texts do not match the classes in number,
            segments have no length, a label has a bad name, type or shape, `label_splits` names an
            unknown label, `unseen` an unknown class, or there are several frames per segment of
            visual maps.
    """

    name: str
    task: str
    classes: list[str]
    features: FeatureSpec
    labels: dict[str, list[int]]
    label_dtypes: dict[str, str]
    segments: int = 10
    frames_per_segment: int = 1
    label_splits: dict[str, list[str]] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)
    segment_seconds: float = 1.0
    synthetic: bool = False
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes(self, "segments", "frames_per_segment")
        in_range(self, "segment_seconds", 0.001, 3600)
        if self.frames_per_segment > 1 and self.features.map_size is not None:
            raise UsageError(
                f"DataSpec.frames_per_segment is {self.frames_per_segment}; a dataset of maps has 1"
            )
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise UsageError(
                f"DataSpec.classes holds {counted(len(self.classes), 'name')}; "
                "give at least one, and each once"
            )
        for spelling, texts in self.texts.items():
            if len(texts) != len(self.classes):
                raise UsageError(
                    f"DataSpec.texts[{spelling!r}] holds {counted(len(texts), 'text')} for "
                    f"{counted(len(self.classes), 'class')}; give one text per class"
                )
        if strange := [name for name in self.unseen if name not in events(self.classes)]:
            raise UsageError(
                f"DataSpec.unseen names '{strange[0]}'{nearest(strange[0], self.classes)}; "
                "give classes of the data, and not background"
            )
        if set(self.labels) != set(self.label_dtypes):
            raise UsageError(
                f"DataSpec.label_dtypes is for {sorted(self.label_dtypes)}; "
                f"labels are {sorted(self.labels)}"
            )
        for name, dtype in self.label_dtypes.items():
            if not NAME.fullmatch(name) or name in ("row", "clip_id", "audio", "visual", "motion"):
                raise UsageError(
                    f"DataSpec.labels has the name {name!r}; "
                    "use letters, digits, _ and -, and not the name of another column"
                )
            if dtype not in LABEL_DTYPES:
                raise UsageError(
                    f"DataSpec.label_dtypes[{name!r}] is {dtype!r}; "
                    f"choose from {', '.join(LABEL_DTYPES)}"
                )
        for name, splits in self.label_splits.items():
            if name not in self.labels:
                known = f"{nearest(name, self.labels)}; labels: {', '.join(self.labels)}"
                raise UsageError(f"DataSpec.label_splits names {name!r}{known}")
            if isinstance(splits, str) or not all(
                isinstance(s, str) and NAME.fullmatch(s) for s in splits
            ):
                raise UsageError(
                    f"DataSpec.label_splits[{name!r}] is {splits!r}; give a list of splits"
                )
        for name, shape in self.shapes().items():
            if any(size < 1 for size in shape) or math.prod(shape) > LARGEST:
                raise UsageError(
                    f"DataSpec: {name} has shape {shape} per clip; "
                    f"give sizes of at least 1, and at most {LARGEST} values"
                )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape per clip of every feature and label."""
        f, t = self.features, self.segments
        shapes: dict[str, tuple[int, ...]] = {"audio": (t, f.audio_dim)}
        shapes["visual"] = (t * self.frames_per_segment, *(f.map_size or ()), f.visual_dim)
        if f.motion_dim is not None:
            shapes["motion"] = (t, f.motion_dim)
        return {**shapes, **{name: tuple(shape) for name, shape in self.labels.items()}}

    def known(self, label: str, split: str) -> bool:
        """Return whether a label is known in a split; otherwise it is stored as zeros there."""
        return split in self.label_splits.get(label, [split])

    @property
    def feature_names(self) -> list[str]:
        """Names of the feature columns."""
        return [name for name in self.shapes() if name not in self.labels]


@dataclass(kw_only=True)
class Shard:
    """A parquet file with a part of a split's clips."""

    file: str
    rows: int
    bytes: int
    sha256: str


@dataclass(kw_only=True)
class SplitInfo:
    """The number of clips of a split, and its shards."""

    rows: int
    shards: list[Shard]


@dataclass(kw_only=True)
class Manifest:
    """The contents of a store's dataset.json.

    `checksum` is that of the clips, not of the files; see `avplatform.data.store.checksum`.
    """

    spec: DataSpec
    splits: dict[str, SplitInfo]
    dtype: str
    checksum: str
    version: int = SCHEMA_VERSION

    @property
    def fingerprint(self) -> str:
        """Checksum of the whole manifest: contents, files, splits and specification."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Return the text of dataset.json."""
        content = {"_type": "avplatform-dataset", **dataclasses.asdict(self)}
        # Fields that older versions did not have are left out at their defaults, so that an older
        # store keeps its text and thereby its fingerprint.
        if not self.spec.features.extractors:
            del content["spec"]["features"]["extractors"]
        for name, plain in (("texts", {}), ("unseen", []), ("segment_seconds", 1.0)):
            if content["spec"][name] == plain:
                del content["spec"][name]
        return json.dumps(content, indent=2) + "\n"

    @classmethod
    def read(cls, folder: str | Path) -> Manifest:
        """Read a store's manifest.

        Raises:
            DataError: the folder or manifest is missing, unreadable, or contradicts itself.
        """
        file = expanded(folder) / MANIFEST_FILE
        try:
            if not expanded(folder).is_dir():
                raise DataError(
                    f"no data folder {folder}{nearest_path(str(folder))}; "
                    "give demo, or a folder that `avplatform data` wrote"
                )
            if not file.is_file():
                raise DataError(
                    f"{folder} has no {MANIFEST_FILE}; give a folder that `avplatform data import` "
                    "(from official files), `data simulate` or `extract` wrote"
                )
            data = json.loads(file.read_text(encoding="utf-8"))
            if data["_type"] != "avplatform-dataset":
                raise KeyError("_type")
            if data["version"] > SCHEMA_VERSION:
                raise DataError(
                    f"{file} has version {data['version']}; "
                    f"this avplatform reads up to {SCHEMA_VERSION}, update it"
                )
        except OSError as error:
            text = f"{file} cannot be read: {error.strerror or error}"
            raise DataError(f"{text}; check the disk and the file's permissions") from None
        except (
            json.JSONDecodeError,
            UnicodeDecodeError,
            KeyError,
            TypeError,
            RecursionError,
        ) as error:
            raise DataError(
                f"{file} cannot be read ({type(error).__name__}: {error}); write the data again"
            ) from None
        try:
            manifest: Manifest = build(cls, data)
            manifest._check()
        except AVError as error:
            raise DataError(f"{file} is not valid: {error}; write the data again") from None
        return manifest

    def _check(self) -> None:
        """Refuse what no writer writes: names become paths, and anybody may have written them."""
        if self.dtype not in FEATURE_DTYPES:
            raise UsageError(f"dtype is {self.dtype!r}; choose from {', '.join(FEATURE_DTYPES)}")
        if not re.fullmatch(r"[0-9a-f]{64}", self.checksum):
            raise UsageError(f"checksum {self.checksum!r} is not a sha256")
        for name, info in self.splits.items():
            for shard in info.shards:
                if not FILE.fullmatch(shard.file):
                    raise UsageError(
                        f"split {name!r} names the file {shard.file!r}, "
                        "which does not lie in the data's folder"
                    )
            if not NAME.fullmatch(name):
                raise UsageError(f"the split name {name!r} cannot be the name of a folder")
            if info.rows != (rows := sum(shard.rows for shard in info.shards)):
                raise UsageError(f"split {name!r} has {info.rows} rows, its shards {rows}")


def check_columns(spec: DataSpec, split: str, columns: dict[str, Any]) -> dict[str, Any]:
    """Check columns and return them as arrays.

    Raises:
        DataError: there are no clips, a column is missing or unknown, has a wrong shape or holds
            something other than numbers, NaN or a label out of range; names split, column, clip.
    """
    shapes = spec.shapes()
    wanted = {"row", "clip_id", *shapes}
    if set(columns) != wanted:
        missing, extra = sorted(wanted - set(columns)), sorted(set(columns) - wanted)
        raise DataError(f"split {split}: wrong columns (missing: {missing}, unknown: {extra})")
    ids = list(columns["clip_id"])
    if not ids:
        raise DataError(f"split {split}: no clips; a split needs at least one")
    if not all(isinstance(clip_id, str) for clip_id in ids):
        raise DataError(f"split {split}: clip_id must hold strings only")
    rows = _numbers(split, "row", columns["row"])
    if rows.shape != (len(ids),) or rows.dtype.kind not in "iu":
        raise DataError(
            f"split {split}: row is {rows.dtype} {rows.shape}; "
            f"give one integer for each of {len(ids)} clips"
        )
    out: dict[str, Any] = {"row": rows.astype(np.int64), "clip_id": ids}
    for name, shape in shapes.items():
        values = _numbers(split, name, columns[name])
        if values.shape != (len(ids), *shape):
            raise DataError(
                f"split {split}: {name} has shape {values.shape[1:]} per clip instead of {shape}"
            )
        bad = bad_clips(spec, name, values)
        if bad.any():
            clip = int(bad.argmax())
            text = f"{name} of clip {ids[clip]} (row {out['row'][clip]}) {what_is_bad(spec, name)}"
            raise DataError(f"split {split}: {text}")
        out[name] = values
    return out


def bad_clips(spec: DataSpec, name: str, values: np.ndarray) -> np.ndarray:
    """Return which clips hold a feature that is NaN or infinite, or a label outside its range.

    Shape: [N, ...] -> bool [N].
    """
    if name not in spec.labels:
        # Half precision is tested by its bits, an exponent of ones: six times as fast as isfinite.
        if values.dtype == np.float16:
            bad = (np.ascontiguousarray(values).view(np.uint16) & 0x7C00) == 0x7C00
        else:
            bad = ~np.isfinite(values)
    elif spec.label_dtypes[name] == "uint8":
        bad = (values != 0) & (values != 1)
    else:
        bad = ~((values >= 0) & (values < len(spec.classes)) & (values == np.floor(values)))
    return np.asarray(bad.reshape(len(values), -1).any(axis=1))


def what_is_bad(spec: DataSpec, name: str) -> str:
    """Return the words for what `bad_clips` finds in a column."""
    return "holds a label outside its range" if name in spec.labels else "is NaN or infinite"


def _numbers(split: str, name: str, values: Any) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError:
        raise DataError(
            f"split {split}: {name} is ragged; every clip needs the same shape"
        ) from None
    if array.dtype.kind not in "biuf":
        raise DataError(f"split {split}: {name} is of type {array.dtype}; give numbers")
    return array


def events(classes: Sequence[str]) -> list[str]:
    """Return class names without background."""
    return [name for name in classes if name != BACKGROUND]


def check_labels(spec: DataSpec, task: Task) -> None:
    """Raise DataError unless data and task have the same classes in the same order.

    Background is not compared, as a task may add it.
    """
    if events(spec.classes) == events(task.classes):
        return
    pairs = zip(spec.classes, task.classes, strict=False)
    wrong = next((f"{a!r} instead of {b!r}" for a, b in pairs if a != b), "their number")
    raise DataError(
        f"the classes of '{spec.name}' are not those of {task.name} ({wrong}); "
        "give data with the same classes in the same order"
    )
