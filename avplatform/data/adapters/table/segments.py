"""Events to segment labels, and back.

The times are compared exactly, as the decimal numbers that the user wrote: an event from 0.1 to 0.6
covers half of the first second, whatever 0.6 - 0.1 is in floating point.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np

Span = tuple[float, float]


def exact(seconds: float) -> Fraction:
    """Return a number as the decimal that is written for it."""
    return Fraction(repr(float(seconds)))


def joined(spans: Iterable[Span]) -> list[Span]:
    """Return spans in order, with those that overlap or touch as one.

    Examples:
        >>> joined([(3.0, 4.0), (0.0, 1.0), (0.5, 2.0), (2.0, 2.5)])
        [(0.0, 2.5), (3.0, 4.0)]
    """
    out: list[Span] = []
    for onset, offset in sorted(spans):
        if out and onset <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], offset))
        else:
            out.append((onset, offset))
    return out


def covered_shares(spans: Iterable[Span], segments: int, *, seconds: float = 1.0) -> np.ndarray:
    """Return the share of each segment that the spans cover together.

    Args:
        spans: onsets and offsets in seconds; what lies outside the segments is left out.
        segments: the number of segments.
        seconds: the length of a segment.

    Shape: object [T], exact fractions from 0 to 1.
    """
    each, shares = exact(seconds), np.array([Fraction(0)] * segments, dtype=object)
    for onset, offset in joined(spans):
        begin, end = max(exact(onset), Fraction(0)), min(exact(offset), segments * each)
        for segment in range(int(begin // each), min(segments, int(-(-end // each)))):
            inside = min(end, (segment + 1) * each) - max(begin, segment * each)
            shares[segment] += max(inside, Fraction(0)) / each
    return shares


def active_shares(
    spans: Iterable[Span], segments: int, *, seconds: float = 1.0, covered: float = 0.5
) -> np.ndarray:
    """Return the covered share of the segments that are active, and 0 for the others.

    A segment is active if the spans cover at least `covered` of it.

    Shape: float32 [T].

    Examples:
        >>> active_shares([(0.1, 0.6), (1.6, 3.0)], 4).tolist()
        [0.5, 0.0, 1.0, 0.0]
    """
    shares, least = covered_shares(spans, segments, seconds=seconds), exact(covered)
    return np.array([float(s) if s >= least else 0.0 for s in shares], np.float32)


def spans_of(active: Sequence[bool] | np.ndarray, *, seconds: float = 1.0) -> list[Span]:
    """Return the runs of active segments as onsets and offsets in seconds.

    Examples:
        >>> spans_of([True, True, False, True], seconds=0.5)
        [(0.0, 1.0), (1.5, 2.0)]
    """
    each = exact(seconds)
    steps = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(active, np.int8) != 0, [0]])))
    return [(float(a * each), float(b * each)) for a, b in steps.reshape(-1, 2).tolist()]
