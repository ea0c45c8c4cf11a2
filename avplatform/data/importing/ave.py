"""AVE's official files: h5 arrays whose rows are the lines of Annotations.txt, and background clips in files of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from avplatform.data.importing.options import NONE, ImportOptions
from avplatform.data.importing.plan import BadFeature, LeftOut, Part, cast, find, is_synthetic
from avplatform.data.schema import DataSpec
from avplatform.data.writer import file_sha256
from models.config import FeatureSpec
from models.errors import DataError
from tasks.avel.annotations import SEGMENTS, SPLIT_FILES, locate, read_annotations
from tasks.avel.classes import BACKGROUND, CLASSES
from tasks.avel.h5 import KEY

AUDIO_SHAPE, VISUAL_SHAPE = (SEGMENTS, 128), (SEGMENTS, 7, 7, 512)
BLOCK = 16
BAND_BLOCK = 64  # where chunks of the file span several clips: 64 maps are 126 MB as float64
BAND_ROWS = 64  # most clips that are read at once from such a file


class H5Rows:
    """An array of a h5 file, read a few rows at a time.

    Raises:
        DataError: a file that cannot be read, no array of that name, or another shape or type.
    """

    def __init__(self, file: Path, shape: tuple[int, ...], rows: int | None = None) -> None:
        self.path = file
        try:
            self._dataset: Any = h5py.File(file)[KEY]
        except (OSError, KeyError, RuntimeError) as error:
            raise DataError(f"cannot read '{KEY}' of {file}: {error}; it must be AVE's official h5 file") from None
        found: tuple[int, ...] = getattr(self._dataset, "shape", ())
        expected = (found[0] if rows is None and found else rows, *shape)
        if found != expected:
            hint = (
                "; one row a line of Annotations.txt"
                if found[1:] == shape
                else "; channels come last"
                if len(shape) > 2
                else ""
            )
            raise DataError(f"{file} has shape {found} instead of {expected}{hint}")
        if self._dataset.dtype.kind != "f":
            raise DataError(f"{file} holds {self._dataset.dtype}, not floating-point numbers")
        self.rows: int = found[0]
        self.row_bytes = int(np.prod(shape)) * self._dataset.dtype.itemsize
        self.band: int = self._dataset.chunks[0] if self._dataset.chunks else 1

    def read(self, rows: Sequence[int], dtype: str) -> dict[int, np.ndarray | BadFeature]:
        """Return each row in the stored precision, or why it cannot be had; a chunk is read once for all rows in it."""
        bands: dict[int, list[int]] = {}
        for row in sorted(rows):
            bands.setdefault(row // min(self.band, BAND_ROWS), []).append(row)
        out: dict[int, np.ndarray | BadFeature] = {}
        for band in bands.values():
            try:
                values = self._dataset[band[0] : band[-1] + 1]
            except (OSError, RuntimeError):
                values = None
            for row in band:
                try:
                    out[row] = cast(self._row(row) if values is None else values[row - band[0]], dtype)
                except BadFeature as error:
                    out[row] = error
        return out

    def _row(self, row: int) -> np.ndarray:
        try:
            return np.asarray(self._dataset[row])
        except (OSError, RuntimeError) as error:
            raise BadFeature(f"cannot be read ({str(error)[:100]})") from None

    @property
    def stamp(self) -> dict[str, Any]:
        """What a report says of the file."""
        return {"bytes": self.path.stat().st_size, "dtype": str(self._dataset.dtype), "rows": self.rows}


class AVEPlan:
    """An import of AVE: rows are those of the official arrays, background clips follow.

    Raises:
        DataError: annotations or features that are missing or malformed.
    """

    def __init__(self, options: ImportOptions) -> None:
        source = Path(options.source).expanduser()
        annotations = locate(options.annotations or source)
        self.data = read_annotations(annotations)
        self.count, self.defects = len(self.data.clip_ids), list(self.data.defects)
        self.remarks: list[str] = []
        self._main = {
            "audio": self._open(source, options.audio_file, "audio_feature.h5", AUDIO_SHAPE, self.count, "--audio-file"),
            "visual": self._open(source, options.visual_file, "visual_feature.h5", VISUAL_SHAPE, self.count, "--visual-file"),
        }
        self._noisy = self._background(source, options)
        extra = self._noisy["audio"].rows if self._noisy else 0
        self.splits = dict(self.data.splits)
        if extra:
            self.splits["background"] = np.arange(self.count, self.count + extra)
        self.clip_ids = [*self.data.clip_ids, *(f"background_{i:03d}" for i in range(extra))]
        self.segment = np.concatenate([self.data.segment, np.full((extra, SEGMENTS), BACKGROUND)])
        self.video = np.concatenate([self.data.class_index, np.full(extra, BACKGROUND)])
        arrays = [*self._main.values(), *self._noisy.values()]
        self.parallel = all(array.band == 1 for array in arrays)
        self.block = BLOCK if self.parallel else BAND_BLOCK
        files = [annotations / name for name in ("Annotations.txt", *SPLIT_FILES.values())]
        files += [annotations / "labels_noisy.h5"] if self.data.background_count else []
        self.sources: dict[str, Any] = {
            "annotations": {file.name: {"bytes": file.stat().st_size, "sha256": file_sha256(file)} for file in files},
            "features": {array.path.name: array.stamp for array in arrays},
        }
        self.fingerprint = [self.sources, [(str(a.path), a.path.stat().st_mtime_ns) for a in arrays]]
        synthetic = is_synthetic(source, [annotations, *(array.path.parent for array in arrays)])
        self.spec = DataSpec(
            name=options.name or ("ave-synthetic" if synthetic else "ave"),
            task="avel",
            classes=list(CLASSES),
            features=FeatureSpec(audio_dim=AUDIO_SHAPE[-1], visual_dim=VISUAL_SHAPE[-1], map_size=(7, 7)),
            labels={"segment": [SEGMENTS], "video": []},
            label_dtypes={"segment": "int64", "video": "int64"},
            segments=SEGMENTS,
            synthetic=synthetic,
        )

    def _open(self, source: Path, given: str | None, name: str, shape: tuple[int, ...], rows: int | None, flag: str) -> H5Rows:
        file = find(source, given, [name])
        if file is None:
            raise DataError(f"no {name} in {source} or {source / 'data'}; give the file with {flag}")
        return H5Rows(file, shape, rows)

    def _background(self, source: Path, options: ImportOptions) -> dict[str, H5Rows]:
        """Open the features of background clips, which weak training reads and nothing else needs."""
        given = {"audio": options.noisy_audio_file, "visual": options.noisy_visual_file}
        if NONE in given.values():
            self.remarks.append("the background clips of weak training are left out (none)")
            return {}
        rows: int | None = self.data.background_count or None
        out: dict[str, H5Rows] = {}
        for name, shape in (("audio", AUDIO_SHAPE), ("visual", VISUAL_SHAPE)):
            flag, file = f"--noisy-{name}-file", find(source, given[name], [f"{name}_feature_noisy.h5"])
            if file is None:
                self.remarks.append(f"no {name}_feature_noisy.h5: stored without background clips (give the file with {flag})")
                return {}
            out[name] = H5Rows(file, shape, rows)
            rows = out[name].rows
        return out

    def read(self, split: str, positions: Sequence[int], dtype: str) -> Part:
        """Read the clips at positions of a split; each bad row is named with its file."""
        part, rows = Part(None), [int(self.splits[split][position]) for position in positions]
        first = self.count if split == "background" else 0
        arrays = self._noisy if split == "background" else self._main
        found = {name: array.read([row - first for row in rows], dtype) for name, array in arrays.items()}
        kept: list[int] = []
        values: dict[str, list[Any]] = {name: [] for name in arrays}
        for position, row in zip(positions, rows, strict=True):
            bad = [(name, value) for name in arrays if isinstance(value := found[name][row - first], BadFeature)]
            for name, error in bad:
                text = f"row {row - first} {error}"
                part.left_out.append((position, LeftOut(self.clip_ids[row], str(arrays[name].path), text)))
            if not bad:
                kept.append(row)
                for name in arrays:
                    values[name].append(found[name][row - first])
        if kept:
            part.columns = {
                "row": np.array(kept),
                "clip_id": [self.clip_ids[row] for row in kept],
                "audio": np.stack(values["audio"]),
                "visual": np.stack(values["visual"]),
                "segment": self.segment[kept],
                "video": self.video[kept],
            }
        return part

    def bytes_of(self, rows: set[int]) -> int:
        """Return the size of the official features of some clips."""
        main = sum(array.row_bytes for array in self._main.values())
        noisy = sum(array.row_bytes for array in self._noisy.values())
        return sum(noisy if row >= self.count else main for row in rows)
