"""Training batches streamed from parquet shards through `datasets`, for data that do not fit or are not here.

Every process reads the same sequence of record batches, shuffled by shards, then by blocks of rows, and keeps its share of
each global batch: a clip is seen exactly once an epoch whatever the number of processes and shards, and no process can run
dry before another. The stock per-example shuffle buffer is not used: it unpacks every feature value in Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from avplatform.data.arrays import check_shard, make_batch
from avplatform.data.loader import Share
from avplatform.data.sampling import count_batches, process_share
from avplatform.data.schema import Manifest
from avplatform.data.writer import arrow_schema

BLOCK_BATCHES = 8  # global batches in the block whose rows are mixed


class StreamLoader:
    """Stream one or more splits of a store; the same interface as `TrainLoader`.

    Shards are checked by their footers; their sha256 is not computed, which would read every byte once more.

    Raises:
        DataError: a shard is missing or holds something else than the manifest says.
    """

    def __init__(
        self,
        store: Path,
        manifest: Manifest,
        splits: list[str],
        *,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        drop_last: bool = False,
        process_index: int = 0,
        num_processes: int = 1,
    ) -> None:
        self.spec = manifest.spec
        schema = arrow_schema(manifest.spec, manifest.dtype)
        self.files = [str(check_shard(store, shard, schema)) for split in splits for shard in manifest.splits[split].shards]
        self.clips = sum(manifest.splits[split].rows for split in splits)
        self.batch_size, self.seed, self.shuffle, self.drop_last = batch_size, seed, shuffle, drop_last
        self.process_index, self.num_processes = process_index, num_processes

    def __len__(self) -> int:
        return count_batches(self.clips, self.batch_size, drop_last=self.drop_last)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Share]:
        """Yield shares; blocks before `start` are read over, not gathered."""
        rng = np.random.default_rng([self.seed, epoch])
        number = 0
        for block in self._blocks(rng):
            order = rng.permutation(len(block)) if self.shuffle else np.arange(len(block))
            for first in range(0, len(block), self.batch_size):
                chosen = order[first : first + self.batch_size]
                if self.drop_last and len(chosen) < self.batch_size:
                    return
                if number >= start:
                    yield self._share(block, chosen)
                number += 1

    def _blocks(self, rng: np.random.Generator) -> Iterator[pa.Table]:
        """Yield tables of BLOCK_BATCHES global batches; the last one may be smaller."""
        from datasets import load_dataset

        files = [self.files[i] for i in rng.permutation(len(self.files))] if self.shuffle else self.files
        stream = load_dataset("parquet", data_files={"train": files}, split="train", streaming=True)
        size = BLOCK_BATCHES * self.batch_size
        waiting: list[pa.Table] = []
        for table in stream.with_format("arrow").iter(batch_size=self.batch_size):
            waiting.append(table)
            if sum(map(len, waiting)) >= size:
                joined = pa.concat_tables(waiting)
                yield joined.slice(0, size).combine_chunks()
                waiting = [joined.slice(size)]
        if sum(map(len, waiting)):
            yield pa.concat_tables(waiting).combine_chunks()

    def _share(self, block: pa.Table, chosen: np.ndarray) -> Share:
        mine = process_share(chosen, self.process_index, self.num_processes)
        rows = block.take(pa.array(mine if len(mine) else chosen[:1]))
        columns: dict[str, Any] = {"row": np.array(rows.column("row").to_numpy())}
        for name, shape in self.spec.shapes().items():
            column = rows.column(name).combine_chunks()
            flat = column.flatten() if shape else column
            columns[name] = np.array(flat.to_numpy(zero_copy_only=False)).reshape(len(rows), *shape)
        return Share(len(chosen), make_batch(self.spec, columns, rows.column("clip_id").to_pylist()), len(mine))
