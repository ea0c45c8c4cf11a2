"""Write simulated data in the authors' file layouts, for their own code and for our importers.

Each adapter decides which files there are; this module writes them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from avplatform.base.files import publish
from avplatform.data.adapters.contracts import DatasetAdapter
from avplatform.data.adapters.source import MARKER
from avplatform.data.store.schema import LABEL_FILE, DataSpec
from avplatform.models.errors import UsageError
from avplatform.models.paths import expanded
from avplatform.models.texts.files import LabelEmbeddings, write_label_file


class OfficialWriter:
    """The counterpart of `StoreWriter` for the authors' layouts; the folder appears when complete.

    Args:
        path: folder to make.
        adapter: the dataset's adapter.
        spec: specification of what is written.
        annotations: folder of the official annotation files, which are copied.
        clips: number of clips with an event, which are the rows of h5 arrays (background clips have
            separate files).
        rows: the clips that will be added, if not all: the annotation files are cut to them, and
            the rows of h5 arrays are renumbered.

    Raises:
        UsageError: the folder is not empty.
    """

    def __init__(
        self,
        path: str | Path,
        adapter: DatasetAdapter,
        spec: DataSpec,
        annotations: str | Path,
        clips: int,
        rows: Sequence[int] | None = None,
    ) -> None:
        self.path, self.adapter, self.spec = expanded(path), adapter, spec
        self.annotations, self._rows, self._first = Path(annotations), rows, clips
        kept = np.arange(clips) if rows is None else np.array(sorted(rows), np.int64)
        self._events, self._background = kept[kept < clips], kept[kept >= clips]
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UsageError(f"{self.path} exists and is not empty; give a new folder")
        self._temporary = self.path.with_name(f".{self.path.name}.partial-{os.getpid()}")
        self._files: dict[str, h5py.File] = {}

    def __enter__(self) -> OfficialWriter:
        self._temporary.mkdir(parents=True)
        about = {"name": self.spec.name, **self.spec.provenance}
        text = json.dumps(about, indent=2, ensure_ascii=False)
        (self._temporary / MARKER).write_text(
            f"The features in this folder were drawn by code; no video was read.\n\n{text}\n",
            encoding="utf-8",
        )
        self.adapter.copy_annotations(self.annotations, self._temporary, self._rows)
        return self

    def add(self, split: str, columns: dict[str, Any]) -> None:
        """Write clips of a split."""
        self.adapter.write_official(self, split, columns)

    def npy(self, name: str, values: np.ndarray) -> None:
        """Write one array to a .npy file."""
        file = self._temporary / name
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, values)

    def h5(
        self, name: str, key: str, values: np.ndarray, rows: np.ndarray, *, background: bool
    ) -> None:
        """Write rows of a float64 array in an h5 file; background clips follow the others."""
        if not background:
            rows = np.searchsorted(self._events, rows)
        elif self._rows is None:
            rows = rows - self._first
        else:
            rows = np.searchsorted(self._background, rows)
        order = np.argsort(rows)
        target = self._array(name, key, values.shape[1:], 0 if background else len(self._events))
        if len(target) < rows.max() + 1:
            target.resize(rows.max() + 1, axis=0)
        target[rows[order]] = np.asarray(values, dtype=np.float64)[order]

    def labels(self, embeddings: LabelEmbeddings) -> None:
        """Write the vectors of the label texts."""
        write_label_file(self._temporary / LABEL_FILE, embeddings)

    def _array(self, name: str, key: str, shape: tuple[int, ...], count: int) -> Any:
        if name not in self._files:
            file = self._files[name] = h5py.File(self._temporary / name, "w")
            file.create_dataset(
                key, (count, *shape), maxshape=(None, *shape), dtype="f8", chunks=(1, *shape)
            )
        return self._files[name][key]

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        for file in self._files.values():
            file.close()
        try:
            if kind is None:
                publish(self._temporary, self.path)
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)
