"""The features of single files, which are kept in a hidden folder until the store is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from avplatform.features.earlier import Source, describe
from avplatform.features.extractor import ClipFeatures, Extractor, Request
from avplatform.features.media import MediaInfo, probe
from avplatform.features.sampling import count_segments
from avplatform.features.sources import Catalogue
from avplatform.models.errors import DataError, counted
from avplatform.models.files import file_sha256, save_tensors, write_atomic
from avplatform.version import __version__

Long = Literal["split", "first", "refuse"]
VERSION = 2
"""Version of the files."""


class Pieces:
    """Makes and reads the pieces of a store: one safetensors file per media file.

    Args:
        work: the hidden folder.
        extractor: makes the features.
        catalogue: says whether a file can have labels.
        segments: segments per clip.
        long: what is done with longer files.
    """

    def __init__(
        self, work: Path, extractor: Extractor, catalogue: Catalogue, segments: int, long: Long
    ) -> None:
        self.work, self.extractor, self.catalogue = work, extractor, catalogue
        self.segments, self.long, self.each = segments, long, extractor.segment_seconds
        self.clip = segments * self.each  # seconds
        self.made_by: dict[str, Any] = extractor.describe()
        """The recipe, the precision, and the checksums of the weights."""
        weights = self.made_by["weights"]
        self.made_by["weights"] = {name: found["sha256"] for name, found in weights.items()}
        self._fingerprint = [__version__, self.made_by, segments, self.each, long, VERSION]

    def read(self, file: Path) -> dict[str, np.ndarray] | None:
        """Return the arrays that `save` wrote, or None if they are missing or incomplete."""
        try:
            path = self.piece(file)
            return load_file(path) if path.is_file() else None
        except (OSError, SafetensorError):
            return None

    def extracted(
        self, files: Sequence[Path]
    ) -> Iterator[tuple[Path, list[ClipFeatures] | DataError]]:
        """Yield the clips of each file, or why it has none, in order."""
        for file in files:
            try:
                yield file, self._clips(file)
            except DataError as error:
                yield file, error

    def _clips(self, file: Path) -> list[ClipFeatures]:
        """Return the clips of a file.

        No batch holds items of two files: the last bits of a feature depend on its batch, and the
        features of a file must not depend on the files that are extracted with it.
        """
        info = probe(file, limits=self.extractor.limits)
        windows = self._windows(info)
        ends = [(start, start + self.clip) for start, _ in windows]
        self.catalogue.check(file.stem, ends, info.duration)
        requests = [
            Request(path=file, start=start, seconds=seconds, segments=self.segments, info=info)
            for start, seconds in windows
        ]
        return _finite(self.extractor.clips(requests))

    def _windows(self, info: MediaInfo) -> list[tuple[float, float | None]]:
        """Return the start and the length of each clip of a file."""
        duration, count = info.duration, count_segments(info.duration, self.each)
        if count <= self.segments:
            return [(0.0, None)]
        if self.long == "refuse":
            raise DataError(
                f"{info.path} lasts {duration:.1f} s, more than {counted(self.segments, 'segment')}"
            )
        if self.long == "first":
            return [(0.0, self.clip)]
        starts = (first * self.each for first in range(0, count, self.segments))
        return [(start, self.clip) for start in starts if duration - start >= self.each / 2]

    def piece(self, file: Path) -> Path:
        """Return where the piece of a file lies: the name says how and from what it is made."""
        stat = file.stat()
        key = json.dumps(
            [self._fingerprint, str(file.resolve()), stat.st_size, stat.st_mtime_ns], sort_keys=True
        )
        return self.work / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"

    def save(self, file: Path, clips: list[ClipFeatures]) -> None:
        """Write the piece of a file, with the checksum of its content."""
        streams = ["audio", "visual", *(["motion"] if self.extractor.motion else [])]
        columns = {name: np.stack([getattr(clip, name) for clip in clips]) for name in streams}
        source = Source(
            bytes=file.stat().st_size,
            sha256=file_sha256(file),
            duration=clips[0].info.duration,
            has_audio=clips[0].has_audio,
            has_video=clips[0].has_video,
            windows=[[clip.start, clip.start + self.clip] for clip in clips],
            clips=[],
        )
        columns |= describe(source)
        write_atomic(self.piece(file), lambda path: save_tensors(columns, path))


def _finite(clips: list[ClipFeatures]) -> list[ClipFeatures]:
    for clip in clips:
        for stream in ("audio", "visual", "motion"):
            values = getattr(clip, stream)
            if values is not None and not np.isfinite(values).all():
                raise DataError(
                    f"{clip.info.path}: its {stream} features are NaN or infinite; "
                    "use --precision no"
                )
    return clips
