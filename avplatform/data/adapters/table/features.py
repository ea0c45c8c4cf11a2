"""Features that were extracted before: a store, or folders of arrays with a file per video."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.base.npy import BadFeature, read_npy
from avplatform.data.adapters.npy_folder import NpyFolder
from avplatform.data.adapters.table.events import plain
from avplatform.data.store.clips import StoredClips
from avplatform.data.store.schema import Manifest
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import DataError, UsageError, counted

WINDOW = re.compile(r"(.+)_(\d+(?:\.\d+)?)_(\d+(?:\.\d+)?)")  # the id of a clip of a longer video
STREAMS = ("audio", "visual", "motion")


def source_video(clip_id: str) -> str:
    """Return the video that a clip was cut from by its id, NAME_START_END; else the id itself.

    Examples:
        >>> source_video("street_10_20"), source_video("street")
        ('street', 'street')
    """
    found = WINDOW.fullmatch(clip_id)
    return found[1] if found and float(found[3]) > float(found[2]) else clip_id


@dataclass
class Video:
    """The clips of a video: their ids, and their starts and ends in seconds."""

    ids: list[str] = field(default_factory=list)
    windows: list[tuple[float, float]] = field(default_factory=list)
    duration: float = 0.0
    split: str = ""

    def add(self, clip_id: str, start: float, end: float) -> None:
        """Add a clip."""
        self.ids.append(clip_id)
        self.windows.append((start, end))
        self.duration = max(self.duration, end)


class StoreFeatures:
    """The features of a store, whose clips are labelled anew.

    Args:
        folder: the store.
        listed: the names of the videos that have events; a clip NAME_START_END belongs to the video
            NAME if that name is listed, and its own is not.

    Raises:
        DataError: the store cannot be read, or its clip ids repeat.
    """

    def __init__(self, folder: Path, listed: Collection[str]) -> None:
        manifest = Manifest.read(folder)
        self.spec, self.folder = manifest.spec, folder
        self.features, self.synthetic = manifest.spec.features, manifest.spec.synthetic
        self.segments, self.segment = manifest.spec.segments, manifest.spec.segment_seconds
        self.task: str | None = manifest.spec.task
        self.provenance = {"relabelled": manifest.spec.name, "of": manifest.spec.provenance}
        self.videos: dict[str, Video] = {}
        self._clips = StoredClips(folder, manifest)
        if self._clips.repeated is not None:
            raise DataError(f"{folder}: the clip id '{self._clips.repeated}' is not unique")
        names, length = {plain(name) for name in listed}, self.segments * self.segment
        for clip_id, place in self._clips.places.items():
            found, name, start = WINDOW.fullmatch(clip_id), clip_id, 0.0
            if found and plain(clip_id) not in names and plain(found[1]) in names:
                name, start = found[1], float(found[2])
            video = self.videos.setdefault(name, Video(split=place.split))
            video.add(clip_id, start, start + length)

    def load(self, video: str, clip_id: str) -> dict[str, np.ndarray]:
        """Return the features of a clip."""
        return self._clips.load(clip_id)


class FolderFeatures:
    """Folders `audio`, `visual` and, where there is one, `motion`, with an array NAME.npy a video.

    Args:
        folder: the folder of these folders.
        segments: segments per clip; longer videos become several clips.
        segment: the length of a segment in seconds.

    Shape: audio [S, Da]; visual [S, Dv] or [S, H, W, Dv]; motion [S, Dm]; any S per video.

    Raises:
        DataError: a folder is missing or empty, or the arrays have other axes.
    """

    task: str | None = None
    synthetic = False

    def __init__(self, folder: Path, *, segments: int, segment: float) -> None:
        there = [name for name in STREAMS if (folder / name).is_dir()]
        if there[:2] != list(STREAMS[:2]):
            raise DataError(
                f"{folder} holds no features; give a store, or a folder with audio/NAME.npy and "
                "visual/NAME.npy, of one row per segment"
            )
        self.segments, self.segment = segments, segment
        self.provenance: dict[str, Any] = {}
        self._folders = {
            name: NpyFolder(folder / name, "give the folder of features") for name in there
        }
        self.videos: dict[str, Video] = {}
        self._lengths: dict[str, int] = {}
        shape: dict[str, tuple[int, ...]] = {}
        for video in sorted(self._folders["audio"].sizes | self._folders["visual"].sizes):
            lengths = []
            for name in there:
                try:
                    array = read_npy(self._folders[name].file(video), mapped=True)
                except BadFeature:
                    continue  # told when the clip is loaded
                lengths.append(len(array) if array.ndim else 0)
                shape.setdefault(name, array.shape[1:])
            self._add(video, max(lengths, default=0))
        self.features = self._spec(folder, shape)

    def _spec(self, folder: Path, shape: dict[str, tuple[int, ...]]) -> FeatureSpec:
        visual = shape.get("visual", ())
        if len(shape.get("audio", ())) != 1 or len(visual) not in (1, 3):
            raise DataError(
                f"{folder}: the rows of the arrays have the shapes {shape}; give audio (S, D) and "
                "visual (S, D) or (S, H, W, D), one row per segment"
            )
        motion = shape.get("motion")
        return FeatureSpec(
            audio_dim=shape["audio"][0],
            visual_dim=visual[-1],
            map_size=(visual[0], visual[1]) if len(visual) == 3 else None,
            motion_dim=None if motion is None else motion[0],
        )

    def _add(self, video: str, length: int) -> None:
        """Add the clips of a video of some segments."""
        found = self.videos[video] = Video()
        self._lengths[video] = length
        clips = max(1, -(-length // self.segments))
        for n in range(clips):
            start, end = (at * self.segments * self.segment for at in (n, n + 1))
            found.add(video if clips == 1 else f"{video}_{start:.10g}_{end:.10g}", start, end)
        found.duration = max(length, 1) * self.segment

    def load(self, video: str, clip_id: str) -> dict[str, np.ndarray]:
        """Return the features of a clip; what a video lacks of its last clip are zeros."""
        found = self.videos[video]
        first = found.ids.index(clip_id) * self.segments
        out = {}
        for name, folder in self._folders.items():
            if video not in folder.sizes:
                raise BadFeature(f"has no {name}/{video}.npy")
            values = read_npy(folder.file(video), mapped=True)
            if len(values) != self._lengths[video]:
                raise BadFeature(
                    f"has {counted(len(values), 'row')} of {name}, and other features have "
                    f"{self._lengths[video]}"
                )
            part = np.asarray(values[first : first + self.segments])
            padding = [(0, self.segments - len(part)), *[(0, 0)] * (part.ndim - 1)]
            out[name] = np.pad(part, padding)
        return out


def open_features(
    folder: Path, *, listed: Collection[str], segments: int | None, segment: float
) -> StoreFeatures | FolderFeatures:
    """Return the features in a folder.

    Raises:
        DataError: there are none, or they cannot be read.
        UsageError: a store has clips of another length than the options say.
    """
    if not (folder / "dataset.json").is_file():
        return FolderFeatures(folder, segments=segments or 10, segment=segment)
    store = StoreFeatures(folder, listed)
    for name, given, plain_value in (("segments", segments, None), ("segment", segment, 1.0)):
        if given not in (plain_value, getattr(store, name)):
            raise UsageError(
                f"--{name} is {given}, but the clips of {folder} have {getattr(store, name)}; "
                "leave it out, or extract again"
            )
    return store
