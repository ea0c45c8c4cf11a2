"""Read small arrays of AVE's h5 files."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from avplatform.models.errors import DataError

KEY = "avadataset"
"""Name of the array in all of AVE's h5 files except the order files."""


def read_h5(file: Path, key: str = KEY, *, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Read a whole array.

    Args:
        file: the file.
        key: the array's name in the file.
        shape: the shape that the array must have, checked before anything is read.

    Raises:
        DataError: the file cannot be read or has no such array of numbers of that shape.
    """
    try:
        with h5py.File(file) as h5:
            dataset = h5[key]
            if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "biuf":
                raise DataError(f"'{key}' of {file} is not an array of numbers")
            if shape is not None and dataset.shape != shape:
                raise DataError(f"{file} has shape {dataset.shape} instead of {shape}")
            return np.asarray(dataset)
    except (OSError, KeyError, RuntimeError) as error:
        raise DataError(
            f"cannot read '{key}' of {file}: {error}; it must be AVE's official h5 file"
        ) from None
