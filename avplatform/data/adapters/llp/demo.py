"""Demo labels distributed as in LLP, for users without annotation files; their seed is fixed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from avplatform.data.adapters.llp.classes import CLASSES
from avplatform.data.adapters.llp.simulation import SEGMENTS, LLPClips
from avplatform.data.adapters.world import LABEL_SEED

SIZES = {"train": 2000, "validation": 300, "test": 400}

# Number of clips per class: with the weak label (training), with audio and visual events (test).
WEAK = (
    4988, 624, 528, 761, 192, 343, 455, 218, 299, 602, 186, 1172, 437, 1457, 495, 146, 445, 224,
    411, 587, 503, 99, 430, 291, 164,
)  # fmt: skip
AUDIO = (
    620, 70, 85, 95, 28, 45, 36, 24, 27, 85, 31, 183, 62, 153, 57, 20, 51, 28, 54, 68, 93, 11, 42,
    34, 81,
)  # fmt: skip
VISUAL = (
    142, 93, 36, 99, 41, 43, 44, 19, 26, 76, 25, 125, 59, 133, 54, 16, 37, 28, 59, 63, 98, 6, 35,
    34, 53,
)  # fmt: skip
PER_CLIP = (0.46, 0.36, 0.14, 0.04)  # share of clips with 1, 2, 3 and 4 classes
FULL_SHARE = 0.5


def demo_clips(sizes: Mapping[str, int]) -> LLPClips:
    """Draw classes, modalities and spans of events, distributed as in LLP."""
    count, classes = sum(sizes.values()), len(CLASSES)
    popularity = np.array(WEAK) / sum(WEAK)
    either = np.maximum(AUDIO, VISUAL) * 1.05
    heard, seen = np.array(AUDIO) / either, np.array(VISUAL) / either
    weak = np.zeros((count, classes), dtype=np.uint8)
    audio = np.zeros((count, SEGMENTS, classes), dtype=np.uint8)
    visual = np.zeros_like(audio)
    for n in range(count):
        rng = np.random.default_rng([LABEL_SEED, 100 + n])
        number = 1 + rng.choice(len(PER_CLIP), p=PER_CLIP)
        for c in rng.choice(classes, number, replace=False, p=popularity):
            weak[n, c] = 1
            in_audio, in_visual = rng.random() < heard[c], rng.random() < seen[c]
            if not (in_audio or in_visual):
                in_audio = True
            span = _span(rng)
            if in_audio:
                audio[n, span, c] = 1
            if in_visual:
                visual[n, span if rng.random() < 0.6 else _span(rng), c] = 1
    bounds = np.cumsum([0, *sizes.values()])
    splits = {name: np.arange(a, b) for name, a, b in zip(sizes, bounds, bounds[1:], strict=False)}
    keys = [f"demo_{n:06d}_0_10" for n in range(count)]
    return LLPClips(keys, np.arange(count), weak, audio, visual, splits)


def _span(rng: np.random.Generator) -> np.ndarray:
    """Draw the segments of an event: the whole clip, one run, or two."""
    if rng.random() < FULL_SHARE:
        return np.arange(SEGMENTS)
    runs = []
    for _ in range(1 + (rng.random() < 0.25)):
        length = int(rng.integers(1, 7))
        start = int(rng.integers(0, SEGMENTS - length + 1))
        runs.append(np.arange(start, start + length))
    return np.unique(np.concatenate(runs))
