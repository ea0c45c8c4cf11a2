"""Which moments of a video stand for its segments.

Source: the extraction scripts behind the published features write frames at 8 a second and take 80 of the n that there are, at
round(linspace(0, n - 1, 80)). VALOR takes 10 of the same n.
"""

from __future__ import annotations

import numpy as np

from avplatform.models.errors import DataError, counted

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
    indices = frame_indices(count_ticks(seconds, fps), segments * per_segment)
    return tick_times(indices, fps)


SAMPLE_RATE = 48_000  # Hz, CLAP's


def frame_indices(frames: int, count: int) -> np.ndarray:
    """Return which of a clip's frames stand for its segments: evenly spread, the first and the last among them.

    Example:
        >>> frame_indices(80, 10).tolist()
        [0, 9, 18, 26, 35, 44, 53, 61, 70, 79]
    """
    return np.round(np.linspace(0, frames - 1, count)).astype(np.int64)


def split_waveform(waveform: np.ndarray, segments: int) -> np.ndarray:
    """Cut a waveform of N samples into segments of floor(N / T) samples that start at round(i N / T) (half to even).

    Shape: [N] -> [T, floor(N / T)].

    Raises:
        DataError: fewer samples than segments.
    """
    samples = len(waveform)
    if samples < segments:
        raise DataError(
            f"a waveform of {counted(samples, 'sample')} cannot be cut into {counted(segments, 'segment')}"
        )
    starts = np.round(np.arange(segments) * samples / segments).astype(np.int64)
    return np.stack([waveform[start : start + samples // segments] for start in starts])
