"""A split as memory-mapped flat arrays, built once from its shards, in the store or in a cache."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from avplatform.base.files import arrow_path, cache_errors, cache_root
from avplatform.base.locks import locked
from avplatform.base.npy import BadFeature, read_npy
from avplatform.data.reading.array_record import what_is_wrong, write_record
from avplatform.data.reading.pages import group_range, read_group
from avplatform.data.reading.shards import check_shard
from avplatform.data.store.schema import DataSpec, Manifest
from avplatform.data.store.writer import arrow_schema
from avplatform.models.errors import DataError, counted
from avplatform.models.files import write_atomic
from avplatform.tasks.batch import Batch

LARGE_ROW = 2**15  # bytes from which copying a row separately costs no extra time


class SplitArrays:
    """The clips of one split; features stay on disk until a batch needs them."""

    def __init__(self, folder: Path, spec: DataSpec, name: str) -> None:
        self.spec, self.name = spec, name
        # Mapped copy-on-write only because torch needs writable memory; nothing writes to it.
        self._arrays = {
            key: read_npy(folder / f"{key}.npy", kinds=None, mapped=True)
            for key in ("row", *spec.shapes())
        }
        self._tensors = {key: torch.from_numpy(array) for key, array in self._arrays.items()}
        self.clip_ids: list[str] = json.loads((folder / "clip_id.json").read_text(encoding="utf-8"))

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def rows(self) -> np.ndarray:
        """The unique integer key of every clip."""
        return np.asarray(self._arrays["row"])

    def labels(self, name: str) -> np.ndarray:
        """Return one label of every clip.

        Raises:
            DataError: the label is not known in this split.
        """
        if name not in known_labels(self.spec, self.name):
            raise DataError(
                f"the label {name!r} is not known in the split {self.name!r} of '{self.spec.name}'"
            )
        return np.asarray(self._arrays[name])

    def columns(self) -> dict[str, np.ndarray]:
        """Return the mapped arrays, without reading them: "row", features and known labels."""
        names = ("row", *self.spec.feature_names, *known_labels(self.spec, self.name))
        return {name: self._arrays[name] for name in names}

    def batch(
        self,
        indices: Sequence[int] | np.ndarray,
        *,
        dtype: torch.dtype = torch.float32,
        labels: Sequence[str] | None = None,
    ) -> Batch:
        """Gather clips into new tensors, which share no memory with the file or another batch.

        Args:
            indices: positions in the split, in any order.
            dtype: type of the features; 0/1 labels become float32, class indices stay int64.
            labels: which of the known labels to include; default: all.
        """
        index = torch.from_numpy(np.array(indices, dtype=np.int64))
        labels = known_labels(self.spec, self.name) if labels is None else labels
        columns = {name: self._tensors[name].index_select(0, index) for name in ("row", *labels)}
        columns |= {
            name: gather(self._tensors[name], index, dtype) for name in self.spec.feature_names
        }
        return make_batch(
            self.spec, columns, [self.clip_ids[i] for i in index.tolist()], dtype=dtype
        )


def gather(values: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
    """Return rows of a mapped tensor as a new tensor of `dtype`."""
    if values.dtype == dtype or values.stride(0) * values.element_size() < LARGE_ROW:
        return values.index_select(0, index).to(dtype)
    out = torch.empty((len(index), *values.shape[1:]), dtype=dtype)
    # Cast row by row: gathering large rows first would need the memory twice.
    for row, position in zip(out, index.tolist(), strict=True):
        row.copy_(values[position])
    return out


def known_labels(spec: DataSpec, *splits: str) -> list[str]:
    """Return the labels that are known in all of these splits, not merely stored as zeros."""
    return [name for name in spec.labels if all(spec.known(name, split) for split in splits)]


def table_columns(spec: DataSpec, table: pa.Table) -> dict[str, np.ndarray]:
    """Return the numeric columns of a table as arrays in the spec's shapes.

    A column in one piece is not copied.
    """
    columns = {}
    for name, shape in {"row": (), **spec.shapes()}.items():
        if name in table.column_names:
            chunks = table.column(name)
            # combine_chunks always copies, so it is avoided for a single chunk.
            column = chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()
            flat = column.flatten() if shape else column
            columns[name] = flat.to_numpy(zero_copy_only=False).reshape(len(table), *shape)
    return columns


def make_batch(
    spec: DataSpec,
    columns: Mapping[str, Tensor],
    clip_ids: list[str],
    *,
    dtype: torch.dtype = torch.float32,
) -> Batch:
    """Turn columns into a Batch; features become `dtype`, 0/1 labels float32."""
    labels = {
        name: columns[name].float() if spec.label_dtypes[name] == "uint8" else columns[name]
        for name in spec.labels
        if name in columns
    }
    return Batch(
        audio=columns["audio"].to(dtype),
        visual=columns["visual"].to(dtype),
        motion=columns["motion"].to(dtype) if "motion" in columns else None,
        row=columns["row"],
        clip_id=clip_ids,
        labels=labels,
    )


def open_split(
    store: Path,
    manifest: Manifest,
    name: str,
    *,
    cache_dir: Path | None = None,
    fetch: Callable[[], None] | None = None,
    progress: Callable[[str], None] | None = None,
    why: str = "",
) -> SplitArrays:
    """Return a split's arrays; build them on first use, and again if their checksums differ.

    Several processes may call this at the same time.

    Args:
        store: folder of the shards.
        manifest: the store's manifest.
        name: name of the split.
        cache_dir: folder for the arrays; default: `.arrays` in the store, or the user's cache if
            the store is read-only.
        fetch: called before the shards are read, to download them.
        progress: called with a message when arrays are built (with their size) or built again.
        why: why the split is mapped, for that message.

    Raises:
        DataError: a shard is missing or damaged, or the arrays cannot be written.
    """
    folder = array_folder(store, manifest, cache_dir) / name
    if (reason := _damage(folder, manifest, name)) is not None:
        if folder.exists() and progress is not None:
            progress(f"the arrays in {folder} are damaged ({reason}); building them again")
        if fetch is not None:
            fetch()
        _build(store, manifest, name, folder, progress, why)
    try:
        return SplitArrays(folder, manifest.spec, name)
    except (OSError, ValueError, BadFeature) as error:
        raise DataError(
            f"the arrays in {folder} are damaged ({error}); "
            "delete that folder, and they will be built again"
        ) from None


def array_folder(store: Path, manifest: Manifest, cache_dir: Path | None = None) -> Path:
    """Return the folder of a store's mapped arrays, which has one subfolder per split."""
    if cache_dir is None and os.access(store, os.W_OK):
        return store / ".arrays" / manifest.checksum[:16]
    # The cache is shared by all stores. The fingerprint covers more than the clips' checksum, so
    # two stores with the same clips but other splits have separate folders.
    return (cache_dir or cache_root()) / "arrays" / manifest.fingerprint[:16]


def _damage(folder: Path, manifest: Manifest, name: str) -> str | None:
    """Return why a split's arrays are not as they were built, or None."""
    return what_is_wrong(
        folder, contents=manifest.fingerprint, split=name, names=_files(manifest.spec)
    )


def _files(spec: DataSpec) -> list[str]:
    return [*(f"{key}.npy" for key in ("row", *spec.shapes())), "clip_id.json"]


def _build(
    store: Path,
    manifest: Manifest,
    name: str,
    folder: Path,
    progress: Callable[[str], None] | None,
    why: str,
) -> None:
    names = _files(manifest.spec)

    def fill(temporary: Path) -> None:
        shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process with the same id
        temporary.mkdir()
        _copy(store, manifest, name, temporary)
        write_record(temporary, contents=manifest.fingerprint, split=name, names=names)

    with cache_errors(folder), locked(folder.with_name(f".{name}.lock")):
        if _damage(folder, manifest, name) is None:  # another process was faster
            return
        try:
            write_atomic(folder, fill)
        except OSError as error:
            raise DataError(
                f"cannot build the arrays of {name} in {folder}: {error.strerror or error}; "
                "free space or give another cache"
            ) from None
        if progress is not None:
            because = why and f" ({why})"
            clips = counted(manifest.splits[name].rows, "clip")
            total = sum(file.stat().st_size for file in folder.glob("*.npy"))
            progress(
                f"mapped {manifest.spec.name} {name}{because}: {clips}, {total / 2**20:.0f} MiB"
            )


def _copy(store: Path, manifest: Manifest, name: str, folder: Path) -> None:
    """Copy a split's shards into flat arrays, one row group at a time."""
    spec, info = manifest.spec, manifest.splits[name]
    shapes = {"row": (), **spec.shapes()}
    types = {"row": "int64", **spec.label_dtypes}
    kinds = {key: np.dtype(types.get(key, manifest.dtype)) for key in shapes}
    widths = {key: int(np.prod(shapes[key])) for key in spec.feature_names}
    clip_ids: list[str] = []
    with contextlib.ExitStack() as stack:
        # Written as files, not as maps: writing to a map on a full disk kills the process (SIGBUS).
        files = {key: stack.enter_context((folder / f"{key}.npy").open("wb")) for key in shapes}
        for key, shape in shapes.items():
            header = {
                "descr": np.lib.format.dtype_to_descr(kinds[key]),
                "fortran_order": False,
                "shape": (info.rows, *shape),
            }
            np.lib.format.write_array_header_1_0(files[key], header)
        for shard in info.shards:
            file = check_shard(store, shard, arrow_schema(spec, manifest.dtype), contents=True)
            with file.open("rb") as raw, pq.ParquetFile(arrow_path(file)) as parquet:
                for group in range(parquet.num_row_groups):
                    start, size = group_range(parquet.metadata, group)
                    raw.seek(start)
                    features, table = read_group(
                        raw.read(size),
                        start,
                        parquet.metadata,
                        group,
                        features=widths,
                        others=["row", "clip_id", *spec.labels],
                    )
                    for key, values in (features | table_columns(spec, table)).items():
                        rows = np.ascontiguousarray(values, dtype=kinds[key]).reshape(-1)
                        files[key].write(rows.view(np.uint8).data)
                    clip_ids += table.column("clip_id").to_pylist()
    (folder / "clip_id.json").write_text(json.dumps(clip_ids), encoding="utf-8")
