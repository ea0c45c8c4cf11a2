"""Renders a planned clip: its sound as samples, its pictures one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from avplatform.data.adapters.llp.annotations import SEGMENTS
from examples.real_media.material import RATE, Material, Photo
from examples.real_media.plan import PlannedClip, PlannedEvent

WIDTH, HEIGHT, FPS = 320, 240, 8
FADE = 441  # samples at both ends of every piece of sound, against clicks
EVENT_LEVEL = 0.12  # root mean square of an event's sound
EVENT_DECIBELS = 4.0  # by which events differ from it at most
AMBIENCE_LEVEL = 0.008
SILENT_AMBIENCE = 0.3  # clips without any
GAP = 0.15  # seconds between repetitions of a sound, at most


def render_sound(clip: PlannedClip, material: Material, seed: int) -> np.ndarray:
    """Return the sound of a clip.

    It is faint ambience and the sound of every event that is heard, looped over its seconds.

    Shape: [samples] at 44,100 Hz, float32 in [-1, 1].
    """
    rng = np.random.default_rng(clip.seed(seed, "sound"))
    out = np.zeros(SEGMENTS * RATE, np.float64)
    if rng.random() >= SILENT_AMBIENCE:
        out += _filled(
            [material.ambience[rng.integers(len(material.ambience))]], len(out), rng, AMBIENCE_LEVEL
        )
    for event in clip.events:
        if event.stream == "audio":
            level = EVENT_LEVEL * 10 ** (rng.uniform(-EVENT_DECIBELS, EVENT_DECIBELS) / 20)
            samples = (event.offset - event.onset) * RATE
            out[event.onset * RATE : event.offset * RATE] += _filled(
                material.sounds[event.label], samples, rng, level
            )
    return np.clip(out, -1, 1).astype(np.float32)


def render_frames(clip: PlannedClip, material: Material, seed: int) -> Iterator[np.ndarray]:
    """Yield the pictures of a clip.

    A picture is a background that pans and zooms, with the photo of every event that is seen on it.
    Two events that are seen at the same time are shown side by side.

    Shape: [240, 320, 3], uint8; 8 a second.
    """
    rng = np.random.default_rng(clip.seed(seed, "frames"))
    place = material.places[rng.integers(len(material.places))].image.convert("RGB")
    pan = _Line(_window(place.size, rng), _window(place.size, rng))
    seen = [event for event in clip.events if event.stream == "visual"]
    actors = [
        _Actor(event, material.photos[event.label], _slot(event, seen), rng) for event in seen
    ]
    for index in range(SEGMENTS * FPS):
        time = (index + 0.5) / FPS
        box = tuple(pan.at(time / SEGMENTS))
        frame = place.transform(
            (WIDTH, HEIGHT), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR
        )
        for actor in actors:
            actor.draw(frame, time)
        yield np.asarray(frame)


class _Line:
    """A straight way between two points of any dimension."""

    def __init__(self, begin: Any, end: Any) -> None:
        self.begin, self.end = np.asarray(begin, float), np.asarray(end, float)

    def at(self, share: float) -> np.ndarray:
        return self.begin + share * (self.end - self.begin)


class _Actor:
    """The photo of one event: which one, how large, and where it goes while it is seen."""

    def __init__(
        self,
        event: PlannedEvent,
        photos: list[Photo],
        slot: tuple[float, float],
        rng: np.random.Generator,
    ) -> None:
        self.event = event
        photo = photos[rng.integers(len(photos))]
        self.image = photo.image
        left, right = slot
        room = np.array([right - left, HEIGHT])
        if photo.cut_out:  # a thing: whole, turned a little
            self.image = self.image.rotate(
                rng.uniform(-8, 8), Image.Resampling.BICUBIC, expand=True
            )
            size = np.array(self.image.size)
            self.crop = _Line((0, 0, *size), (0, 0, *size))
            largest = float((room / size).min())
            shares = rng.uniform(0.7, 1.0, 2)
            self.size = _Line(size * largest * shares[0], size * largest * shares[1])
        else:  # a photo with its surroundings: a window of it that moves
            self.crop = _Line(
                _window(self.image.size, rng, room), _window(self.image.size, rng, room)
            )
            share = rng.uniform(0.75, 1.0)
            self.size = _Line(room * share, room * share)
        middles = [
            (left, 0) + self.size.at(end) / 2 + (room - self.size.at(end)) * rng.random(2)
            for end in (0.0, 1.0)
        ]
        self.middle = _Line(*middles)

    def draw(self, frame: Image.Image, time: float) -> None:
        """Put it on a frame, if it is seen at that time."""
        if not self.event.onset <= time < self.event.offset:
            return
        share = (time - self.event.onset) / (self.event.offset - self.event.onset)
        size = np.maximum(self.size.at(share).round().astype(int), 1)
        left, top = (self.middle.at(share) - size / 2).round().astype(int)
        crop = tuple(self.crop.at(share))
        shown = self.image.resize(
            (int(size[0]), int(size[1])), Image.Resampling.BILINEAR, box=crop, reducing_gap=2.0
        )
        frame.paste(shown, (int(left), int(top)), shown)


def _slot(event: PlannedEvent, seen: Sequence[PlannedEvent]) -> tuple[float, float]:
    """Return the part of the frame's width that an event takes.

    It is all of it, or half where another event is seen at the same time.
    """
    rivals = [other for other in seen if other.onset < event.offset and event.onset < other.offset]
    if len(rivals) == 1:
        return 0, WIDTH
    left = seen.index(event) % 2 == 0
    return (0, WIDTH / 2) if left else (WIDTH / 2, WIDTH)


def _window(
    size: Sequence[int], rng: np.random.Generator, room: Any = (WIDTH, HEIGHT)
) -> np.ndarray:
    """Return a random window of a picture, with the proportions of `room`.

    It is at least three quarters of the largest such window.
    """
    full = np.asarray(size, float)
    shape = np.asarray(room, float)
    extent = shape * (full / shape).min() * rng.uniform(0.75, 1.0)
    corner = (full - extent) * rng.random(2)
    return np.concatenate([corner, corner + extent])


def _filled(
    sounds: list[np.ndarray], samples: int, rng: np.random.Generator, level: float
) -> np.ndarray:
    """Fill a stretch with a recording that begins at a random place and is repeated.

    If there are many short recordings, randomly drawn ones follow one another.
    """
    out = np.zeros(samples, np.float64)
    sound = sounds[rng.integers(len(sounds))]
    at, begin = 0, int(rng.integers(max(1, len(sound) // 2)))
    while at < samples:
        piece = sound[begin : begin + samples - at].astype(np.float64)
        fade = np.minimum(
            1, np.minimum(np.arange(1, len(piece) + 1), np.arange(len(piece), 0, -1)) / FADE
        )
        out[at : at + len(piece)] = piece * fade
        at += len(piece) + int(rng.uniform(0, GAP) * RATE)
        begin = 0
        if len(sounds) > 10:  # many short ones, as of speech: another one follows
            sound = sounds[rng.integers(len(sounds))]
    return out * (level / max(1e-9, float(np.sqrt((out**2).mean()))))
