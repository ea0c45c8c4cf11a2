"""The numbers of a parquet row group, copied from its pages where nothing has to be decoded.

Stores write features as uncompressed, plainly encoded lists without missing values: their bytes in
the file are the array. A general reader still decodes the two levels that parquet stores for
every value, which costs several times the copy. Anything else (compressed, encoded, another page
version) is left to the general reader.

Pyarrow alone cannot replace it. Clips per second of ``StreamLoader`` on the clips of
``benchmarks/data.py`` (600 videos, 2 x86-64 cores, 1 thread, pyarrow 26.0.1, medians of 5 rounds),
by the way in which a row group is read:

======================================  =======  =======
way                                     float16  float32
======================================  =======  =======
this module                               8,880    4,392
``pq.ParquetFile(path)``                  3,063    1,553
... with ``memory_map=True``              3,002    1,886
... with ``pre_buffer=True``              3,175    1,488
... kept open, with ``memory_map=True``   3,198    1,894
======================================  =======  =======

``python -m benchmarks reading`` measures the first line ("streamed") against its goals.

Source: the parquet format's PageHeader, in thrift's compact protocol; data page version 1.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PLAIN, DATA_PAGE = 0, 0
PHYSICAL: dict[str, Any] = {
    "FLOAT": np.dtype("float32"),
    "FIXED_LEN_BYTE_ARRAY": np.dtype("float16"),
}
STRUCT = 12


def group_range(footer: pq.FileMetaData, group: int) -> tuple[int, int]:
    """Return where a row group starts in its file, and how many bytes it has."""
    meta = footer.row_group(group)
    chunks = [_place(meta.column(i)) for i in range(meta.num_columns)]
    start = min(at for at, _ in chunks)
    return start, max(at + size for at, size in chunks) - start


def read_group(
    raw: bytes,
    start: int,
    footer: pq.FileMetaData,
    group: int,
    *,
    features: dict[str, int],
    others: list[str],
) -> tuple[dict[str, np.ndarray], pa.Table]:
    """Return a row group's features as arrays [rows, values], and its other columns as a table.

    Args:
        raw: the row group's bytes.
        start: their position in the file.
        footer: the file's footer.
        group: index of the row group.
        features: columns of floating-point lists, with the length of the lists.
        others: other columns to read.

    Raises:
        OSError, ValueError, pyarrow.ArrowException: the bytes are not that row group.
    """
    meta = footer.row_group(group)
    chunks = {
        (chunk := meta.column(i)).path_in_schema.partition(".")[0]: chunk
        for i in range(meta.num_columns)
    }
    found = {
        name: _plain_values(raw, start, chunks[name], meta.num_rows * width)
        for name, width in features.items()
    }
    left = [name for name, values in found.items() if values is None]
    with pq.ParquetFile(_Window(raw, start), metadata=footer) as parquet:
        table = parquet.read_row_group(group, columns=[*others, *left], use_threads=False)
    for name in left:
        found[name] = table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return {
        n: v.reshape(meta.num_rows, features[n]) for n, v in found.items() if v is not None
    }, table.select(others)


def column_range(footer: pq.FileMetaData, group: int, name: str) -> tuple[int, int]:
    """Return where a column of a row group starts in its file, and how many bytes it has."""
    meta = footer.row_group(group)
    chunks = (meta.column(i) for i in range(meta.num_columns))
    return _place(next(chunk for chunk in chunks if chunk.path_in_schema == name))


def read_column(raw: bytes, start: int, footer: pq.FileMetaData, group: int, name: str) -> list:
    """Return a column of a row group from its bytes, which begin at `start` in the file.

    Raises:
        OSError, ValueError, pyarrow.ArrowException: the bytes are not that column.
    """
    with pq.ParquetFile(_Window(raw, start), metadata=footer) as parquet:
        return parquet.read_row_group(group, columns=[name], use_threads=False)[name].to_pylist()


def _place(chunk: pq.ColumnChunkMetaData) -> tuple[int, int]:
    at = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        at = min(at, chunk.dictionary_page_offset)
    return at, chunk.total_compressed_size


def _plain_values(
    raw: bytes, start: int, chunk: pq.ColumnChunkMetaData, count: int
) -> np.ndarray | None:
    """Return the values of a column chunk, or None if they need decoding."""
    dtype = PHYSICAL.get(chunk.physical_type)
    at, size = _place(chunk)
    if (
        dtype is None
        or chunk.compression != "UNCOMPRESSED"
        or chunk.has_dictionary_page
        or chunk.num_values != count
    ):
        return None
    out, filled = np.empty(count, dtype), 0
    try:
        for first, values in _pages(raw, at - start, at - start + size, dtype.itemsize):
            out[filled : filled + values] = np.frombuffer(raw, dtype, values, first)
            filled += values
    except (ValueError, IndexError):
        return None
    return out if filled == count else None


def _pages(raw: bytes, at: int, end: int, itemsize: int) -> Iterator[tuple[int, int]]:
    """Yield the position of each page's values, and their number."""
    while at < end:
        header, at = _struct(raw, at)
        about, size = header.get(5), header.get(3, -1)
        if (
            header.get(1) != DATA_PAGE
            or not isinstance(about, dict)
            or about.get(2) != PLAIN
            or size < 0
        ):
            raise ValueError("the page is of another kind")
        first = at
        for _ in range(2):  # skip repetition and definition levels, each preceded by its length
            first += 4 + int.from_bytes(raw[first : first + 4], "little")
        # Not equal if a value is missing or an item has another size.
        if first + about[1] * itemsize != at + size:
            raise ValueError("the values do not fill the page")
        yield first, about[1]
        at += size


def _struct(raw: bytes, at: int) -> tuple[dict[int, Any], int]:
    """Read a struct in thrift's compact protocol; return its fields by number, and its end."""
    fields: dict[int, Any] = {}
    number = 0
    while kind := raw[at]:
        at += 1
        if kind >> 4:
            number += kind >> 4
        else:
            number, at = _integer(raw, at)
        kind &= 15
        if kind in (1, 2):
            fields[number] = kind == 1
        elif kind in (4, 5, 6):
            fields[number], at = _integer(raw, at)
        elif kind == 8:
            size, at = _varint(raw, at)
            fields[number], at = raw[at : at + size], at + size
        elif kind == STRUCT:
            fields[number], at = _struct(raw, at)
        else:
            raise ValueError(f"field of kind {kind}, which no page header has")
    return fields, at + 1


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte, at = raw[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _integer(raw: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(raw, at)
    return (value >> 1) ^ -(value & 1), at


class _Window(io.BytesIO):
    """A part of a file, read by the offsets of the whole file."""

    def __init__(self, raw: bytes, start: int) -> None:
        super().__init__(raw)
        self.start = start

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return super().seek(offset - self.start * (whence == io.SEEK_SET), whence) + self.start

    def tell(self) -> int:
        return super().tell() + self.start
