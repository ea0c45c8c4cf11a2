"""Read .npy files that may be damaged or hostile: shape and type are checked first, and nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from avplatform.base.npy import NUMBERS, BadFeature, read_npy
from avplatform.models.errors import DataError


class NpyFolder:
    """A folder with one array a video, listed once.

    Args:
        folder: where the files are.
        remedy: what to do where there is none.

    Raises:
        DataError: no folder, or no .npy file in it.
    """

    def __init__(
        self, folder: Path, remedy: str = "give the folder that holds one a video"
    ) -> None:
        self.folder = folder
        self.sizes: dict[str, int] = {}
        stamps = []
        try:
            for entry in os.scandir(folder):
                if entry.name.endswith(".npy"):
                    size, time = _stamp(entry)
                    self.sizes[entry.name.removesuffix(".npy")] = size
                    stamps.append(f"{entry.name}\t{size}\t{time}\n")
        except OSError as error:
            raise DataError(f"cannot list {folder}: {error}") from None
        if not self.sizes:
            raise DataError(f"{folder} holds no .npy file; {remedy}")
        self.fingerprint = hashlib.sha256(os.fsencode("".join(sorted(stamps)))).hexdigest()

    @property
    def place(self) -> str:
        """The folder's name with the one around it, as reports show it."""
        return "/".join(self.folder.resolve().parts[-2:])

    def file(self, video: str) -> Path:
        """Return the path of a video's file."""
        return self.folder / f"{video}.npy"

    def read(self, video: str, shape: tuple[int, ...], *, labels: bool = False) -> np.ndarray:
        """Return a video's array.

        Raises:
            BadFeature: it is missing, damaged, or of another shape or type.
        """
        if video not in self.sizes:
            raise BadFeature("is missing")
        return read_npy(self.file(video), shape, kinds="b" + NUMBERS if labels else NUMBERS)


def _stamp(entry: os.DirEntry[str]) -> tuple[int, int]:
    """Return size and time of a file; of a link that leads nowhere nothing, as reading it says what is wrong."""
    try:
        stat = entry.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns
