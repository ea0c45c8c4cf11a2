"""The preview of a video: a strip of small frames, and the outline of its sound."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from avplatform.features.container import Limits

MOST_FRAMES = 40
FRAME_HEIGHT = 90
RATE = 8000  # Hz; enough for an outline
PEAKS_A_SECOND = 40
MOST_PEAKS = 2400
CHUNK = 60.0  # seconds of sound in memory at a time


@dataclass(kw_only=True)
class Preview:
    """Small frames, evenly spaced, as (seconds, JPEG); and the peaks of stretches of sound."""

    frames: list[tuple[float, bytes]] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)


def preview(path: str | Path, info: Any, limits: Limits | None = None) -> Preview:
    """Return the preview of a media file; a stream that it lacks is left out.

    Args:
        path: the file.
        info: the result of `avplatform.features.media.probe`.
        limits: the limits for the file.

    Raises:
        DataError: the file cannot be read.
    """
    found = Preview()
    if info.has_video:
        found.frames = frame_strip(path, info, limits)
    if info.has_audio:
        found.peaks = outline(path, info.duration, limits)
    return found


def frame_strip(
    path: str | Path, info: Any, limits: Limits | None = None
) -> list[tuple[float, bytes]]:
    """Return one frame per second, or fewer of a long video, from the middle of each stretch."""
    from avplatform.features.media import read_frames

    count = max(1, min(MOST_FRAMES, round(info.duration)))
    times = (np.arange(count) + 0.5) * info.duration / count
    ratio = min(4.0, max(0.25, (info.width or 4) / (info.height or 3)))
    frames = read_frames(
        path, times, (FRAME_HEIGHT, max(2, round(FRAME_HEIGHT * ratio))), limits=limits
    )
    return [(float(time), as_jpeg(frame)) for time, frame in zip(times, frames, strict=True)]


def outline(path: str | Path, duration: float, limits: Limits | None = None) -> list[float]:
    """Return the peak of each short stretch, from 0 to 1; the sound is read a minute at a time."""
    from avplatform.features.media import read_waveform

    length = round(max(1.0 / PEAKS_A_SECOND, duration / MOST_PEAKS) * RATE)
    peaks: list[float] = []
    left = np.zeros(0, np.float32)  # samples of a stretch that the next part goes on with
    start = 0.0
    while start < duration:
        last = duration - start < 2 * CHUNK  # the remainder is read with the last whole minute
        samples = read_waveform(
            path, RATE, start=start, seconds=duration - start if last else CHUNK, limits=limits
        )
        samples = np.concatenate([left, samples])
        whole = len(samples) if last else len(samples) // length * length
        peaks += peaks_of(samples[:whole], length)
        left = samples[whole:]
        if last:
            break
        start += CHUNK
    return peaks


def peaks_of(samples: np.ndarray, length: int) -> list[float]:
    """Return the largest absolute value of every `length` samples.

    Examples:
        >>> peaks_of(np.array([0.1, -0.5, 0.2, 0.25, -2.0]), 2)
        [0.5, 0.25, 1.0]
    """
    if not len(samples):
        return []
    starts = np.arange(0, len(samples), max(1, length))
    peaks = np.minimum(np.maximum.reduceat(np.abs(samples), starts), 1.0)
    return [round(float(peak), 3) for peak in peaks]


def as_jpeg(frame: np.ndarray) -> bytes:
    """Return an RGB frame, uint8 [H, W, 3], as a JPEG file."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(frame).save(out, "JPEG", quality=72)
    return out.getvalue()
