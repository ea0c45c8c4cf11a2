"""Write a store, whole or not at all: parquet shards of flat lists, checksums and a manifest."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from avplatform.base.files import arrow_path
from avplatform.base.places import Remote, located
from avplatform.data.store.checksum import ContentDigest, digest_shard
from avplatform.data.store.partial import PartialFolder, RemoteFolder, check_empty
from avplatform.data.store.schema import (
    FEATURE_DTYPES,
    MANIFEST_FILE,
    NAME,
    DataSpec,
    Manifest,
    Shard,
    SplitInfo,
    check_columns,
)
from avplatform.models.errors import DataError, UsageError, counted, nearest
from avplatform.models.files import file_sha256

SHARD_BYTES = 128 * 2**20  # uncompressed features per shard
GROUP_BYTES = 4 * 2**20  # uncompressed features per row group
COMPRESSIONS = ("none", "zstd")


class StoreWriter:
    """Writes a store block by block with constant memory; the folder appears when it is complete.

    Args:
        path: folder to make, or the address of one; it must be missing or empty.
        spec: what the store holds; its provenance may be filled in until the end.
        dtype: precision of the features, "float16" or "float32".
        card: makes the text of README.md from the finished manifest.
        rows_per_shard: clips per shard; default: as many as SHARD_BYTES hold.
        compression: compression of the shards, "none" or "zstd". Features hardly compress; labels
            and rows of zeros do.
        resume: fingerprint of what is written. If it is given and writing ends early, finished
            shards are kept, and a later writer with the same fingerprint continues after them:
            `stored` tells which clips it has, and the caller adds the others in the same order as
            before.
        replace: take the place of the store in the folder, when all is written.
        note: called with a message when finished shards are used again or discarded.

    Raises:
        UsageError: the folder is not empty, or an option is not one of its choices.
        DataError: columns do not fit the spec, a row occurs twice, there are no clips, the disk is
            full, or another process is writing the same store.
    """

    def __init__(
        self,
        path: str | Path | Remote,
        spec: DataSpec,
        *,
        dtype: str = "float16",
        card: Callable[[Manifest], str] | None = None,
        rows_per_shard: int | None = None,
        compression: str = "none",
        resume: str | None = None,
        replace: bool = False,
        note: Callable[[str], None] | None = None,
    ) -> None:
        given = (("dtype", dtype, FEATURE_DTYPES), ("compression", compression, COMPRESSIONS))
        for name, value, choices in given:
            if value not in choices:
                raise UsageError(
                    f"{name} is {value!r}{nearest(value, choices)}; "
                    f"choose from {', '.join(choices)}"
                )
        if rows_per_shard is not None and rows_per_shard < 1:
            raise UsageError(f"rows_per_shard is {rows_per_shard}; it must be at least 1")
        self.path, self.spec, self.dtype, self.card = located(path), spec, dtype, card
        if (
            isinstance(self.path, Path) and self.path.is_symlink()
        ):  # write its target: the link itself cannot be replaced
            self.path = self.path.resolve()
        check_empty(self.path, replace=replace)
        self.manifest: Manifest | None = None
        self.remarks: list[dict[str, Any]] = []
        """Notes of the caller that survive a resumption; saved whenever a shard is finished."""
        self.attachments: dict[str, str] = {}
        """Further text files of the store, content by name."""
        self.carried: list[Path] = []
        """Files and folders that are copied into the store."""
        self._note = note or (lambda text: None)
        self._partial = (
            RemoteFolder(self.path)
            if isinstance(self.path, Remote)
            else PartialFolder(self.path, fingerprint=resume, replace=replace, note=note)
        )
        self._schema = arrow_schema(spec, dtype)
        values = sum(np.prod(spec.shapes()[name]) for name in spec.feature_names)
        clip_bytes = values * np.dtype(dtype).itemsize
        self._shard_rows = rows_per_shard or max(1, int(SHARD_BYTES // clip_bytes))
        self._group_rows = min(self._shard_rows, max(1, int(GROUP_BYTES // clip_bytes)))
        self._compression = compression
        self._splits: dict[str, _SplitWriter] = {}
        self._rows: set[int] = set()
        self._content = ContentDigest(spec)
        self._discarded = False

    def __enter__(self) -> StoreWriter:
        try:
            with self._disk():
                journal = self._partial.open()
                self._take_up(journal)
        except BaseException:
            self._partial.close(keep=True)
            raise
        return self

    def add(self, split: str, columns: dict[str, Any]) -> None:
        """Add clips to a split.

        Args:
            split: name of the split.
            columns: "row", "clip_id", every feature and every label, with one entry per clip.
        """
        if not NAME.fullmatch(split):
            raise DataError(
                f"split {split!r}: the name is used for files; use letters, digits, _ and -"
            )
        if split in self._splits and self._splits[split].closed:
            raise DataError(f"split {split} is closed; add its clips before `close_split`")
        columns = check_columns(self.spec, split, columns)
        for row, clip_id in zip(columns["row"].tolist(), columns["clip_id"], strict=True):
            if row in self._rows:
                raise DataError(
                    f"split {split}: row {row} (clip {clip_id}) is added twice; "
                    "rows are unique in a dataset"
                )
            self._rows.add(row)
        table = pa.Table.from_arrays(
            [self._array(split, columns, field) for field in self._schema], schema=self._schema
        )
        self._content.update(split, table)
        with self._disk():
            self._split(split).add(table)

    def stored(self, split: str) -> tuple[np.ndarray, bool]:
        """Return a split's rows in finished shards, in order, and whether the split is closed."""
        writer = self._splits.get(split)
        kept = [] if writer is None else writer.kept
        return np.array(kept, np.int64), writer is not None and writer.closed

    def close_split(self, split: str) -> None:
        """Mark a split as complete and finish its last shard."""
        with self._disk():
            self._split(split).close()
            self._record()

    def shard_bytes(self) -> int:
        """Return the size in bytes of all finished shards."""
        return sum(shard.bytes for writer in self._splits.values() for shard in writer.shards)

    def discard(self) -> None:
        """Give up: write nothing, and keep nothing to resume from."""
        self._discarded = True

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        written = False
        try:
            if kind is None and not self._discarded:
                with self._disk():
                    self._finish()
                written = True
        finally:
            for writer in self._splits.values():
                with contextlib.suppress(OSError, pa.ArrowException):
                    writer.abandon()
            finished = any(writer.shards for writer in self._splits.values())
            self._partial.close(keep=finished and not written and not self._discarded)

    def _take_up(self, journal: dict[str, Any]) -> None:
        """Resume an earlier attempt: keep its intact finished shards and remove all other files."""
        self.remarks = journal.get("remarks", [])
        folder, count = self._partial.folder, 0
        for split, state in journal.get("splits", {}).items():
            shards = [Shard(**shard) for shard in state["shards"]]
            whole = []
            for shard in shards:
                file = folder / shard.file
                if (
                    not file.is_file()
                    or file.stat().st_size != shard.bytes
                    or file_sha256(file) != shard.sha256
                ):
                    self._note(f"{shard.file} of the earlier attempt is damaged; writing it again")
                    break
                whole.append(shard)
            writer = self._split(split)
            for shard in whole:
                writer.kept += digest_shard(self._content, split, folder / shard.file)
            writer.shards, writer.closed = whole, state["closed"] and len(whole) == len(shards)
            self._rows.update(writer.kept)
            count += len(writer.kept)
        names = {shard.file for writer in self._splits.values() for shard in writer.shards}
        for file in folder.iterdir():
            if file.name not in names:
                file.unlink()
        if count:
            self._note(f"going on after {counted(count, 'clip')} that an earlier attempt wrote")

    def _array(self, split: str, columns: dict[str, Any], field: pa.Field) -> pa.Array:
        """Return one column in the form in which it is stored."""
        if field.name == "clip_id":
            return pa.array(columns["clip_id"], type=pa.string())
        values = np.asarray(columns[field.name])
        if field.name in self.spec.feature_names and values.dtype != self.dtype:
            with np.errstate(over="ignore"):
                values = values.astype(self.dtype)
            finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
            if not finite.all():
                clip, row = columns["clip_id"][finite.argmin()], columns["row"][finite.argmin()]
                what = f"{field.name} of clip {clip} (row {row}) does not fit {self.dtype}"
                raise DataError(f"split {split}: {what}; store it as float32")
        flat = pa.array(np.ascontiguousarray(values, dtype=_numpy_type(field.type)).reshape(-1))
        size = getattr(field.type, "list_size", None)
        return flat if size is None else pa.FixedSizeListArray.from_arrays(flat, size)

    def _split(self, name: str) -> _SplitWriter:
        if name not in self._splits:
            self._splits[name] = _SplitWriter(
                self._partial.folder,
                name,
                self._schema,
                group_rows=self._group_rows,
                shard_rows=self._shard_rows,
                compression=self._compression,
                finished=self._record,
            )
        return self._splits[name]

    def _record(self) -> None:
        splits = {
            name: {
                "shards": [dataclasses.asdict(shard) for shard in writer.shards],
                "closed": writer.closed,
            }
            for name, writer in self._splits.items()
        }
        self._partial.record({"splits": splits, "remarks": self.remarks})

    def _finish(self) -> None:
        splits = {name: writer.close() for name, writer in self._splits.items()}
        splits = {name: info for name, info in splits.items() if info.rows}
        if not splits:
            raise DataError(f"no clip was added to {self.path}")
        self.manifest = Manifest(
            spec=self.spec, splits=splits, dtype=self.dtype, checksum=self._content.hexdigest()
        )
        texts = {MANIFEST_FILE: self.manifest.to_json(), **self.attachments}
        if self.card is not None:
            texts["README.md"] = self.card(self.manifest)
        for name, text in texts.items():
            # File names that are not UTF-8 are written with escapes.
            (self._partial.folder / name).write_text(
                text, encoding="utf-8", errors="backslashreplace"
            )
        for path in self.carried:
            copy = shutil.copytree if path.is_dir() else shutil.copy2
            copy(path, self._partial.folder / path.name)
        self._partial.publish()

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        """Turn errors of the file system into messages that a user can act on."""
        try:
            yield
        except OSError as error:
            text = f"cannot write {self.path}: {error}"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                text = f"the disk of {self.path} is full"
            text += "; free space or give another folder"
            finished = any(writer.shards for writer in self._splits.values())
            if finished and self._partial.fingerprint is not None:
                text += (
                    f"; finished shards stay in {self._partial.base}, "
                    "and the same command continues after them"
                )
            raise DataError(text) from None


class _SplitWriter:
    """Cuts one split into row groups and shards."""

    def __init__(
        self,
        folder: Path,
        split: str,
        schema: pa.Schema,
        *,
        group_rows: int,
        shard_rows: int,
        compression: str,
        finished: Callable[[], None],
    ) -> None:
        self.folder, self.split, self.schema, self.compression = folder, split, schema, compression
        self.group_rows, self.shard_rows, self.finished = group_rows, shard_rows, finished
        self.pending: list[pa.Table] = []
        self.shards: list[Shard] = []
        self.kept: list[int] = []  # rows in shards of an earlier attempt
        self.closed = False
        self.count = 0  # clips in the open shard
        self.writer: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> None:
        self.pending.append(table)
        while sum(len(t) for t in self.pending) >= self.group_rows:
            joined = pa.concat_tables(self.pending)
            self._write(joined.slice(0, self.group_rows))
            self.pending = [joined.slice(self.group_rows)] if len(joined) > self.group_rows else []

    def _write(self, group: pa.Table) -> None:
        if self.writer is None:
            # Dictionaries do not help features, and plain pages read fastest. Labels have them,
            # as parquet has no byte type: a plain 0 or 1 would take four bytes.
            labels = [
                f.name + ".list.element"
                for f in self.schema
                if getattr(f.type, "value_type", None) == pa.uint8()
            ]
            self.writer = pq.ParquetWriter(
                arrow_path(self._file),
                self.schema,
                compression=self.compression,
                use_dictionary=labels or False,
                write_statistics=False,  # nobody asks for the least value of a feature
            )
        self.writer.write_table(group.combine_chunks(), row_group_size=self.group_rows)
        self.count += len(group)
        if self.count + self.group_rows > self.shard_rows:
            self._finish_shard()

    def close(self) -> SplitInfo:
        """Write the remaining clips and return what the split holds."""
        if self.pending:
            self._write(pa.concat_tables(self.pending))
            self.pending = []
        if self.writer is not None:
            self._finish_shard()
        self.closed = True
        return SplitInfo(rows=sum(shard.rows for shard in self.shards), shards=self.shards)

    def abandon(self) -> None:
        """Close the open shard's file, if any."""
        if self.writer is not None:
            writer, self.writer = self.writer, None
            writer.close()

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.split}-{len(self.shards):05d}.parquet"

    def _finish_shard(self) -> None:
        file, rows = self._file, self.count
        self.abandon()
        self.count = 0
        self.shards.append(
            Shard(file=file.name, rows=rows, bytes=file.stat().st_size, sha256=file_sha256(file))
        )
        self.finished()


def arrow_schema(spec: DataSpec, dtype: str) -> pa.Schema:
    """Return the schema of a store's shards: numbers, and flat lists of fixed size for speed."""
    fields = [pa.field("row", pa.int64()), pa.field("clip_id", pa.string())]
    for name, shape in spec.shapes().items():
        value = pa.from_numpy_dtype(np.dtype(spec.label_dtypes.get(name, dtype)))
        fields.append(pa.field(name, pa.list_(value, int(np.prod(shape))) if shape else value))
    return pa.schema(fields)


def _numpy_type(kind: pa.DataType) -> Any:
    return (kind.value_type if pa.types.is_fixed_size_list(kind) else kind).to_pandas_dtype()
