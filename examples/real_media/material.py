"""Photographs and recordings of a split as arrays, read from the cache of packages."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps

from avplatform.models.errors import DataError
from examples.real_media.sources import BACKGROUND, CLASSES, ClassSources, content

RATE = 44_100  # Hz
TRAIN_PART = 0.6  # of a recording that training and test share
BLOCK = 441  # samples of 10 ms
QUIET = 0.03  # of the loudest block, below which a recording is silent
PAUSE = 0.2  # seconds of silence that stay


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A photograph; where it has a mask it is a thing cut out of its surroundings.

    Shape: RGBA image.
    """

    image: Image.Image
    cut_out: bool


@dataclass(frozen=True, kw_only=True)
class Material:
    """The photos and sounds of one split, by class, and those of its background."""

    photos: dict[str, list[Photo]]
    sounds: dict[str, list[np.ndarray]]
    places: list[Photo]
    ambience: list[np.ndarray]


def read_material(cache: Path, split: str) -> Material:
    """Read the photos and sounds of a split.

    Raises:
        DataError: a source that is missing or cannot be decoded.
    """
    return Material(
        photos={name: _photos(cache, sources, split) for name, sources in CLASSES.items()},
        sounds={name: _sounds(cache, sources, split) for name, sources in CLASSES.items()},
        places=_photos(cache, BACKGROUND, split),
        ambience=_sounds(cache, BACKGROUND, split),
    )


def decode_photo(name: str, data: bytes) -> Photo:
    """Decode a picture of any format that Pillow reads, and cut off its transparent margin."""
    try:
        image = Image.open(io.BytesIO(data)).convert("RGBA")
    except (OSError, ValueError) as error:
        raise DataError(f"{name} is no picture ({error})") from None
    solid = image.getchannel("A").point(lambda value: 255 if value > 127 else 0)
    return Photo(image=image.crop(solid.getbbox()), cut_out=solid.getextrema()[0] == 0)


def decode_sound(name: str, data: bytes) -> np.ndarray:
    """Decode a recording to mono at 44,100 Hz, cut its long silences and set its loudness to 1.

    Shape: [samples], float32.
    """
    resampler = av.AudioResampler("flt", "mono", RATE)
    parts = []
    try:
        with av.open(io.BytesIO(data), "r") as container:
            for frame in container.decode(audio=0):
                parts += [out.to_ndarray()[0] for out in resampler.resample(frame)]
            parts += [out.to_ndarray()[0] for out in resampler.resample(None)]
    except (av.FFmpegError, IndexError) as error:
        raise DataError(f"{name} is no recording ({error})") from None
    return tighten(np.concatenate(parts) if parts else np.zeros(0, np.float32), name)


def tighten(samples: np.ndarray, name: str = "the recording") -> np.ndarray:
    """Cut silence at both ends and shorten silences inside.

    An event is then heard in each of its seconds. All recordings are made equally loud: their root
    mean square is 1.

    Shape: [samples] -> [fewer samples].

    Raises:
        DataError: nothing is heard in it.
    """
    blocks = samples[: len(samples) // BLOCK * BLOCK].reshape(-1, BLOCK)
    loudness = np.sqrt((blocks.astype(np.float64) ** 2).mean(axis=1))
    if not len(blocks) or loudness.max() == 0:
        raise DataError(f"{name} is silent")
    heard = np.flatnonzero(loudness > QUIET * loudness.max())
    since = np.arange(len(blocks)) - np.maximum.accumulate(
        np.where(loudness > QUIET * loudness.max(), np.arange(len(blocks)), 0)
    )
    keep = (
        (since * BLOCK / RATE <= PAUSE)
        & (np.arange(len(blocks)) >= heard[0])
        & (np.arange(len(blocks)) <= heard[-1])
    )
    kept = blocks[keep].reshape(-1)
    return (kept / np.sqrt((loudness[keep] ** 2).mean())).astype(np.float32)


def _photos(cache: Path, sources: ClassSources, split: str) -> list[Photo]:
    names, shared = sources.of("photos", split)
    photos = [decode_photo(name, data) for source in names for name, data in content(cache, source)]
    if shared and split == "test":
        photos = [
            Photo(image=ImageOps.mirror(photo.image), cut_out=photo.cut_out) for photo in photos
        ]
    return photos


def _sounds(cache: Path, sources: ClassSources, split: str) -> list[np.ndarray]:
    names, shared = sources.of("sounds", split)
    sounds = [decode_sound(name, data) for source in names for name, data in content(cache, source)]
    return [_part(sound, split) for sound in sounds] if shared else sounds


def _part(sound: np.ndarray, split: str) -> np.ndarray:
    """Return the beginning of a recording for training and validation, the rest for test."""
    cut = int(len(sound) * TRAIN_PART)
    return sound[cut:] if split == "test" else sound[:cut]
