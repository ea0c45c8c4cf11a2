"""Training batches streamed from parquet shards, on disk or on the Hub, without mapped arrays.

Every process computes the same order of an epoch's clips from the shards' footers
(`sampling.stream_order`), so that each clip is seen exactly once per epoch for any number of
processes and shards, and all processes have the same number of batches. A process reads only the
row groups that hold its own clips, each once, and drops them after their last clip; a resumed epoch
does not read row groups that only earlier batches needed. The shuffle buffer of `datasets` is not
used, because it unpacks every feature value in Python.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Unpack

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from avplatform.data.reading.arrays import known_labels, make_batch, table_columns
from avplatform.data.reading.loader import BatchOptions, Share, SharingLoader
from avplatform.data.reading.pages import column_range, group_range, read_column, read_group
from avplatform.data.reading.sampling import count_batches, stream_order
from avplatform.data.reading.shards import Shards
from avplatform.data.store.schema import Manifest

READERS = 8
"""Row groups whose ids are read at once."""


class StreamLoader(SharingLoader):
    """Streams one or more splits of a store, with the interface of `TrainLoader`.

    Shards are checked by their footers, not by their sha256, which would read every byte once more.
    Without `shuffle` the batches follow the files, and each of several processes reads nearly all
    of them.

    Args:
        shards: the store's shards.
        manifest: the store's manifest.
        splits: names of the splits, in the order in which they are joined.
        batches: the arguments of `SharingLoader`.

    Raises:
        DataError: a shard is missing or does not match the manifest.
    """

    def __init__(
        self,
        shards: Shards,
        manifest: Manifest,
        splits: list[str],
        **batches: Unpack[BatchOptions],
    ) -> None:
        super().__init__(**batches)
        self.shards, self.spec = shards, manifest.spec
        self.labels = known_labels(manifest.spec, *splits)
        self.files = [shard for split in splits for shard in manifest.splits[split].shards]
        self.footers = shards.footers(self.files)
        self.group_sizes = [
            [f.row_group(i).num_rows for i in range(f.num_row_groups)] for f in self.footers
        ]
        self.groups = [
            (file, group)
            for file, sizes in enumerate(self.group_sizes)
            for group in range(len(sizes))
        ]
        self.clips = sum(manifest.splits[split].rows for split in splits)

    def __len__(self) -> int:
        return count_batches(self.clips, self.batch_size, drop_last=self.drop_last)

    def clip_ids(self) -> list[str]:
        """Return the ids of all clips; only their column is read."""
        with ThreadPoolExecutor(READERS) as pool:
            return [name for group in pool.map(self._ids, self.groups) for name in group]

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Share]:
        """Yield this process's shares, without reading what only batches before `start` need."""
        group, row = stream_order(
            self.group_sizes, self.batch_size, seed=self.seed, epoch=epoch, shuffle=self.shuffle
        )
        parts = []  # per batch: its global size, the places to read, this process's clips
        for number in range(start, len(self)):
            batch = np.arange(
                number * self.batch_size, min((number + 1) * self.batch_size, self.clips)
            )
            parts.append((len(batch), *self.part(batch)))
        uses = Counter(int(g) for _, places, _ in parts for g in np.unique(group[places]))
        held = _HeldGroups(self._read, uses)
        return self.shares(
            [
                partial(self._share, held, size, group[places], row[places], clips)
                for size, places, clips in parts
            ]
        )

    def _share(
        self, held: _HeldGroups, size: int, groups: np.ndarray, rows: np.ndarray, clips: int
    ) -> Share:
        """Gather clips from their row groups, in the given order."""
        columns: dict[str, Any] = {}
        clip_ids = np.empty(len(rows), dtype=object)
        for number in np.unique(groups):
            places = np.flatnonzero(groups == number)
            with held.group(int(number)) as (found, ids):
                for name, values in found.items():
                    if name not in columns:
                        columns[name] = np.empty((len(rows), *values.shape[1:]), values.dtype)
                    columns[name][places] = values[rows[places]]
                clip_ids[places] = ids[rows[places]]
        tensors: dict[str, Tensor] = {
            name: torch.from_numpy(values) for name, values in columns.items()
        }
        return Share(size, make_batch(self.spec, tensors, clip_ids.tolist()), clips)

    def _ids(self, place: tuple[int, int]) -> list[str]:
        file, group = place
        shard, footer = self.files[file], self.footers[file]
        try:
            start, size = column_range(footer, group, "clip_id")
            return read_column(
                self.shards.read(shard, start, size), start, footer, group, "clip_id"
            )
        except (OSError, pa.ArrowException, ValueError, RuntimeError) as error:
            raise self.shards.failure(shard, error) from None

    def _read(self, number: int) -> _Group:
        """Read one row group."""
        file, group = self.groups[number]
        shard = self.files[file]
        footer, shapes = self.footers[file], self.spec.shapes()
        widths = {name: int(np.prod(shapes[name])) for name in self.spec.feature_names}
        try:
            start, size = group_range(footer, group)
            raw = self.shards.read(shard, start, size)
            features, table = read_group(
                raw, start, footer, group, features=widths, others=["row", "clip_id", *self.labels]
            )
        except (OSError, pa.ArrowException, ValueError, RuntimeError) as error:
            raise self.shards.failure(shard, error) from None
        columns = {name: values.reshape(-1, *shapes[name]) for name, values in features.items()}
        ids = np.array(table.column("clip_id").to_pylist(), dtype=object)
        return {**columns, **table_columns(self.spec, table)}, ids


_Group = tuple[dict[str, np.ndarray], np.ndarray]  # the columns of a row group, and its clip ids


class _HeldGroups:
    """Row groups in memory, each read at its first use and dropped after its last; thread-safe."""

    def __init__(self, read: Callable[[int], _Group], uses: Counter[int]) -> None:
        self._read, self._left = read, uses
        self._held: dict[int, _Group] = {}
        self._lock = threading.Lock()
        self._locks = {number: threading.Lock() for number in uses}

    @contextlib.contextmanager
    def group(self, number: int) -> Iterator[_Group]:
        """Hold a row group in memory."""
        group = self._take(number)
        try:
            yield group
        finally:
            with self._lock:
                self._left[number] -= 1
                if not self._left[number]:
                    self._held.pop(number, None)

    def _take(self, number: int) -> _Group:
        with self._locks[number]:  # a second thread waits for the one that reads
            if number not in self._held:
                self._held[number] = self._read(number)
            return self._held[number]
