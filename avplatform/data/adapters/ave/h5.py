"""Read small arrays of AVE's h5 family."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from avplatform.models.errors import DataError

KEY = "avadataset"
"""Name of the array in all of AVE's files but the orders."""


def read_h5(file: Path, key: str = KEY, *, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Read an array whole.

    Args:
        file: the file.
        key: the array's name in it.
        shape: the shape it must have, checked before anything is read.

    Raises:
        DataError: a file that cannot be read, no such array in it, no numbers, or another shape.
    """
    try:
        with h5py.File(file) as h5:
            dataset = h5[key]
            if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "biuf":
                raise DataError(f"'{key}' of {file} is no array of numbers")
            if shape is not None and dataset.shape != shape:
                raise DataError(f"{file} has shape {dataset.shape} instead of {shape}")
            return np.asarray(dataset)
    except (OSError, KeyError, RuntimeError) as error:
        raise DataError(
            f"cannot read '{key}' of {file}: {error}; it must be AVE's official h5 file"
        ) from None
