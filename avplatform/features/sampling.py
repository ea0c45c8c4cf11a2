"""Which frames and samples of a clip represent its segments.

Source: the extraction scripts behind the published features write n frames at 8 per second and take
80 of them, at round(linspace(0, n - 1, 80)). VALOR takes 10 of the same n.
"""

from __future__ import annotations

import numpy as np

from avplatform.models.errors import DataError, counted

JUST_BEFORE = 1e-6  # seconds


def count_segments(seconds: float, each: float = 1.0) -> int:
    """Return the number of segments of `each` seconds in a clip: rounded, and at least 1."""
    return max(1, int(np.floor(seconds / each + 0.5)))


def count_ticks(seconds: float, fps: float) -> int:
    """Return the number of frames of a video when it is written at `fps`, at least 1."""
    return max(1, int(np.floor(seconds * fps + 0.5)))


def tick_times(indices: np.ndarray, fps: float) -> np.ndarray:
    """Return the times in seconds at which a video resampled to `fps` takes its frames.

    Frame k is the last one that begins before (k + 1/2) / fps, as FFmpeg's fps filter rounds.
    """
    return np.maximum((np.asarray(indices) + 0.5) / fps - JUST_BEFORE, 0.0)


def frame_times(seconds: float, segments: int, *, fps: float, per_segment: int) -> np.ndarray:
    """Return the times of the frames of all segments, in seconds from the beginning of the clip.

    Shape: [segments * per_segment], ascending; the frames of segment t are
    [t * per_segment, (t + 1) * per_segment).
    """
    indices = frame_indices(count_ticks(seconds, fps), segments * per_segment)
    return tick_times(indices, fps)


SAMPLE_RATE = 48_000  # Hz, the rate of CLAP


def frame_indices(frames: int, count: int) -> np.ndarray:
    """Return the indices of `count` evenly spaced frames, among them the first and the last.

    Examples:
        >>> frame_indices(80, 10).tolist()
        [0, 9, 18, 26, 35, 44, 53, 61, 70, 79]
    """
    return np.round(np.linspace(0, frames - 1, count)).astype(np.int64)


def split_waveform(waveform: np.ndarray, segments: int) -> np.ndarray:
    """Cut a waveform of N samples into T segments.

    Segment i has floor(N / T) samples and starts at round(i N / T), with halves rounded to even.

    Shape: [N] -> [T, floor(N / T)].

    Raises:
        DataError: there are fewer samples than segments.
    """
    samples = len(waveform)
    if samples < segments:
        raise DataError(
            f"a waveform of {counted(samples, 'sample')} cannot be cut into "
            f"{counted(segments, 'segment')}"
        )
    starts = np.round(np.arange(segments) * samples / segments).astype(np.int64)
    return np.stack([waveform[start : start + samples // segments] for start in starts])
