"""Which moments of a video stand for its segments.

Source: the extraction scripts behind LLP's features write frames at 8 a second and take 80 of the n that there are, at
round(linspace(0, n - 1, 80)). VALOR takes 10 of the same n.
"""

from __future__ import annotations

import numpy as np

JUST_BEFORE = 1e-6  # seconds


def count_segments(seconds: float) -> int:
    """Return how many one-second segments a clip of some length has: the nearest whole number, at least 1."""
    return max(1, int(np.floor(seconds + 0.5)))


def count_ticks(seconds: float, fps: float) -> int:
    """Return how many frames a video of some length gives when it is written at `fps`, at least 1."""
    return max(1, int(np.floor(seconds * fps + 0.5)))


def tick_times(indices: np.ndarray, fps: float) -> np.ndarray:
    """Return the moment whose frame is written as the k-th when a video is brought to `fps`, in seconds.

    Frame k is the last that begins before (k + 1/2) / fps, as FFmpeg's fps filter rounds.
    """
    return np.maximum((np.asarray(indices) + 0.5) / fps - JUST_BEFORE, 0.0)


def frame_times(seconds: float, segments: int, *, fps: float, per_segment: int) -> np.ndarray:
    """Return the moments of the frames of all segments, from the beginning of the clip.

    Shape: [segments * per_segment], rising; the frames of segment t are [t * per_segment, (t + 1) * per_segment).
    """
    from tasks.avvp.pseudo_labels import frame_indices  # not above: it brings torch, which reading media does without

    indices = frame_indices(count_ticks(seconds, fps), segments * per_segment)
    return tick_times(indices, fps)
