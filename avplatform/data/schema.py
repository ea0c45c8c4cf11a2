"""What a dataset in the platform's format holds: its specification, and the manifest of what was written."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from models.config import FeatureSpec
from models.errors import DataError

SCHEMA_VERSION = 1
MANIFEST_FILE = "dataset.json"
SPLITS = ("train", "validation", "test")


@dataclass(kw_only=True)
class DataSpec:
    """The contents of a dataset.

    `labels` maps each label's name to its shape per clip ([] for one number), `label_dtypes` to "uint8" or "int64".
    """

    name: str
    task: str
    classes: list[str]
    features: FeatureSpec
    labels: dict[str, list[int]]
    label_dtypes: dict[str, str]
    segments: int = 10
    synthetic: bool = False
    provenance: dict[str, Any] = field(default_factory=dict)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape per clip of every feature and label."""
        f, t = self.features, self.segments
        shapes: dict[str, tuple[int, ...]] = {"audio": (t, f.audio_dim)}
        shapes["visual"] = (t, *(f.map_size or ()), f.visual_dim)
        if f.motion_dim is not None:
            shapes["motion"] = (t, f.motion_dim)
        return {**shapes, **{name: tuple(shape) for name, shape in self.labels.items()}}

    @property
    def feature_names(self) -> list[str]:
        """Names of the feature columns."""
        return [name for name in self.shapes() if name not in self.labels]


@dataclass(kw_only=True)
class Shard:
    """One parquet file of a split."""

    file: str
    rows: int
    bytes: int
    sha256: str


@dataclass(kw_only=True)
class SplitInfo:
    """One split: its clips and its shards."""

    rows: int
    shards: list[Shard]


@dataclass(kw_only=True)
class Manifest:
    """dataset.json of a store; `checksum` is over contents, not over files."""

    spec: DataSpec
    splits: dict[str, SplitInfo]
    dtype: str
    checksum: str
    version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """Return the text of dataset.json."""
        return json.dumps({"_type": "avplatform-dataset", **dataclasses.asdict(self)}, indent=2) + "\n"

    @classmethod
    def read(cls, folder: str | Path) -> Manifest:
        """Read a store's manifest.

        Raises:
            DataError: no such folder, no manifest, or one that cannot be read.
        """
        file = Path(folder) / MANIFEST_FILE
        if not Path(folder).is_dir():
            raise DataError(f"no data folder {folder}; give demo, or a folder that `avplatform data simulate` wrote")
        if not file.is_file():
            raise DataError(f"{folder} has no {MANIFEST_FILE}; give a folder that `avplatform data simulate` wrote")
        try:
            data = json.loads(file.read_text())
            if data.pop("_type") != "avplatform-dataset":
                raise KeyError("_type")
            if data["version"] > SCHEMA_VERSION:
                raise DataError(f"{file} has version {data['version']}; this avplatform reads up to {SCHEMA_VERSION}")
            spec = dict(data.pop("spec"))
            features = dict(spec.pop("features"))
            if features.get("map_size") is not None:
                features["map_size"] = tuple(features["map_size"])
            splits = {
                name: SplitInfo(rows=info["rows"], shards=[Shard(**shard) for shard in info["shards"]])
                for name, info in data.pop("splits").items()
            }
            return cls(spec=DataSpec(features=FeatureSpec(**features), **spec), splits=splits, **data)
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{file} cannot be read ({type(error).__name__}: {error}); write the data again") from None


def check_columns(spec: DataSpec, split: str, columns: dict[str, Any]) -> dict[str, Any]:
    """Return the columns as arrays of the right kind after checking them.

    Raises:
        DataError: a missing or unknown column, a wrong shape, a NaN, or a label out of range; names split, column and clip.
    """
    shapes = spec.shapes()
    wanted = {"row", "clip_id", *shapes}
    if set(columns) != wanted:
        missing, extra = sorted(wanted - set(columns)), sorted(set(columns) - wanted)
        raise DataError(f"split {split}: columns do not fit (missing: {missing}, unknown: {extra})")
    ids = list(columns["clip_id"])
    out: dict[str, Any] = {"row": np.asarray(columns["row"], dtype=np.int64), "clip_id": ids}
    for name, shape in shapes.items():
        values = np.asarray(columns[name])
        if values.shape != (len(ids), *shape):
            raise DataError(f"split {split}: {name} has shape {values.shape[1:]} a clip instead of {shape}")
        if name in spec.labels:
            if spec.label_dtypes[name] == "uint8":
                bad = (values != 0) & (values != 1)
            else:
                bad = (values < 0) | (values >= len(spec.classes))
        else:
            bad = ~np.isfinite(values)
        if bad.any():
            clip = int(np.argwhere(bad.reshape(len(ids), -1).any(axis=1))[0, 0])
            what = "is NaN or infinite" if name not in spec.labels else "holds a label outside its range"
            raise DataError(f"split {split}: {name} of clip {ids[clip]} (row {out['row'][clip]}) {what}")
        out[name] = values
    return out
