"""Reading .npy files that may be damaged or hostile.

Nothing is unpickled, and the shape and the type are checked before the values are read.
"""

from __future__ import annotations

import math
import os
import tokenize
from pathlib import Path
from typing import IO, Literal

import numpy as np

from avplatform.models.errors import DataError

NUMBERS = "fiu"
"""Kinds of numbers (NumPy's `dtype.kind`) that the files of features may hold."""


class BadFeature(Exception):  # noqa: N818
    """A feature file that cannot be used.

    The text is what the reader says after the name of the file, such as "is truncated".
    """


def read_npy(
    file: Path,
    shape: tuple[int | None, ...] | None = None,
    *,
    kinds: str | None = NUMBERS,
    finite: bool = False,
    mapped: bool = False,
) -> np.ndarray:
    """Return the array of a .npy file.

    Args:
        file: the file.
        shape: the required shape, where None is an axis of any length but zero; None for any shape.
        kinds: the accepted kinds of numbers, as letters of NumPy's `dtype.kind`; None for any type
            but Python objects.
        finite: refuse NaN and infinite numbers.
        mapped: leave the values in the file and map them; changes to the array are not written.

    Raises:
        BadFeature: the file cannot be read, is not a .npy file, is truncated, or its array is not
            of the required shape or kind, or not finite.
    """
    try:
        with file.open("rb") as stream:
            found, fortran, dtype = read_header(stream, shape, kinds=kinds)
            order: Literal["C", "F"] = "F" if fortran else "C"
            start, count = stream.tell(), math.prod(found) * dtype.itemsize
            # A header may claim more than any memory holds.
            if (present := os.fstat(stream.fileno()).st_size - start) < count:
                raise BadFeature(f"is truncated: {present} of {count} bytes")
            if mapped:
                return np.memmap(file, dtype, "c", start, found, order)
            data = bytearray(count)
            stream.readinto(data)
            array = np.frombuffer(data, dtype).reshape(found, order=order)
    except OSError as error:
        raise BadFeature(f"cannot be read ({error.strerror or error})") from None
    # ValueError: items of zero bytes; OverflowError: an axis longer than an integer can say.
    except (ValueError, OverflowError) as error:
        raise BadFeature(f"is not a .npy file ({error})") from None
    if finite and not np.isfinite(array).all():
        raise BadFeature("holds a NaN or an infinite number")
    return array


def read_input(
    file: Path,
    shape: tuple[int | None, ...] | None = None,
    *,
    kinds: str | None = NUMBERS,
    finite: bool = False,
) -> np.ndarray:
    """Return the array of a file that a user gave, with the arguments of `read_npy`.

    Raises:
        DataError: in the cases of `read_npy`; the message names the file.
    """
    try:
        return read_npy(file, shape, kinds=kinds, finite=finite)
    except BadFeature as error:
        raise DataError(f"cannot read {file}: it {error}") from None


def read_header(
    stream: IO[bytes], shape: tuple[int | None, ...] | None = None, *, kinds: str | None = NUMBERS
) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return the shape, whether the order is Fortran's, and the type, as the header states them.

    `shape` and `kinds` are those of `read_npy`. The stream is left at the first value.

    Raises:
        BadFeature: this is not a .npy file, or its array is not of the required shape or kind.
    """
    try:
        version = np.lib.format.read_magic(stream)
        header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if header is None:
            number = ".".join(map(str, version))
            raise BadFeature(
                f"is a .npy file of version {number}, which arrays of numbers never have"
            )
        found, fortran, dtype = header(stream)
    except _HEADER_ERRORS as error:
        if os.fstat(stream.fileno()).st_size == 0:
            raise BadFeature("is empty") from None
        text = [*str(error).splitlines(), type(error).__name__][0]
        raise BadFeature(f"is not a .npy file ({text[:80]})") from None
    if dtype.hasobject:
        raise BadFeature("holds pickled Python objects, which are never read")
    if shape is not None and not _fits(found, shape):
        wanted = str(shape).replace("None", "any")
        raise BadFeature(f"has shape {found} instead of {wanted}")
    if kinds is not None and dtype.kind not in kinds:
        raise BadFeature(f"holds {dtype}, not numbers")
    if min(found, default=0) < 0:
        raise BadFeature(f"has the impossible shape {found}")
    return found, fortran, dtype


# What NumPy raises for a damaged header, which it reads as a Python expression.
_HEADER_ERRORS = (ValueError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError)


def _fits(found: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    return len(found) == len(shape) and all(
        n == wanted or (wanted is None and n > 0) for n, wanted in zip(found, shape, strict=True)
    )
