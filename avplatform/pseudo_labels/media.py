"""Frames and waveforms of a video, prepared for CLIP and CLAP as in VALOR's procedure.

Nothing is resampled: a wav file must be at 48 kHz. Frames are expected at 8 per second, which are
about 80 per clip.
"""

from __future__ import annotations

import re
import wave
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from avplatform.base.npy import read_input
from avplatform.base.places import Remote
from avplatform.features.sampling import SAMPLE_RATE, frame_indices
from avplatform.models.errors import DataError, counted
from avplatform.pseudo_labels.dataset import DATASET

FRAME_TYPES = (".jpg", ".jpeg", ".png")
Place = TypeVar("Place", Path, Remote, Path | Remote)


def find_frames(folder: Place, video: str) -> list[Place]:
    """Return the file ID.npy, or the images in the folder ID that represent the segments.

    Images are sorted by name, and numbers in names are compared as numbers.

    Raises:
        DataError: neither exists, or there are fewer frames than segments.
    """
    if (folder / f"{video}.npy").is_file():
        return [folder / f"{video}.npy"]
    place = folder / video
    if not place.is_dir():
        raise DataError(f"no folder of frames {place} and no file {place}.npy")
    frames = sorted((f for f in place.iterdir() if f.suffix.lower() in FRAME_TYPES), key=_natural)
    _enough(len(frames), place)
    return [frames[index] for index in frame_indices(len(frames), DATASET.segments)]


def read_frames(files: list[Path], *, size: int) -> np.ndarray:
    """Return the frames of the segments in [0, 1], stretched to a square.

    Shape: [T, 3, S, S].

    Departs: the filter is not published; ours is bilinear with antialiasing, torchvision's default.

    Raises:
        DataError: a file is not an image, or an array is not uint8 [n, H, W, 3].
    """
    if files[0].suffix == ".npy":
        frames = read_input(files[0], kinds=None)
        fits = frames.ndim == 4 and frames.shape[-1] == 3 and 0 not in frames.shape
        if not fits or frames.dtype != np.uint8:
            raise DataError(
                f"{files[0]} is {frames.dtype} {frames.shape}; frames are "
                "uint8 [n, height, width, 3]"
            )
        _enough(len(frames), files[0])
        images = [frames[index] for index in frame_indices(len(frames), DATASET.segments)]
    else:
        images = [_image(file) for file in files]
    return np.stack([_square(torch.from_numpy(image.copy()), size).numpy() for image in images])


def find_waveform(folder: Place, video: str) -> Place:
    """Return the file ID.wav or ID.npy.

    Raises:
        DataError: neither exists.
    """
    for suffix in (".wav", ".npy"):
        if (folder / f"{video}{suffix}").is_file():
            return folder / f"{video}{suffix}"
    raise DataError(f"no file {folder / video}.wav or .npy")


def read_waveform(file: Path) -> np.ndarray:
    """Return a waveform at 48 kHz in [-1, 1], with the channels averaged: float32 [N].

    A .npy file holds mono samples, as int16 or as floats in [-1, 1], and is taken to be at 48 kHz.

    Raises:
        DataError: the file is unreadable, at another rate, or shorter than a second.
    """
    samples = _wav(file) if file.suffix == ".wav" else _samples(file)
    if len(samples) < SAMPLE_RATE:
        raise DataError(
            f"{file} has {counted(len(samples), 'sample')}, less than a second at {SAMPLE_RATE} Hz"
        )
    return samples


def _wav(file: Path) -> np.ndarray:
    try:
        with wave.open(str(file), "rb") as opened:
            channels, width, rate, promised, *_ = opened.getparams()
            raw = opened.readframes(promised)
    except (OSError, EOFError, wave.Error) as error:
        raise DataError(
            f"cannot read {file}: {str(error) or 'it is cut off'}; it must be PCM ({_advice(file)})"
        ) from None
    if rate != SAMPLE_RATE:
        raise DataError(
            f"{file} is at {rate} Hz; CLAP needs {SAMPLE_RATE} Hz, and nothing is resampled here "
            f"({_advice(file)})"
        )
    if len(raw) != (size := promised * channels * width):
        raise DataError(f"{file} is cut off: {len(raw)} bytes of samples instead of {size}")
    if width == 1:  # unsigned
        values = np.frombuffer(raw, np.uint8).astype(np.float32) / 128 - 1
    elif width == 3:
        triples = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        padded = np.concatenate([np.zeros((len(triples), 1), np.uint8), triples], axis=1)
        values = padded.reshape(-1).view("<i4").astype(np.float32) / 2**31
    else:
        values = np.frombuffer(raw, f"<i{width}").astype(np.float32) / 2 ** (8 * width - 1)
    return values.reshape(-1, channels).mean(axis=1)


def _samples(file: Path) -> np.ndarray:
    samples = read_input(file, kinds=None)
    if samples.ndim != 1 or not (samples.dtype.kind == "f" or samples.dtype == np.int16):
        raise DataError(
            f"{file} is {samples.dtype} {samples.shape}; a waveform is float or int16 [samples]"
        )
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / 2**15
    if not np.isfinite(samples).all():
        raise DataError(f"{file} holds a NaN or an infinite number")
    if np.abs(samples).max(initial=0) > 2:
        raise DataError(
            f"{file} reaches {np.abs(samples).max():g}; float samples lie between -1 and 1"
        )
    return samples.astype(np.float32)


def _advice(file: Path) -> str:
    return f"ffmpeg -i INPUT -ac 1 -ar {SAMPLE_RATE} -c:a pcm_s16le {file.name}"


def _image(file: Path) -> np.ndarray:
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read the frame {file}: {error}") from None


def _square(image: Tensor, size: int) -> Tensor:
    """[H, W, 3] uint8 -> [3, S, S] in [0, 1]."""
    pixels = image.permute(2, 0, 1)[None].float() / 255
    return torch.nn.functional.interpolate(
        pixels, size=(size, size), mode="bilinear", antialias=True
    )[0]


def _enough(count: int, place: Path | Remote) -> None:
    if count < DATASET.segments:
        raise DataError(
            f"{place} holds {count} frames; a clip needs at least {DATASET.segments}, and has "
            "about 80 at 8 per second"
        )


def _natural(file: Path | Remote) -> list[tuple[int, int | str]]:
    """Return a sorting key that puts "frame 2" before "frame 10"."""
    parts = re.split(r"(\d+)", file.stem)
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts if part]
