"""One split as memory-mapped flat arrays, built once from the parquet shards beside or in a cache folder."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from avplatform.data.schema import DataSpec, Manifest, Shard
from avplatform.data.writer import arrow_schema, file_sha256
from models.errors import DataError
from tasks.contracts import Batch

LOCK_SECONDS = 3600


class SplitArrays:
    """The clips of one split; features stay on disk until a batch asks for them."""

    def __init__(self, folder: Path, spec: DataSpec, name: str) -> None:
        self.spec, self.name = spec, name
        self._arrays = {key: np.load(folder / f"{key}.npy", mmap_mode="r") for key in ("row", *spec.shapes())}
        self.clip_ids: list[str] = json.loads((folder / "clip_id.json").read_text())

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def rows(self) -> np.ndarray:
        """Unique integer key of every clip."""
        return np.asarray(self._arrays["row"])

    def labels(self, name: str) -> np.ndarray:
        """Return one label of every clip."""
        return np.asarray(self._arrays[name])

    def batch(self, indices: Sequence[int] | np.ndarray, *, dtype: torch.dtype = torch.float32) -> Batch:
        """Gather clips by position: features as `dtype`, float32 for 0/1 labels, int64 for class indices."""
        index = np.asarray(indices, dtype=np.int64)
        columns = {name: np.asarray(array[index]) for name, array in self._arrays.items()}
        return make_batch(self.spec, columns, [self.clip_ids[i] for i in index], dtype=dtype)


def make_batch(
    spec: DataSpec, columns: dict[str, np.ndarray], clip_ids: list[str], *, dtype: torch.dtype = torch.float32
) -> Batch:
    """Turn columns into a Batch."""
    tensors = {name: torch.from_numpy(np.ascontiguousarray(columns[name])).to(dtype) for name in spec.feature_names}
    labels = {}
    for name in spec.labels:
        values = torch.from_numpy(np.ascontiguousarray(columns[name]))
        labels[name] = values.float() if spec.label_dtypes[name] == "uint8" else values
    return Batch(
        audio=tensors["audio"],
        visual=tensors["visual"],
        motion=tensors.get("motion"),
        row=torch.from_numpy(np.ascontiguousarray(columns["row"])),
        clip_id=clip_ids,
        labels=labels,
    )


def open_split(
    store: Path,
    manifest: Manifest,
    name: str,
    *,
    cache_dir: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> SplitArrays:
    """Return a split's arrays, building them on first use; several processes may ask at once.

    Args:
        store: folder of the shards.
        manifest: its manifest.
        name: a split of it.
        cache_dir: where the arrays go; default: `.arrays` inside the store, or the user's cache where that is read-only.
        progress: told once when arrays are built, and how large they are.

    Raises:
        DataError: a shard is missing or damaged, or the arrays are.
    """
    folder = _array_folder(store, manifest, cache_dir) / name
    if not (folder / "complete").exists():
        _build(store, manifest, name, folder, progress)
    try:
        return SplitArrays(folder, manifest.spec, name)
    except (OSError, ValueError) as error:
        raise DataError(f"the arrays in {folder} are damaged ({error}); delete that folder, they are built again") from None


def cache_root() -> Path:
    """Folder for what can be made again: $AVPLATFORM_CACHE or ~/.cache/avplatform."""
    return Path(os.environ.get("AVPLATFORM_CACHE") or Path.home() / ".cache" / "avplatform")


def _array_folder(store: Path, manifest: Manifest, cache_dir: Path | None) -> Path:
    if cache_dir is None and os.access(store, os.W_OK):
        return store / ".arrays" / manifest.checksum[:16]
    # Shared by all datasets: two that differ only in how they cut the same clips into splits must not meet.
    return (cache_dir or cache_root()) / "arrays" / manifest.fingerprint[:16]


def _build(store: Path, manifest: Manifest, name: str, folder: Path, progress: Callable[[str], None] | None) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f".{name}.lock")
    with locked(lock):
        if (folder / "complete").exists():
            return
        temporary = folder.with_name(f".{name}.partial-{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            total = _copy(store, manifest, name, temporary)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(temporary, folder)
        except OSError as error:
            raise DataError(
                f"cannot build the arrays of {name} in {folder}: {error}; free space or give another cache"
            ) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        if progress is not None:
            progress(f"mapped {manifest.spec.name} {name}: {manifest.splits[name].rows} clips, {total / 2**20:.0f} MiB")


def _copy(store: Path, manifest: Manifest, name: str, folder: Path) -> int:
    """Copy one split's shards into flat arrays, a row group at a time."""
    spec, info = manifest.spec, manifest.splits[name]
    shapes = {"row": (), **spec.shapes()}
    kinds = {key: np.dtype(spec.label_dtypes.get(key, manifest.dtype)) for key in spec.shapes()} | {"row": np.dtype("int64")}
    out: dict[str, Any] = {
        key: np.lib.format.open_memmap(folder / f"{key}.npy", mode="w+", dtype=kinds[key], shape=(info.rows, *shape))
        for key, shape in shapes.items()
    }
    clip_ids: list[str] = []
    for shard in info.shards:
        file = check_shard(store, shard, arrow_schema(spec, manifest.dtype), contents=True)
        with pq.ParquetFile(file) as parquet:
            for group in range(parquet.num_row_groups):
                table = parquet.read_row_group(group)
                at = slice(len(clip_ids), len(clip_ids) + len(table))
                for key, shape in shapes.items():
                    column = table.column(key).combine_chunks()
                    flat = column.flatten() if shape else column
                    out[key][at] = flat.to_numpy(zero_copy_only=False).reshape(len(table), *shape)  # (rows, *shape)
                clip_ids += table.column("clip_id").to_pylist()
    for array in out.values():
        array.flush()
    (folder / "clip_id.json").write_text(json.dumps(clip_ids))
    (folder / "complete").touch()
    return sum(array.nbytes for array in out.values())


def check_shard(store: Path, shard: Shard, schema: pa.Schema, *, contents: bool = False) -> Path:
    """Return a shard's path after checking that it is there and, by its footer, holds what it should.

    Args:
        store: the folder.
        shard: what the manifest says of it.
        schema: the columns it must have.
        contents: also compute its sha256, which reads every byte.

    Raises:
        DataError: missing, or of another size, checksum, number of rows or columns.
    """
    file, remedy = store / shard.file, "copy or write the data again"
    if not file.is_file():
        raise DataError(f"{file} is missing; {remedy}")
    if file.stat().st_size != shard.bytes:
        raise DataError(f"{file} has {file.stat().st_size} bytes, in the manifest {shard.bytes}; {remedy}")
    if contents and file_sha256(file) != shard.sha256:
        raise DataError(f"{file} is not what the manifest says (its sha256 differs); {remedy}")
    try:
        with pq.ParquetFile(file) as parquet:
            rows, found = parquet.metadata.num_rows, {field.name: field.type for field in parquet.schema_arrow}
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{file} is no parquet file ({error}); {remedy}") from None
    if rows != shard.rows:
        raise DataError(f"{file} holds {rows} clips, in the manifest {shard.rows}; {remedy}")
    for field in schema:
        if found.get(field.name) != field.type:
            kind = found.get(field.name, "not there")
            raise DataError(f"{file}: column {field.name} is {kind}, by the manifest {field.type}; {remedy}")
    return file


class locked:  # noqa: N801
    """Hold a lock file for the time of a block; wait while another process holds it.

    The lock is the operating system's (flock), so a killed process leaves none behind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        import fcntl

        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("w")
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DataError(f"another process has held {self.path} for an hour; stop it or delete the file") from None
                time.sleep(0.2)

    def __exit__(self, *error: object) -> None:
        self._file.close()
