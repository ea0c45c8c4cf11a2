"""A store through Hugging Face `datasets`: a split as a map-style Dataset without a copy, or as a stream shared out once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from avplatform.data.arrays import SplitArrays, known_labels, make_batch
from avplatform.data.schema import DataSpec
from models.errors import DataError, UsageError
from tasks.contracts import Batch

if TYPE_CHECKING:
    import datasets

    from avplatform.data.source import DataSource


def as_dataset(split: SplitArrays, *, fingerprint: str) -> datasets.Dataset:
    """Return a split as a `datasets.Dataset` whose columns are the mapped arrays themselves.

    Features and labels are flat lists of fixed size. The dataset is in arrow format: asked for a list of positions it
    returns a table, which `batch_of` turns into a Batch without unpacking a value in Python; every other format of
    `datasets` works too (`with_format("numpy")`), and slower.

    Args:
        split: the mapped split.
        fingerprint: names the contents, so that `datasets` need not read them all to name its caches.
    """
    import datasets
    from datasets.table import InMemoryTable

    columns: dict[str, pa.Array] = {}
    for name, values in split.columns().items():
        memory: Any = values.reshape(-1).view(np.uint8)
        flat = pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), values.size, [None, pa.py_buffer(memory)])
        columns[name] = flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values[0].size)
    columns["clip_id"] = pa.array(split.clip_ids, type=pa.string())
    table = InMemoryTable(pa.table(columns))
    dataset = datasets.Dataset(table, split=datasets.NamedSplit(split.name), fingerprint=f"{fingerprint[:16]}-{split.name}")
    return dataset.with_format("arrow")


def batch_of(spec: DataSpec, table: pa.Table, *, dtype: torch.dtype = torch.float32) -> Batch:
    """Turn a table of clips (from `as_dataset` or a stream in arrow format) into a Batch.

    Raises:
        DataError: a column has empty entries.
    """
    # A table is in one piece, which may be a view of the mapped file, or (gathered from a dataset) in as many as it has clips.
    # They are joined for all columns in one call, and neither here nor below by name: with few clips, that is what costs.
    pieces = [column.num_chunks for column in table.columns]
    whole = table.combine_chunks() if max(pieces) > 1 else table
    shapes, features = {"row": (), **spec.shapes()}, spec.feature_names
    tensors = {}
    for name, count, (column,) in zip(table.column_names, pieces, (c.chunks for c in whole.columns), strict=True):
        if name not in shapes:
            continue
        values = column
        if shapes[name]:
            width = column.type.list_size
            values = column.values.slice(column.offset * width, len(column) * width)
        if column.null_count or values.null_count:
            raise DataError(f"the column {name!r} of a table of '{spec.name}' has empty entries")
        tensor = torch.from_dlpack(values).reshape(len(table), *shapes[name])
        casts = tensor.dtype != dtype if name in features else tensor.dtype == torch.uint8
        tensors[name] = tensor if casts or count > 1 else tensor.clone()  # a batch shares its memory with nothing
    return make_batch(spec, tensors, whole.column("clip_id").to_pylist(), dtype=dtype)


def stream_dataset(
    source: DataSource | datasets.IterableDataset,
    split: str | Sequence[str] = "train",
    *,
    process_index: int = 0,
    num_processes: int = 1,
) -> datasets.IterableDataset:
    """Return one process's part of a split as a `datasets.IterableDataset` in arrow format, for loops of one's own.

    It holds the clips' rows, ids and features, and the labels that are known in the split.

    The parts of all processes hold every clip once; they may differ in length, so a loop must not count on equal numbers
    of batches (`StreamLoader`, which training uses, gives equal numbers). Either this function deals the clips or Accelerate
    does, with `num_processes=1` here: a share that is split again, or read through a DataLoader that Accelerate prepared,
    raises UsageError.

    Args:
        source: a store, or a stream of one's own.
        split: of the store; several are read one after the other.
        process_index: whose part,
        num_processes: of how many.

    Raises:
        UsageError: the stream was split by node already: half of the clips or more would silently be lost.
    """
    import datasets

    from avplatform.data.once import share_of

    if isinstance(source, datasets.IterableDataset):
        stream = source
    else:
        names = [source.split_name(name) for name in ([split] if isinstance(split, str) else split)]
        shards = [shard for name in names for shard in source.manifest.splits[name].shards]
        source.shards.footers(shards)  # what is missing or damaged is said before anything is read
        files = {"train": source.shards.urls(shards)}
        # Labels that are not known in all of these splits are zeros in the files, and would pass as labels.
        columns = ["row", "clip_id", *source.spec.feature_names, *known_labels(source.spec, *names)]
        stream = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True, columns=columns)
        stream = stream.with_format("arrow")
    if not 0 <= process_index < num_processes:
        raise UsageError(f"process_index is {process_index}; of {num_processes} processes it must be 0 to {num_processes - 1}")
    return share_of(stream, process_index, num_processes)
