"""Spans of consecutive segments with an event."""

from __future__ import annotations

import numpy as np


def runs(row: np.ndarray) -> list[tuple[int, int]]:
    """Return (first, one past the last) of each run of ones in a row of decisions.

    Examples:
        >>> runs(np.array([1, 1, 0, 1]))
        [(0, 2), (3, 4)]
    """
    padded = np.concatenate([[0], np.asarray(row).astype(int), [0]])
    starts, ends = np.flatnonzero(np.diff(padded) == 1), np.flatnonzero(np.diff(padded) == -1)
    return [(int(s), int(e)) for s, e in zip(starts, ends, strict=True)]
