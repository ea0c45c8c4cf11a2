"""npy."""

from __future__ import annotations

import tokenize
from pathlib import Path

import numpy as np

HEADER_ERRORS = (ValueError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError)
"""What NumPy raises of a damaged header of a .npy file, which it reads as an expression of Python."""
NUMBERS = "fiu"
"""Kinds of numbers (numpy's `dtype.kind`) that features may be in their files."""


def read_npy(file: Path, shape: tuple[int, ...], *, kinds: str = NUMBERS) -> np.ndarray:
    """Return the array of a file, of which only the header is trusted to be text.

    Args:
        file: the file.
        shape: what it must have.
        kinds: of numbers that are accepted, as numpy's `dtype.kind`.

    Raises:
        BadFeature: not a .npy file, truncated, or of another shape or type.
    """
    try:
        with file.open("rb") as stream:
            try:
                version = np.lib.format.read_magic(stream)
                header = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }.get(version)
                if header is None:
                    raise BadFeature(
                        f"is a .npy file of version {version[0]}.{version[1]}, which no array of numbers has"
                    )
                found, fortran, dtype = header(stream)
            except HEADER_ERRORS as error:
                text = (
                    "is empty"
                    if file.stat().st_size == 0
                    else f"is no .npy file ({str(error).splitlines()[0][:80]})"
                )
                raise BadFeature(text) from None
            if dtype.hasobject:
                raise BadFeature("holds pickled Python objects, which are never read")
            if found != shape:
                raise BadFeature(f"has shape {found} instead of {shape}")
            if dtype.kind not in kinds:
                raise BadFeature(f"holds {dtype}, not numbers")
            count = int(np.prod(shape)) * dtype.itemsize
            data = stream.read(count)
    except OSError as error:
        raise BadFeature(f"cannot be read ({error.strerror or error})") from None
    if len(data) < count:
        raise BadFeature(f"is truncated: {len(data)} of {count} bytes")
    return np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran else "C")


class BadFeature(Exception):  # noqa: N818
    """A clip's feature that cannot be used; the text is the reason."""
