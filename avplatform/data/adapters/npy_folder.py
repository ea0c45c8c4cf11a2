"""A folder of one .npy file per video, as LLP's features and pseudo-labels come."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from avplatform.base.npy import NUMBERS, BadFeature, read_npy
from avplatform.models.errors import DataError


class NpyFolder:
    """A folder that holds one .npy file per video; it is listed once, when the object is made.

    Args:
        folder: the folder of the files.
        remedy: what the error message recommends where the folder holds no .npy file.

    Raises:
        DataError: the folder is missing or holds no .npy file.
    """

    def __init__(self, folder: Path, remedy: str) -> None:
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
        """The folder's last two names, as reports show it."""
        return "/".join(self.folder.resolve().parts[-2:])

    def file(self, video: str) -> Path:
        """Return the path of a video's file."""
        return self.folder / f"{video}.npy"

    def read(self, video: str, shape: tuple[int, ...], *, labels: bool = False) -> np.ndarray:
        """Return a video's array.

        Raises:
            BadFeature: the file is missing, damaged, or of another shape or type.
        """
        if video not in self.sizes:
            raise BadFeature("is missing")
        return read_npy(self.file(video), shape, kinds="b" + NUMBERS if labels else NUMBERS)


def _stamp(entry: os.DirEntry[str]) -> tuple[int, int]:
    """Return a file's size and time, or zeros for a broken link, which reading reports later."""
    try:
        stat = entry.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns
