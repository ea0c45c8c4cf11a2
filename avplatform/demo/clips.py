"""Clips for a first try, drawn by code: something is seen and heard at known seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from avplatform.features.pyav import import_av

SECONDS, FPS, HEIGHT, WIDTH = 10, 10, 120, 160
RATE = 48_000  # Hz
Span = tuple[float, float]
Shape = Callable[[np.ndarray, np.ndarray, float], np.ndarray]
Sound = Callable[[np.ndarray], np.ndarray]


def _flash(x: np.ndarray, y: np.ndarray, t: float) -> np.ndarray:
    return (x < WIDTH / 2) == (t % 1 < 0.5)


def _lamp(x: np.ndarray, y: np.ndarray, t: float) -> np.ndarray:
    return (y < 30) & (x % 40 > 10)


def _ball(x: np.ndarray, y: np.ndarray, t: float) -> np.ndarray:
    return np.hypot(x - 80, y - 70 + 20 * abs(np.sin(3 * t))) < 24


def _siren(t: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * (900 * t + 190 * np.sin(2 * np.pi * t)))


def _beep(t: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * 2000 * t) * (t % 0.5 < 0.2)


def _wind(t: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(len(t))
    return np.convolve(noise, np.ones(60) / 12, "same")


CLIPS: dict[
    str, tuple[list[tuple[Span, Shape, tuple[int, int, int]]], list[tuple[Span, Sound]]]
] = {
    "siren and lamp": (
        [((0, 4), _flash, (40, 60, 230)), ((3, 8), _lamp, (40, 220, 60))],
        [((0, 4), _siren)],
    ),
    "beep and wind": ([((0, 5), _ball, (230, 40, 40))], [((0, 5), _beep), ((4, 10), _wind)]),
}
"""What is seen (when, where, in which colour) and heard (when, what) in each clip."""


def write_clips(folder: Path) -> list[Path]:
    """Draw the clips as WebM, which every browser plays, and return their files.

    Raises:
        UsageError: PyAV is not installed.
    """
    return [_write(folder / f"{name}.webm", *parts) for name, parts in CLIPS.items()]


def _write(
    file: Path,
    seen: list[tuple[Span, Shape, tuple[int, int, int]]],
    heard: list[tuple[Span, Sound]],
) -> Path:
    av = import_av()
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    time = np.arange(SECONDS * RATE) / RATE
    parts = [0.3 * sound(time) * ((time >= start) & (time < end)) for (start, end), sound in heard]
    samples = np.sum(parts, axis=0).astype(np.float32)
    with av.open(str(file), "w") as out:
        pictures = out.add_stream("libvpx", rate=FPS)
        pictures.height, pictures.width, pictures.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        sounds = out.add_stream("libopus", rate=RATE, layout="mono")
        for number in range(SECONDS * FPS):
            image, now = np.full((HEIGHT, WIDTH, 3), 50, np.uint8), number / FPS
            for (start, end), shape, colour in seen:
                if start <= now < end:
                    image[shape(x, y, now)] = colour
            out.mux(pictures.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(pictures.encode())
        for start in range(0, len(samples), 960):
            frame = av.AudioFrame.from_ndarray(
                samples[None, start : start + 960], format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = RATE, start
            out.mux(sounds.encode(frame))
        out.mux(sounds.encode())
    return file
