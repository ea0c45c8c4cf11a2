"""Write simulated data in the authors' file layouts, so that their own code and our importers can read them.

LLP: one .npy a video under feats/vggish, feats/res152 (80 frames) and feats/r2plus1d_18, pseudo-labels under
CLIP/segment_pseudo_labels and CLAP/segment_pseudo_labels, and the csv files. AVE: the h5 family of float64 arrays whose rows
are the lines of Annotations.txt.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from avplatform.base.files import publish
from avplatform.data.importing.plan import MARKER
from avplatform.data.simulate.annotation_files import copy_annotations
from avplatform.data.simulate.world import clip_generator
from avplatform.data.store.schema import DataSpec
from avplatform.models.errors import UsageError
from avplatform.tasks.avvp.annotations import ID_LENGTH

FRAMES = 8  # per segment
FRAME_JITTER = 0.05


class OfficialWriter:
    """The counterpart of `StoreWriter` for the authors' layouts; the folder appears when all is written.

    Args:
        path: folder to make.
        spec: what is written.
        annotations: folder of the official annotation files, which are copied along.
        clips: number of clips with an event, the rows of AVE's arrays (background clips follow in files of their own).
        rows: the clips that will be added, where these are not all: the annotation files are cut to them, and rows of AVE
            numbered anew.

    Raises:
        UsageError: the folder is not empty.
    """

    def __init__(
        self,
        path: str | Path,
        spec: DataSpec,
        annotations: str | Path,
        clips: int,
        rows: Sequence[int] | None = None,
    ) -> None:
        self.path, self.spec, self.annotations, self._rows = (
            Path(path),
            spec,
            Path(annotations),
            rows,
        )
        events = (
            np.arange(clips)
            if rows is None
            else np.array(sorted(row for row in rows if row < clips), np.int64)
        )
        background = (
            None
            if rows is None
            else np.array(sorted(row for row in rows if row >= clips), np.int64)
        )
        self.clips, self._events, self._first, self._background = (
            len(events),
            events,
            clips,
            background,
        )
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UsageError(f"{self.path} exists and is not empty; give a new folder")
        self._temporary = self.path.with_name(f".{self.path.name}.partial-{os.getpid()}")
        self._files: dict[str, h5py.File] = {}

    def __enter__(self) -> OfficialWriter:
        self._temporary.mkdir(parents=True)
        text = json.dumps(
            {"name": self.spec.name, **self.spec.provenance}, indent=2, ensure_ascii=False
        )
        (self._temporary / MARKER).write_text(
            f"The features in this folder were drawn by code; no video was read.\n\n{text}\n"
        )
        copy_annotations(self.spec.task, self.annotations, self._temporary, self._rows)
        return self

    def add(self, split: str, columns: dict[str, Any]) -> None:
        """Write some clips of a split."""
        if self.spec.task == "avvp":
            self._llp(columns)
        else:
            self._ave(split, columns)

    def _llp(self, columns: dict[str, Any]) -> None:
        places = {
            "audio": "feats/vggish",
            "motion": "feats/r2plus1d_18",
            "pseudo_visual": "CLIP/segment_pseudo_labels",
            "pseudo_audio": "CLAP/segment_pseudo_labels",
        }
        for n, clip_id in enumerate(columns["clip_id"]):
            video = clip_id[:ID_LENGTH]
            for name, place in places.items():
                kind = np.int64 if name.startswith("pseudo") else np.float32
                self._npy(f"{place}/{video}.npy", columns[name][n].astype(kind))
            noise = FRAME_JITTER * clip_generator(0, f"frames:{clip_id}").standard_normal(
                (len(columns["visual"][n]), FRAMES, columns["visual"].shape[-1]), dtype=np.float32
            )
            noise -= noise.mean(
                axis=1, keepdims=True
            )  # the mean of a segment's frames stays the segment's vector
            frames = columns["visual"][n][:, None] + noise
            self._npy(
                f"feats/res152/{video}.npy", frames.reshape(-1, frames.shape[-1]).astype(np.float32)
            )

    def _ave(self, split: str, columns: dict[str, Any]) -> None:
        background = split == "background"
        rows = np.asarray(columns["row"])
        if not background:
            rows = np.searchsorted(self._events, rows)
        else:
            rows = (
                rows - self._first
                if self._background is None
                else np.searchsorted(self._background, rows)
            )
        suffix = "_noisy" if background else ""
        onehot = np.eye(len(self.spec.classes), dtype=np.float64)
        arrays = {
            f"visual_feature{suffix}.h5": columns["visual"],
            f"audio_feature{suffix}.h5": columns["audio"],
        }
        if not background:
            arrays["labels.h5"] = onehot[columns["segment"]]
        order = np.argsort(rows)
        for name, values in arrays.items():
            target = self._h5(name, values.shape[1:])
            values = np.asarray(values, dtype=np.float64)[order]
            if len(target) < rows.max() + 1:
                target.resize(rows.max() + 1, axis=0)
            target[rows[order]] = values

    def _h5(self, name: str, shape: tuple[int, ...]) -> Any:
        if name not in self._files:
            file = self._files[name] = h5py.File(self._temporary / name, "w")
            count = 0 if name.endswith("_noisy.h5") else self.clips
            file.create_dataset(
                "avadataset",
                (count, *shape),
                maxshape=(None, *shape),
                dtype="f8",
                chunks=(1, *shape),
            )
        return self._files[name]["avadataset"]

    def _npy(self, name: str, values: np.ndarray) -> None:
        file = self._temporary / name
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, values)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            file.close()
        try:
            if kind is None:
                publish(self._temporary, self.path)
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)
