"""Small trees for pseudo-labels: three LLP clips, their logits, features, frames or waveforms."""

import wave

import numpy as np
from PIL import Image

from tests.tasks.test_avvp import write_llp

VIDEOS = ["aaaaaaaaaaa", "b_b-bbbbbbb", "ccccccccccc"]
WEAK = {"aaaaaaaaaaa": ["Dog"], "b_b-bbbbbbb": ["Speech", "Dog"], "ccccccccccc": ["Clapping"]}


def llp_folder(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return write_llp(folder)


def arrays(folder, shape, *, seed=0, loc=0.0, scale=1.0, dtype=np.float32):
    """One random array a video."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for video in VIDEOS:
        np.save(folder / f"{video}.npy", generator.normal(loc, scale, shape).astype(dtype))
    return folder


def frame_folders(folder, *, count=12, seed=0):
    generator = np.random.default_rng(seed)
    for video in VIDEOS:
        (folder / video).mkdir(parents=True)
        for n in range(count):
            pixels = np.full(
                (20, 30, 3), generator.integers(0, 256, 3), dtype=np.uint8
            )  # no frame looks like another
            pixels[n % 20 :, n:] = generator.integers(0, 256, 3)
            Image.fromarray(pixels).save(folder / video / f"{n + 1}.png")
    return folder


def write_wav(file, samples, *, rate=48_000, width=2, channels=1):
    """Samples in -1..1 as PCM."""
    values = np.round(np.asarray(samples, dtype=np.float64) * (2 ** (8 * width - 1) - 1)).astype(
        np.int64
    )
    if width == 1:
        raw = (values + 128).astype(np.uint8).tobytes()
    else:
        raw = (
            np.ascontiguousarray(values.astype("<i8"))
            .view(np.uint8)
            .reshape(*values.shape, 8)[..., :width]
            .tobytes()
        )
    with wave.open(str(file), "wb") as opened:
        opened.setnchannels(channels)
        opened.setsampwidth(width)
        opened.setframerate(rate)
        opened.writeframes(raw)


def waveforms(folder, *, seconds=1.5, seed=0):
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for video in VIDEOS:
        time = np.arange(int(seconds * 48_000)) / 48_000
        sweep = np.sin(2 * np.pi * (200 + 4000 * time) * time)  # no segment sounds like another
        write_wav(folder / f"{video}.wav", 0.5 * sweep + generator.uniform(-0.1, 0.1, len(time)))
    return folder
