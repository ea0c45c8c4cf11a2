"""The features of single clips of a store, read by the clips' ids."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from avplatform.base.files import arrow_path
from avplatform.data.store.schema import Manifest
from avplatform.models.errors import DataError
from avplatform.models.files import file_sha256


class Place(NamedTuple):
    """Where a clip lies: its split, shard and row group, and its number in the row group."""

    split: str
    file: str
    group: int
    number: int


class StoredClips:
    """Reads the features of clips one by one; of each split, the last row group is kept.

    Args:
        folder: the store.
        manifest: its manifest.

    Raises:
        DataError: a shard cannot be read.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.places: dict[str, Place] = {}
        """The clips by id, in the order of the store."""
        self.repeated: str | None = None
        """An id that several clips have."""
        self._lock = threading.Lock()
        self._open: dict[str, tuple[str, int, dict[str, np.ndarray]]] = {}
        for split, info in manifest.splits.items():
            for shard in info.shards:
                self._index(split, shard.file)

    def load(self, clip_id: str) -> dict[str, np.ndarray]:
        """Return the features of a clip, by name."""
        split, file, group, number = self.places[clip_id]
        with self._lock:
            kept = self._open.get(split)
            if kept is None or kept[:2] != (file, group):
                kept = self._open[split] = (file, group, self._read(file, group))
            return {name: values[number] for name, values in kept[2].items()}

    def check_files(self) -> None:
        """Check that the shards are those of the manifest.

        Raises:
            DataError: a shard is missing or damaged.
        """
        for info in self.manifest.splits.values():
            for shard in info.shards:
                file = self.folder / shard.file
                if not file.is_file() or file_sha256(file) != shard.sha256:
                    raise DataError(
                        f"{file} is missing or damaged: it is not the file in the manifest; "
                        "`avplatform data verify` says more, and a new folder can be written"
                    )

    def _index(self, split: str, file: str) -> None:
        try:
            with pq.ParquetFile(arrow_path(self.folder / file)) as parquet:
                for group in range(parquet.num_row_groups):
                    ids = parquet.read_row_group(group, columns=["clip_id"])["clip_id"].to_pylist()
                    for number, clip_id in enumerate(ids):
                        if clip_id in self.places:
                            self.repeated = clip_id
                        self.places[clip_id] = Place(split, file, group, number)
        except (OSError, pa.ArrowException) as error:
            text = str(error).splitlines()[0][:120]
            raise DataError(f"{self.folder / file} cannot be read ({text})") from None

    def _read(self, file: str, group: int) -> dict[str, np.ndarray]:
        spec = self.manifest.spec
        with pq.ParquetFile(arrow_path(self.folder / file)) as parquet:
            table = parquet.read_row_group(group, columns=spec.feature_names)
        shapes = spec.shapes()
        return {
            name: table[name]
            .combine_chunks()
            .flatten()
            .to_numpy(zero_copy_only=False)
            .reshape(-1, *shapes[name])
            for name in spec.feature_names
        }
