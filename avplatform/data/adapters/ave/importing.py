"""Import of AVE: h5 arrays with one row per line of Annotations.txt, and background clips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from avplatform.base.npy import NUMBERS, BadFeature
from avplatform.data.adapters.ave.annotations import (
    SEGMENTS,
    SPLIT_FILES,
    beside,
    locate,
    read_annotations,
)
from avplatform.data.adapters.ave.classes import BACKGROUND
from avplatform.data.adapters.ave.h5 import KEY
from avplatform.data.adapters.contracts import DatasetAdapter
from avplatform.data.adapters.options import NONE
from avplatform.data.adapters.plan import (
    LeftOut,
    Part,
    cast,
    in_no_split,
    stamps,
    whole_numbers,
)
from avplatform.data.adapters.source import Source
from avplatform.models.errors import DataError

AUDIO_SHAPE, VISUAL_SHAPE = (SEGMENTS, 128), (SEGMENTS, 7, 7, 512)
SHAPES = {"audio": AUDIO_SHAPE, "visual": VISUAL_SHAPE}
BLOCK = 16
# Chunks that span several clips can only be read whole: larger blocks read each chunk less often.
BAND_BLOCK = 64
BAND_ROWS = 64  # most clips that are read at once from such a file; 64 maps are 126 MB as float64


class H5Rows:
    """An array of an h5 file, read a few rows at a time.

    Raises:
        DataError: the file cannot be read or has no such array of that shape and type.
    """

    def __init__(self, file: Path, shape: tuple[int, ...], rows: int | None = None) -> None:
        self.path = file
        try:
            self._dataset: Any = h5py.File(file)[KEY]
        except (OSError, KeyError, RuntimeError) as error:
            raise DataError(
                f"cannot read '{KEY}' of {file}: {error}; it must be AVE's official h5 file"
            ) from None
        found: tuple[int, ...] = getattr(self._dataset, "shape", ())
        expected = (found[0] if rows is None and found else rows, *shape)
        if found != expected:
            hint = "; channels come last" if len(shape) > 2 else ""
            if found[1:] == shape:
                hint = "; one row per line of Annotations.txt"
            raise DataError(f"{file} has shape {found} instead of {expected}{hint}")
        if self._dataset.dtype.kind not in NUMBERS:
            raise DataError(f"{file} holds {self._dataset.dtype}, not numbers")
        self.rows: int = found[0]
        self.shape = shape
        self.row_bytes = int(np.prod(shape)) * self._dataset.dtype.itemsize
        self.band = self._band()
        self.note = whole_numbers(self._dataset.dtype, file.name)

    def _band(self) -> int:
        """Return how many rows must be read at once; 1 where a row can be read on its own."""
        chunks = self._dataset.chunks
        if chunks is None or (
            chunks[1:] == self.shape and self._dataset.id.get_create_plist().get_nfilters() == 0
        ):
            return 1
        return min(chunks[0], BAND_ROWS)

    def read(self, rows: Sequence[int], dtype: str) -> tuple[np.ndarray, dict[int, str]]:
        """Return rows in the stored precision, and for each bad row the reason.

        A chunk is read once for all rows in it, and only one band is in memory besides the result.

        Shape: returns [len(rows), *shape], with zeros for bad rows.
        """
        bands: dict[int, list[int]] = {}
        for row in sorted(rows):
            bands.setdefault(row // self.band, []).append(row)
        out, bad = np.zeros((len(rows), *self.shape), dtype), dict[int, str]()
        place = {row: i for i, row in enumerate(rows)}
        for band in bands.values():
            values = self._read_band(band)
            for row in band:
                try:
                    out[place[row]] = cast(
                        self._row(row) if values is None else values[row - band[0]], dtype
                    )
                except BadFeature as error:
                    bad[row] = str(error)
            del values  # before the next one is read
        return out, bad

    def _read_band(self, band: list[int]) -> np.ndarray | None:
        """Return all rows from the first to the last of a band, or None to read them one by one."""
        if len(band) == 1:
            return None
        try:
            return np.asarray(self._dataset[band[0] : band[-1] + 1])
        except (OSError, RuntimeError):
            return None

    def _row(self, row: int) -> np.ndarray:
        try:
            return np.asarray(self._dataset[row])
        except (OSError, RuntimeError) as error:
            raise BadFeature(f"cannot be read ({str(error)[:100]})") from None

    @property
    def stamp(self) -> dict[str, Any]:
        """Size, type and rows of the file, for the provenance."""
        return {
            "bytes": self.path.stat().st_size,
            "dtype": str(self._dataset.dtype),
            "rows": self.rows,
        }


class AVEPlan:
    """The plan of an import of AVE: rows are those of the official arrays, background clips follow.

    Raises:
        DataError: annotations or features are missing or malformed.
    """

    def __init__(self, adapter: DatasetAdapter, options: Any) -> None:
        source = Source(options.source)
        annotations = locate(options.annotations or source.folder)
        self.data = read_annotations(annotations)
        self.count, self.defects = len(self.data.clip_ids), list(self.data.defects)
        self.left_out = in_no_split(self.defects, annotations, "no order file")
        self.remarks: list[str] = []
        self._main: dict[str, H5Rows] = {}
        for name, shape in SHAPES.items():
            file = source.find([f"{name}_feature.h5"], getattr(options, f"{name}_file"))
            if file is None:
                raise source.missing(f"{name}_feature.h5", f"give the file with --{name}-file")
            self._main[name] = H5Rows(file, shape, self.count)
        self._noisy = self._background(source, options)
        extra = self._noisy["audio"].rows if self._noisy else 0
        self.splits = dict(self.data.splits)
        if extra:
            self.splits["background"] = np.arange(self.count, self.count + extra)
        self.clip_ids = [*self.data.clip_ids, *(f"background_{i:03d}" for i in range(extra))]
        self.segment = np.concatenate([self.data.segment, np.full((extra, SEGMENTS), BACKGROUND)])
        self.video = np.concatenate([self.data.class_index, np.full(extra, BACKGROUND)])
        arrays = [*self._main.values(), *self._noisy.values()]
        self.defects += [array.note for array in arrays if array.note is not None]
        self.parallel = all(array.band == 1 for array in arrays)
        self.block = BLOCK if self.parallel else BAND_BLOCK
        names = ["Annotations.txt", *SPLIT_FILES.values()]
        names += ["labels_noisy.h5"] if self.data.background_count else []
        self.sources: dict[str, Any] = {
            "annotations": stamps({name: beside(annotations, name) for name in names}),
            "features": {array.path.name: array.stamp for array in arrays},
        }
        self.fingerprint = [
            self.sources,
            [(str(a.path), a.path.stat().st_mtime_ns) for a in arrays],
        ]
        synthetic = source.is_synthetic([annotations, *(array.path.parent for array in arrays)])
        self.spec = adapter.store_spec(
            options.name,
            {"segment": [SEGMENTS], "video": []},
            label_dtypes={"segment": "int64", "video": "int64"},
            synthetic=synthetic,
        )

    def _background(self, source: Source, options: Any) -> dict[str, H5Rows]:
        """Open the features of background clips, which only weak training needs."""
        given = {name: getattr(options, f"noisy_{name}_file") for name in SHAPES}
        if NONE in given.values():
            self.remarks.append("the background clips of weak training are left out (none)")
            return {}
        rows: int | None = self.data.background_count or None
        out: dict[str, H5Rows] = {}
        for name, shape in SHAPES.items():
            file = source.find([f"{name}_feature_noisy.h5"], given[name])
            if file is None:
                self.remarks.append(
                    f"no {name}_feature_noisy.h5: stored without background clips "
                    f"(give the file with --noisy-{name}-file)"
                )
                return {}
            out[name] = H5Rows(file, shape, rows)
            rows = out[name].rows
        return out

    def read(self, split: str, positions: Sequence[int], dtype: str) -> Part:
        """Read the clips at some positions of a split; each bad row is listed with its file."""
        part, rows = Part(None), [int(self.splits[split][position]) for position in positions]
        first = self.count if split == "background" else 0
        arrays = self._noisy if split == "background" else self._main
        found = {
            name: array.read([row - first for row in rows], dtype) for name, array in arrays.items()
        }
        good: list[int] = []  # places of the rows without a bad value
        for place, (position, row) in enumerate(zip(positions, rows, strict=True)):
            bad = [
                (name, reasons[row - first])
                for name, (_, reasons) in found.items()
                if row - first in reasons
            ]
            for name, reason in bad:
                text = f"row {row - first} {reason}"
                part.left_out.append(
                    (position, LeftOut(self.clip_ids[row], str(arrays[name].path), text))
                )
            if not bad:
                good.append(place)
        if good:
            kept = [rows[place] for place in good]
            features = {
                name: values if len(good) == len(rows) else values[good]
                for name, (values, _) in found.items()
            }
            part.columns = {
                "row": np.array(kept),
                "clip_id": [self.clip_ids[row] for row in kept],
                **features,
                "segment": self.segment[kept],
                "video": self.video[kept],
            }
        return part

    def bytes_of(self, rows: set[int]) -> int:
        """Return the size in bytes of some clips' features in the official files."""
        main = sum(array.row_bytes for array in self._main.values())
        noisy = sum(array.row_bytes for array in self._noisy.values())
        return sum(noisy if row >= self.count else main for row in rows)
