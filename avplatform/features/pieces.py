"""The features of single files, which are kept in a hidden folder until the store is written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from avplatform.base.files import write_file
from avplatform.base.locks import Lock
from avplatform.base.places import (
    PlaceError,
    Remote,
    StoppedError,
    at_hand,
    identity,
    stopping,
)
from avplatform.features.earlier import Source, describe
from avplatform.features.extractor import ClipFeatures, Extractor, Request
from avplatform.features.media import MediaInfo, probe
from avplatform.features.sampling import count_segments
from avplatform.features.sources import Catalogue
from avplatform.models.errors import AVError, DataError, counted
from avplatform.models.files import file_sha256, save_tensors
from avplatform.version import __version__

Long = Literal["split", "first", "refuse"]
VERSION = 2
"""Version of the files."""
MARK = "options.json"
"""Name of the object that says with which options the pieces beside it are being made."""


class Pieces:
    """Makes and reads the pieces of a store: one safetensors file per media file.

    Args:
        work: the hidden folder, or its address.
        extractor: makes the features.
        catalogue: says whether a file can have labels.
        segments: segments per clip.
        long: what is done with longer files.
    """

    def __init__(
        self,
        work: Path | Remote,
        extractor: Extractor,
        catalogue: Catalogue,
        segments: int,
        long: Long,
    ) -> None:
        self.work, self.extractor, self.catalogue = work, extractor, catalogue
        self.segments, self.long, self.each = segments, long, extractor.segment_seconds
        self.clip = segments * self.each  # seconds
        self.made_by: dict[str, Any] = extractor.describe()
        """The recipe, the precision, and the checksums of the weights."""
        weights = self.made_by["weights"]
        self.made_by["weights"] = {name: found["sha256"] for name, found in weights.items()}
        self._fingerprint = [__version__, self.made_by, segments, self.each, long, VERSION]

    def piece(self, file: Path | Remote) -> Path | Remote:
        """Return where the piece of a file lies: the name says how and from what it is made."""
        key = json.dumps([self._fingerprint, *identity(file)], sort_keys=True)
        return self.work / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"

    def name(self, file: Path | Remote) -> str | None:
        """Return the name of the piece of a file, or None if there is no such file."""
        try:
            return self.piece(file).name
        except PlaceError:
            raise
        except (OSError, DataError):
            return None

    def read(self, file: Path | Remote) -> dict[str, np.ndarray] | None:
        """Return the arrays that `save` wrote, or None if they are missing or incomplete."""
        try:
            return load(self.piece(file).read_bytes())
        except PlaceError:
            raise
        except (OSError, DataError, SafetensorError):
            return None

    def has(self, file: Path | Remote) -> bool:
        """Return whether the piece of a file is there; objects are listed, and not read."""
        if not isinstance(self.work, Remote):
            return self.read(file) is not None
        name = self.name(file)
        return name is not None and name in self._listed

    @cached_property
    def _listed(self) -> set[str]:
        return {file.name for file in self.work.files()} if isinstance(self.work, Remote) else set()

    @contextlib.contextmanager
    def held(self, busy: Callable[[str], AVError]) -> Iterator[None]:
        """Make the folder, which nodes look for, and keep other commands out during a block.

        On an object store, which has no locks, those that make the same pieces are not kept out.

        Args:
            busy: makes the error to raise where another process has the folder.

        Raises:
            DataError: the folder cannot be made, or on an object store, a command with other
                options has begun there.
        """
        if isinstance(self.work, Remote):
            with self._marked(self.work / MARK):
                yield
            return
        lock = Lock(self.work, busy, create=False)
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            lock.take()
        except FileNotFoundError:  # another process has ended, and removed it
            raise busy("") from None
        except OSError as error:
            raise DataError(
                f"cannot write {self.work}: {error.strerror}; give another --out"
            ) from None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # it holds pieces
                self.work.rmdir()
            lock.release()

    @contextlib.contextmanager
    def _marked(self, mark: Remote) -> Iterator[None]:
        """Keep commands with other options out, since the one that ends first removes all pieces.

        The mark of a command that is killed stays; its own options go on.
        """
        mine = json.dumps(self._fingerprint, sort_keys=True).encode()
        made = self._claim(mark, mine)
        try:
            yield
        finally:
            if made:
                with contextlib.suppress(DataError):  # it is gone, or the store does not answer
                    if mark.read_bytes() == mine:
                        mark.remove()

    def _claim(self, mark: Remote, mine: bytes) -> bool:
        """Write the mark if there is none; return whether it was written.

        Raises:
            DataError: it is that of other options.
        """
        for _ in range(2):
            with contextlib.suppress(FileExistsError):
                mark.write(mine, new=True)
                return True
            try:
                found = mark.read_bytes()
            except PlaceError:
                raise
            except DataError:  # the other command has just ended
                continue
            if found == mine:
                return False
            raise DataError(
                "an extraction with other options (recipe, weights, precision, segments or long "
                f"files), or of another version of avplatform, has begun in {self.work}; wait "
                f"until it has ended, or give another --out; if it was killed, remove {mark}"
            )
        return False

    def remove(self) -> None:
        """Remove all pieces."""
        if isinstance(self.work, Remote):
            self.work.remove()
        else:
            shutil.rmtree(self.work, ignore_errors=True)

    def make(self, file: Path | Remote) -> None:
        """Extract a file and write its piece.

        Raises:
            DataError: the file is bad.
            StoppedError: the piece cannot be written, or an object store does not answer.
        """
        with stopping():
            name = self.name(file)  # before it is read: it may be written to meanwhile
            with at_hand(file) as local:
                clips = self._clips(local)
                if name is None or self._changed(file, local, name):
                    raise DataError(f"{file} was changed while it was read")
                try:
                    self.save(self.work / name, local, clips)
                except OSError as error:
                    raise StoppedError(
                        f"cannot write {self.work}: {error.strerror or error}; run the same "
                        "command again to go on"
                    ) from None

    def _changed(self, file: Path | Remote, local: Path, name: str) -> bool:
        if isinstance(file, Remote):
            return bool(file.about()["size"] != local.stat().st_size)
        return self.name(file) != name

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

    def save(self, piece: Path | Remote, file: Path, clips: list[ClipFeatures]) -> None:
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
        write_file(piece, lambda path: save_tensors(columns, path))


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
