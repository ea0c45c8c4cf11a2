"""Sources of segment logits: files of logits or of features, or frames and waveforms."""

from __future__ import annotations

import contextlib
import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np

from avplatform.base.npy import read_input
from avplatform.base.places import PlaceError, located, stopping
from avplatform.data.adapters.contracts import Modality, Spelling
from avplatform.features.sampling import split_waveform
from avplatform.features.teachers import Teacher, TextFeatures
from avplatform.models.errors import DataError
from avplatform.models.files import file_sha256
from avplatform.pseudo_labels.dataset import DATASET
from avplatform.pseudo_labels.media import (
    Place,
    find_frames,
    find_waveform,
    read_frames,
    read_waveform,
)


class Source(ABC):
    """Gives the logits of one modality, one video at a time.

    Args:
        folder: the folder of the files, or its address on an object store. Then the files of a
            video are read within `at_hand`.

    Raises:
        DataError: the folder does not exist.
    """

    kind: str
    texts: TextFeatures | None = None

    def __init__(self, folder: str | Path) -> None:
        self.folder = located(folder)
        if not self.folder.is_dir():
            raise DataError(
                f"no folder {self.folder}; give the folder with one {self.kind} file per video"
            )

    @abstractmethod
    def find(self, folder: Place, video: str) -> list[Place]:
        """Return the files of a video in a folder that are read.

        Raises:
            DataError: there are none; the message says what was looked for.
        """

    @contextlib.contextmanager
    def at_hand(self, video: str) -> Iterator[Self]:
        """Give a `with` block this source with the files of a video on this machine.

        Objects are fetched into a temporary folder, which is removed after the block.

        Raises:
            DataError: there are no files of the video.
            StoppedError: the object store does not answer.
        """
        if isinstance(self.folder, Path):
            yield self
            return
        with stopping(), TemporaryDirectory(prefix="avplatform-") as folder:
            here = copy.copy(self)
            here.folder = Path(folder)
            for file in self.find(self.folder, video):
                place = Path(folder, *file.parts_after(self.folder))
                place.parent.mkdir(exist_ok=True)
                file.fetch(place.parent)
            try:
                yield here
            except PlaceError:
                raise
            except DataError as error:
                raise DataError(str(error).replace(folder, str(self.folder))) from None

    def files(self, video: str) -> list[Path]:
        """Return the files of a video, which are on this machine; raises as `find` does."""
        assert isinstance(self.folder, Path)
        return self.find(self.folder, video)

    @abstractmethod
    def read(self, video: str) -> np.ndarray:
        """Return the checked contents of the files of a video.

        Raises:
            DataError: a file is missing, unreadable or wrong; the message names it.
        """

    @abstractmethod
    def score(self, content: np.ndarray) -> np.ndarray:
        """Turn what `read` returned into logits [T, C]."""

    def settings(self) -> dict[str, Any]:
        """Return, for the record, what the logits depend on besides the files."""
        return {"source": self.kind, **({} if self.texts is None else self.texts.describe())}

    def logits(self, video: str) -> np.ndarray:
        """Return the logits of a video, [T, C].

        Raises:
            DataError: in the cases of `read`, or if the logits are not finite.
        """
        logits = self.score(self.read(video))
        if not np.isfinite(logits).all():
            raise DataError(
                f"the logits of {video} are not finite; the teacher cannot score this input"
            )
        return logits

    def fingerprint(self, video: str) -> str:
        """Return a sha256 over the names and contents of the files that are read."""
        digest = hashlib.sha256()
        for file in self.files(video):
            try:
                content = file_sha256(file)
            except OSError as error:
                raise DataError(f"cannot read {file}: {error.strerror}") from None
            digest.update(f"{file.name}\t{content}\n".encode())
        return digest.hexdigest()


class _OneFile(Source):
    """One .npy file per video, named by its id."""

    def find(self, folder: Place, video: str) -> list[Place]:
        file = folder / f"{video}.npy"
        if not file.is_file():
            raise DataError(f"no file {file}")
        return [file]


class LogitFiles(_OneFile):
    """Logits that were made elsewhere: one .npy [T, C] per video."""

    kind = "logits"

    def read(self, video: str) -> np.ndarray:
        """Return the logits as stored."""
        shape = (DATASET.segments, len(DATASET.classes))
        return read_input(self.files(video)[0], shape, finite=True)

    def score(self, content: np.ndarray) -> np.ndarray:
        """Return the logits unchanged."""
        return content


class FeatureFiles(_OneFile):
    """A teacher's segment features, one .npy [T, D] per video, compared with its text features.

    Args:
        folder: the folder of the files.
        texts: text features [C, D] and the scale of the logits.
    """

    kind = "features"
    texts: TextFeatures

    def __init__(self, folder: str | Path, *, texts: TextFeatures) -> None:
        super().__init__(folder)
        self.texts = texts

    def read(self, video: str) -> np.ndarray:
        """Return the features as stored."""
        file = self.files(video)[0]
        width = self.texts.vectors.shape[1]
        features = read_input(file, (DATASET.segments, width), finite=True)
        silent = ~features.any(axis=1)
        if silent.any():
            raise DataError(
                f"{file}: the feature of segment {int(silent.argmax())} is all zeros, which has no "
                "direction"
            )
        return features

    def score(self, content: np.ndarray) -> np.ndarray:
        """Return the cosine times the scale."""
        return self.texts.logits(content)


class MediaFiles(Source):
    """Frames (visual) or waveforms (audio), scored by a teacher that is run here.

    A video has a folder of jpg or png frames or one .npy [n, H, W, 3] of uint8, and one .wav or
    .npy [N] with its waveform.

    Args:
        folder: the folder of the files.
        modality: "visual" or "audio".
        teacher: CLIP or CLAP.
        spelling: the spelling of the prompts.
    """

    texts: TextFeatures

    def __init__(
        self,
        folder: str | Path,
        *,
        modality: Modality,
        teacher: Teacher,
        spelling: Spelling = "official",
    ) -> None:
        self.kind = "frames" if modality == "visual" else "waveforms"
        super().__init__(folder)
        self.modality, self.teacher = modality, teacher
        self.texts = teacher.text_features(DATASET.prompts(modality, spelling))

    def find(self, folder: Place, video: str) -> list[Place]:
        """Return the frames of the segments or the file of all frames, or the waveform's file."""
        if self.modality == "visual":
            return find_frames(folder, video)
        return [find_waveform(folder, video)]

    def read(self, video: str) -> np.ndarray:
        """Return the frames [T, 3, S, S], or the segments of the waveform [T, N // T]."""
        files = self.files(video)
        if self.modality == "visual":
            return read_frames(files, size=self.teacher.input_size)
        return split_waveform(read_waveform(files[0]), DATASET.segments)

    def score(self, content: np.ndarray) -> np.ndarray:
        """Return the cosine of the teacher's features and the text features, times the scale."""
        return self.texts.logits(self.teacher.segment_features(content))
