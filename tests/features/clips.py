"""Media files that tests render: known tones and pictures at known seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

RATE = 44_100
Picture = Callable[[float], np.ndarray]


def bits_of(index: int, *, height: int = 96, width: int = 128) -> np.ndarray:
    """A picture that says its number: ten columns, white for 1 and black for 0."""
    picture = np.zeros((height, width, 3), np.uint8)
    for bit in range(10):
        if index >> bit & 1:
            picture[:, bit * width // 10 : (bit + 1) * width // 10] = 255
    return picture


def number_in(picture: np.ndarray) -> int:
    """The number that `bits_of` drew."""
    width = picture.shape[1]
    middles = [int((bit + 0.5) * width / 10) for bit in range(10)]
    return sum(1 << bit for bit, column in enumerate(middles) if picture[:, column].mean() > 127)


def beep(
    seconds: float, start: float, stop: float, *, hertz: float = 1000.0, loud: float = 0.5
) -> np.ndarray:
    """Silence with a tone from `start` to `stop`: float32 [samples] at RATE."""
    time = np.arange(int(seconds * RATE)) / RATE
    return (loud * np.sin(2 * np.pi * hertz * time) * ((time >= start) & (time < stop))).astype(
        np.float32
    )


def render(
    path: Path,
    *,
    pictures: Sequence[np.ndarray] | None = None,
    fps: Fraction | int = 25,
    stamps: Sequence[int] | None = None,
    sound: np.ndarray | None = None,
    codec: str = "mpeg4",
    sound_codec: str = "aac",
    sound_from: float = 0.0,
    layout: str = "mono",
    pix_fmt: str = "yuv420p",
) -> Path:
    """Write a media file; `stamps` are the frame times in milliseconds if the rate varies."""
    with av.open(str(path), "w") as container:
        video: Any = None
        audio: Any = None
        if pictures is not None:
            video = container.add_stream(codec, rate=fps if stamps is None else 1000)
            video.height, video.width = pictures[0].shape[:2]
            video.pix_fmt = pix_fmt
            video.bit_rate = 4_000_000
            video.options = {"g": "12"}
            if stamps is not None:
                video.codec_context.time_base = Fraction(1, 1000)
        if sound is not None:
            audio = container.add_stream(sound_codec, rate=RATE, layout=layout)
        for index, picture in enumerate(pictures if pictures is not None else []):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if stamps is None:
                frame.pts, frame.time_base = index, 1 / Fraction(fps)
            else:
                frame.pts, frame.time_base = stamps[index], Fraction(1, 1000)
            container.mux(video.encode(frame))
        if video is not None:
            container.mux(video.encode(None))
        if audio is not None and sound is not None:
            planes = 2 if layout == "stereo" else 1
            for start in range(0, len(sound), 1024):
                part = sound[start : start + 1024]
                frame = av.AudioFrame.from_ndarray(
                    np.tile(part[None], (planes, 1)), format="fltp", layout=layout
                )
                frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
                frame.pts = start + round(sound_from * RATE)
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


def standard(
    path: Path,
    *,
    seconds: int = 10,
    beep_at: int = 4,
    flash_at: int = 6,
    fps: int = 25,
    **options: Any,
) -> Path:
    """A clip with a tone in one second and another picture in another."""
    dark, bright = np.full((96, 128, 3), 40, np.uint8), np.zeros((96, 128, 3), np.uint8)
    bright[24:72, 32:96] = (250, 200, 30)
    pictures = [
        bright if flash_at <= index / fps < flash_at + 1 else dark for index in range(seconds * fps)
    ]
    return render(
        path, pictures=pictures, fps=fps, sound=beep(seconds, beep_at, beep_at + 1), **options
    )


def turn(path: Path, degrees: int) -> Path:
    """Let an mp4 say that its pictures are to be shown turned by some degrees, clockwise."""
    one, matrices = 1 << 16, {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
    a, b, c, d = matrices[degrees]
    matrix = np.array(
        [a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30], dtype=">i4"
    ).tobytes()
    data = bytearray(path.read_bytes())
    place = (
        data.index(b"tkhd") + 4 + 4 + 32 + 4
    )  # after version and flags, times, ids, duration, layer and volume
    data[place : place + 36] = matrix
    path.write_bytes(bytes(data))
    return path
