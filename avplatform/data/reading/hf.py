"""A split as a map-style Dataset of Hugging Face `datasets` without a copy, and back to a Batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from avplatform.data.reading.arrays import SplitArrays, make_batch
from avplatform.data.store.schema import DataSpec
from avplatform.models.errors import DataError
from avplatform.tasks.batch import Batch

if TYPE_CHECKING:
    import datasets


def as_dataset(split: SplitArrays, *, fingerprint: str) -> datasets.Dataset:
    """Return a split as a `datasets.Dataset` whose columns are the mapped arrays themselves.

    Features and labels are flat lists of fixed size. The dataset has arrow format: indexed with a
    list of positions it returns a table, which `batch_of` turns into a Batch without unpacking
    values in Python. The other formats of `datasets`, e.g. `with_format("numpy")`, work but are
    slower.

    Args:
        split: the mapped split.
        fingerprint: identifies the contents; without it `datasets` would read them all to name its
            caches.
    """
    import datasets
    from datasets.table import InMemoryTable

    columns: dict[str, pa.Array] = {}
    for name, values in split.columns().items():
        memory: Any = values.reshape(-1).view(np.uint8)
        flat = pa.Array.from_buffers(
            pa.from_numpy_dtype(values.dtype), values.size, [None, pa.py_buffer(memory)]
        )
        columns[name] = (
            flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values[0].size)
        )
    columns["clip_id"] = pa.array(split.clip_ids, type=pa.string())
    table = InMemoryTable(pa.table(columns))
    dataset = datasets.Dataset(
        table, split=datasets.NamedSplit(split.name), fingerprint=f"{fingerprint[:16]}-{split.name}"
    )
    return dataset.with_format("arrow")


def batch_of(spec: DataSpec, table: pa.Table, *, dtype: torch.dtype = torch.float32) -> Batch:
    """Turn a table of clips (from `as_dataset` or a stream in arrow format) into a Batch.

    Raises:
        DataError: a column has empty entries.
    """
    # A column is one piece, perhaps a view of the mapped file, or one piece per clip if the table
    # was gathered from a dataset. All columns are joined in one call and never looked up by name:
    # with few clips, these calls are what takes time.
    pieces = [column.num_chunks for column in table.columns]
    whole = table.combine_chunks() if max(pieces) > 1 else table
    shapes, features = {"row": (), **spec.shapes()}, spec.feature_names
    tensors = {}
    for name, count, (column,) in zip(
        table.column_names, pieces, (c.chunks for c in whole.columns), strict=True
    ):
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
        # A batch shares its memory with nothing: clone what neither a cast nor a join has copied.
        tensors[name] = tensor if casts or count > 1 else tensor.clone()
    return make_batch(spec, tensors, whole.column("clip_id").to_pylist(), dtype=dtype)
