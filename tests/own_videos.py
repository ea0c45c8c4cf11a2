"""Videos of a user's own: six classes that are heard, seen or both, and a table of events."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tests.features.clips import RATE, beep, render

FPS = 8
HEIGHT, WIDTH = 96, 128
SOUNDS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "siren": lambda t, rng: np.sin(2 * np.pi * (900 * t + 190 * np.sin(2 * np.pi * t))),
    "train horn": lambda t, rng: sum(np.sin(2 * np.pi * f * t) for f in (311, 370, 415)) / 3,
    "beep-A": lambda t, rng: np.sin(2 * np.pi * 3000 * t) * (t % 0.25 < 0.12),
    "door knock": lambda t, rng: rng.standard_normal(len(t)) * np.exp(-30 * (t % 0.4)),
    "wind": lambda t, rng: np.convolve(rng.standard_normal(len(t)), np.ones(40) / 12, "same"),
}
"""The sound of a class at times t in seconds."""
COLORS = {
    "siren": (40, 60, 230),
    "train horn": (200, 140, 40),
    "beep-A": (230, 40, 40),
    "door knock": (240, 240, 240),
    "green lamp": (40, 220, 60),
}
"""The colour of what a class shows; each has a shape and a movement of its own."""
CLASSES = sorted({*SOUNDS, *COLORS})
LAMPS = {"red lamp": (220, 30, 30), "blue lamp": (30, 30, 220)}
TONES = {"low tone": 300, "high tone": 3000}
"""The colour of a lamp that fills the picture, and the frequency of a tone in Hz."""


def picture(label: str, onset: float, now: float, image: np.ndarray) -> None:
    """Add what a class shows at a time, as light, to an image, uint8 [H, W, 3]."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    t = now - onset
    shapes = {
        "siren": (x < 44) if t % 0.5 < 0.25 else (x > 84),
        "train horn": (y > 52) & (y < 84) & (abs((x - 40 * t) % WIDTH - 64) < 40),
        "beep-A": (x - 64) ** 2 + (y - 48) ** 2 < (14 + 12 * abs(np.sin(3 * t))) ** 2,
        "door knock": abs((x + y + 30 * t) % 32 - 16) < 6,
        "green lamp": (y < 26) & (x % 42 > 10),
    }
    image[shapes[label]] = np.maximum(image[shapes[label]], COLORS[label])


def make_videos(
    folder: Path, *, count: int = 40, seconds: tuple[float, float] = (20, 40), seed: int = 0
) -> list[list]:
    """Render `folder/videos` and write `folder/events.csv`; return the rows of the table.

    A video holds one event for every six seconds that it lasts, all of different classes. An event
    lasts two to eight seconds, and events may overlap. Wind is only heard, the green lamp only
    seen, and the others are both at once.

    Args:
        folder: folder to write to, which must not hold videos yet.
        count: number of videos.
        seconds: the shortest and the longest duration of a video.
        seed: seed of the drawing.
    """
    rng, rows = np.random.default_rng(seed), []
    (folder / "videos").mkdir(parents=True)
    for n in range(count):
        name, length = f"clip{n:02d}.mp4", round(float(rng.uniform(*seconds)), 1)
        images = np.full((round(length * FPS), HEIGHT, WIDTH, 3), int(rng.integers(30, 70)))
        images = (images + rng.integers(-12, 12, images.shape)).clip(0, 255).astype(np.uint8)
        time = np.arange(int(length * RATE)) / RATE
        sound = 0.01 * rng.standard_normal(len(time))
        for label in rng.permutation(CLASSES)[: int(length / 6)]:
            onset = round(float(rng.uniform(0, length - 2)), 2)
            offset = round(min(length, onset + float(rng.uniform(2, 8))), 2)
            stream = "audio" if label not in COLORS else "visual" if label not in SOUNDS else "av"
            if stream != "visual":
                on = (time >= onset) & (time < offset)
                sound[on] += 0.3 * SOUNDS[label](time[on] - onset, rng)
            if stream != "audio":
                for k in range(round(onset * FPS), min(len(images), round(offset * FPS))):
                    picture(label, onset, k / FPS, images[k])
            rows.append([name, onset, offset, label, stream])
        render(
            folder / "videos" / name,
            pictures=list(images),
            fps=FPS,
            sound=np.float32(sound.clip(-1, 1)),
        )
    with (folder / "events.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["video", "onset", "offset", "label", "stream"], *rows])
    return rows


def render_lamps(
    file: Path,
    *,
    lamps: Sequence[tuple[float, float, tuple[int, int, int]]] = (),
    tones: Sequence[tuple[float, float, float]] = (),
) -> Path:
    """Write ten seconds with lamps and tones: their onset, offset, and colour or frequency."""
    pictures = np.full((10 * FPS, 64, 96, 3), 40, np.uint8)
    for onset, offset, colour in lamps:
        pictures[round(onset * FPS) : round(offset * FPS)] = colour
    sound = sum((beep(10, a, b, hertz=hertz) for a, b, hertz in tones), beep(10, 0, 0))
    return render(file, pictures=list(pictures), fps=FPS, sound=sound)


def make_lamps(
    folder: Path,
    *,
    count: int = 24,
    step: float = 0.01,
    tones: Mapping[str, float] = TONES,
    seed: int = 0,
) -> list[list]:
    """Render `folder/videos` and write `folder/events.csv`; return the rows of the table.

    A video lasts ten seconds and holds one lamp, which is only seen, and one tone, only heard.

    Args:
        folder: folder to write to, which must not hold videos yet.
        count: number of videos.
        step: seconds to whose multiples onsets and offsets are rounded.
        tones: the two labels of tones, and the frequency of each in Hz.
        seed: seed of the drawing.
    """
    rng, rows = np.random.default_rng(seed), []
    (folder / "videos").mkdir(parents=True)
    for n in range(count):
        name, lamp, tone = f"clip{n:02d}.mp4", [*LAMPS][n // 2 % 2], [*tones][n % 2]
        drawn = rng.uniform((0, 2), (5, 5), (2, 2)).cumsum(axis=1)  # of each: onset, offset
        times = (drawn / step).round() * step
        (seen, heard) = [tuple(round(float(t), 2) for t in pair) for pair in times]
        sounds, lights = [(*heard, tones[tone])], [(*seen, LAMPS[lamp])]
        render_lamps(folder / "videos" / name, lamps=lights, tones=sounds)
        rows += [[name, *seen, lamp, "visual"], [name, *heard, tone, "audio"]]
    with (folder / "events.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["video", "onset", "offset", "label", "stream"], *rows])
    return rows
