"""Write a store: parquet shards of flat fixed-size lists, checksums and a manifest, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from avplatform.data.schema import (
    FEATURE_DTYPES,
    MANIFEST_FILE,
    NAME,
    DataSpec,
    Manifest,
    Shard,
    SplitInfo,
    check_columns,
)
from models.errors import DataError, UsageError, nearest

SHARD_BYTES = 128 * 2**20  # uncompressed features in a shard
GROUP_BYTES = 4 * 2**20  # and in a row group
COMPRESSIONS = ("none", "zstd")


class StoreWriter:
    """Writes a store clip by clip with flat memory; the folder appears under its name when all is written.

    Args:
        path: folder to make; it must not exist, or be empty.
        spec: what the store holds.
        dtype: "float16" or "float32", the precision of the features.
        card: makes the text of README.md from the finished manifest.
        rows_per_shard: clips in a shard; by default as many as SHARD_BYTES hold.
        compression: of the shards, "none" or "zstd"; features are noise to a compressor, labels and rows of zeros are not.

    Raises:
        UsageError: the folder is not empty, or an option is none of its choices.
        DataError: columns that do not fit the spec, rows that occur twice, or a store without clips.
    """

    def __init__(
        self,
        path: str | Path,
        spec: DataSpec,
        *,
        dtype: str = "float16",
        card: Callable[[Manifest], str] | None = None,
        rows_per_shard: int | None = None,
        compression: str = "none",
    ) -> None:
        for name, value, choices in (("dtype", dtype, FEATURE_DTYPES), ("compression", compression, COMPRESSIONS)):
            if value not in choices:
                raise UsageError(f"{name} is {value!r}{nearest(value, choices)}; choose from {', '.join(choices)}")
        if rows_per_shard is not None and rows_per_shard < 1:
            raise UsageError(f"rows_per_shard is {rows_per_shard}; it must be at least 1")
        self.path, self.spec, self.dtype, self.card = Path(path), spec, dtype, card
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UsageError(f"{self.path} exists and is not empty; give a new folder")
        self.manifest: Manifest | None = None
        self._temporary = self.path.with_name(f".{self.path.name}.partial-{os.getpid()}")
        self._schema = arrow_schema(spec, dtype)
        clip_bytes = sum(np.prod(spec.shapes()[name]) for name in spec.feature_names) * np.dtype(dtype).itemsize
        self._shard_rows = rows_per_shard or max(1, int(SHARD_BYTES // clip_bytes))
        self._group_rows = min(self._shard_rows, max(1, int(GROUP_BYTES // clip_bytes)))
        self._compression = compression
        self._splits: dict[str, _SplitWriter] = {}
        self._rows: set[int] = set()
        self._content = hashlib.sha256()

    def __enter__(self) -> StoreWriter:
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir(parents=True)
        return self

    def add(self, split: str, columns: dict[str, Any]) -> None:
        """Add clips to a split: "row", "clip_id", every feature and every label, with n entries each."""
        if not NAME.fullmatch(split):
            raise DataError(f"split {split!r}: the name becomes a file's; use letters, digits, _ and -")
        columns = check_columns(self.spec, split, columns)
        for row, clip_id in zip(columns["row"].tolist(), columns["clip_id"], strict=True):
            if row in self._rows:
                raise DataError(f"split {split}: row {row} (clip {clip_id}) is added twice; rows are unique in a dataset")
            self._rows.add(row)
        arrays = []
        for field in self._schema:
            if field.name == "clip_id":
                self._content.update("\n".join(columns["clip_id"]).encode())
                arrays.append(pa.array(columns["clip_id"], type=pa.string()))
                continue
            values = np.asarray(columns[field.name])
            if field.name in self.spec.feature_names:
                with np.errstate(over="ignore"):
                    values = values.astype(self.dtype)
                finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
                if not finite.all():
                    clip, row = columns["clip_id"][finite.argmin()], columns["row"][finite.argmin()]
                    what = f"{field.name} of clip {clip} (row {row}) does not fit {self.dtype}"
                    raise DataError(f"split {split}: {what}; store it as float32")
            values = np.ascontiguousarray(values, dtype=_numpy_type(field.type))
            self._content.update(values.tobytes())
            flat = pa.array(values.reshape(-1))
            size = getattr(field.type, "list_size", None)
            arrays.append(flat if size is None else pa.FixedSizeListArray.from_arrays(flat, size))
        if split not in self._splits:
            self._splits[split] = _SplitWriter(
                self._temporary, split, self._schema, self._group_rows, self._shard_rows, self._compression
            )
        self._splits[split].add(pa.Table.from_arrays(arrays, schema=self._schema))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            for writer in self._splits.values():
                writer.close_shard()
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _finish(self) -> None:
        splits = {name: writer.close() for name, writer in self._splits.items()}
        if not splits:
            raise DataError(f"no clip was added to {self.path}")
        checksum = self._content.hexdigest()
        self.manifest = Manifest(spec=self.spec, splits=splits, dtype=self.dtype, checksum=checksum)
        (self._temporary / MANIFEST_FILE).write_text(self.manifest.to_json())
        if self.card is not None:
            (self._temporary / "README.md").write_text(self.card(self.manifest))
        if self.path.is_dir():
            self.path.rmdir()
        os.replace(self._temporary, self.path)


class _SplitWriter:
    """Cuts one split into row groups and shards."""

    def __init__(
        self, folder: Path, split: str, schema: pa.Schema, group_rows: int, shard_rows: int, compression: str
    ) -> None:
        self.folder, self.split, self.schema, self.compression = folder, split, schema, compression
        self.group_rows, self.shard_rows = group_rows, shard_rows
        self.pending: list[pa.Table] = []
        self.files: list[Path] = []
        self.counts: list[int] = []
        self.writer: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> None:
        self.pending.append(table)
        while sum(len(t) for t in self.pending) >= self.group_rows:
            joined = pa.concat_tables(self.pending)
            self._write(joined.slice(0, self.group_rows))
            self.pending = [joined.slice(self.group_rows)] if len(joined) > self.group_rows else []

    def _write(self, group: pa.Table) -> None:
        if self.writer is None:
            self.files.append(self.folder / f"{self.split}-{len(self.files):05d}.parquet")
            self.counts.append(0)
            # Features are noise to a dictionary; plain pages read fastest.
            self.writer = pq.ParquetWriter(self.files[-1], self.schema, compression=self.compression, use_dictionary=False)
        self.writer.write_table(group.combine_chunks(), row_group_size=self.group_rows)
        self.counts[-1] += len(group)
        if self.counts[-1] + self.group_rows > self.shard_rows:
            self.close_shard()

    def close(self) -> SplitInfo:
        if self.pending:
            self._write(pa.concat_tables(self.pending))
            self.pending = []
        self.close_shard()
        shards = [
            Shard(file=file.name, rows=rows, bytes=file.stat().st_size, sha256=file_sha256(file))
            for file, rows in zip(self.files, self.counts, strict=True)
        ]
        return SplitInfo(rows=sum(self.counts), shards=shards)

    def close_shard(self) -> None:
        """Close the shard that is open, if one is."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None


def file_sha256(path: Path) -> str:
    """Return a file's sha256, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def arrow_schema(spec: DataSpec, dtype: str) -> pa.Schema:
    """Return the columns of a store's shards: numbers, and flat lists of fixed size (unpacked fastest)."""
    fields = [pa.field("row", pa.int64()), pa.field("clip_id", pa.string())]
    for name, shape in spec.shapes().items():
        kind = spec.label_dtypes.get(name, dtype)
        value = {"float16": pa.float16(), "float32": pa.float32(), "uint8": pa.uint8(), "int64": pa.int64()}[kind]
        fields.append(pa.field(name, pa.list_(value, int(np.prod(shape))) if shape else value))
    return pa.schema(fields)


def _numpy_type(kind: pa.DataType) -> Any:
    return (kind.value_type if pa.types.is_fixed_size_list(kind) else kind).to_pandas_dtype()
