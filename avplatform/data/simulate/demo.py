"""The built-in synthetic data: labels drawn with the shares of LLP and AVE, features by the simulator.

For users who have no annotation files. One fixed dataset a task, from its own seeds: independent of any run's seed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from avplatform.base.files import cache_root
from avplatform.base.locks import locked
from avplatform.data.adapters.ave import simulation as ave
from avplatform.data.adapters.ave.classes import BACKGROUND
from avplatform.data.adapters.llp import simulation as llp
from avplatform.data.adapters.llp.classes import CLASSES as LLP_CLASSES
from avplatform.data.simulate import write
from avplatform.data.store.card import render_dataset_card
from avplatform.data.store.schema import MANIFEST_FILE
from avplatform.models.errors import unknown_name

NAMES = {"avel": "demo-avel-1", "avvp": "demo-avvp-1"}
AVEL_SIZES = {"train": 800, "validation": 200, "test": 402}
AVVP_SIZES = {"train": 2000, "validation": 300, "test": 400}
AVEL_BACKGROUND = 40
LABEL_SEED = 20241

# Clips a class in AVE's Annotations.txt (28 classes), and the share of clips whose event fills all ten seconds.
AVE_COUNTS = (
    188, 176, 171, 184, 188, 175, 178, 187, 172, 163, 182, 138, 102, 99, 186, 176, 160, 183, 100, 83, 69, 160, 60, 64, 180,
    109, 154, 156,
)  # fmt: skip
AVE_FULL_SHARE = 2750 / 4143
AVE_LENGTHS = (1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 8, 9)

# LLP: clips a class with a weak label (training), and with audio and visual events (test).
LLP_WEAK = (
    4988, 624, 528, 761, 192, 343, 455, 218, 299, 602, 186, 1172, 437, 1457, 495, 146, 445, 224, 411, 587, 503, 99, 430, 291,
    164,
)  # fmt: skip
LLP_AUDIO = (
    620,
    70,
    85,
    95,
    28,
    45,
    36,
    24,
    27,
    85,
    31,
    183,
    62,
    153,
    57,
    20,
    51,
    28,
    54,
    68,
    93,
    11,
    42,
    34,
    81,
)
LLP_VISUAL = (
    142,
    93,
    36,
    99,
    41,
    43,
    44,
    19,
    26,
    76,
    25,
    125,
    59,
    133,
    54,
    16,
    37,
    28,
    59,
    63,
    98,
    6,
    35,
    34,
    53,
)
LLP_CLASSES_PER_CLIP = (0.46, 0.36, 0.14, 0.04)  # 1, 2, 3, 4 classes
LLP_FULL_SHARE = 0.5


def demo_store(
    task: str, *, cache_dir: Path | None = None, progress: Callable[[str], None] | None = None
) -> Path:
    """Return the folder of a task's demo data, made on first use; several processes may ask at once.

    Raises:
        UsageError: a task without demo data.
    """
    if task not in NAMES:
        raise unknown_name("demo task", task, NAMES)
    folder = (cache_dir or cache_root()) / NAMES[task]
    if not (folder / MANIFEST_FILE).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f".{folder.name}.lock")):
            if not (folder / MANIFEST_FILE).exists():
                if progress is not None:
                    progress(f"making the synthetic data {NAMES[task]} in {folder} (once)")
                make_demo(task, folder)
    return folder


def make_demo(task: str, folder: Path, *, sizes: dict[str, int] | None = None) -> None:
    """Draw the demo data of a task into a new folder; `sizes` makes smaller ones for tests."""
    provenance = {
        "labels": f"drawn with the label shares of {'AVE' if task == 'avel' else 'LLP'}",
        "seed": LABEL_SEED,
    }
    if task == "avel":
        clips = avel_clips(sizes or AVEL_SIZES, AVEL_BACKGROUND if sizes is None else 4)
        constants = ave.AVESimulation()
        provenance["generator"] = constants.name
        spec = ave.spec(constants, name=NAMES[task], provenance=provenance)
        write(folder, spec, ave.AVESimulator(constants, clips), clips, card=render_dataset_card)
    else:
        llp_clips = avvp_clips(sizes or AVVP_SIZES)
        llp_constants = llp.LLPSimulation()
        provenance["generator"] = llp_constants.name
        llp_spec = llp.spec(llp_constants, name=NAMES[task], provenance=provenance)
        write(
            folder,
            llp_spec,
            llp.LLPSimulator(llp_constants, llp_clips),
            llp_clips,
            card=render_dataset_card,
        )


def avel_clips(sizes: dict[str, int], background: int) -> ave.AVEClips:
    """Draw event classes and spans: classes in AVE's proportions, lengths stratified to AVE's background share."""
    segments, splits, videos, start = [], {}, [], 0
    for number, (split, size) in enumerate(sizes.items()):
        rng = np.random.default_rng([LABEL_SEED, number])
        share = np.cumsum(AVE_COUNTS) / np.sum(AVE_COUNTS)
        video = np.searchsorted(share, (np.arange(size) + 0.5) / size)
        partial = size - round(AVE_FULL_SHARE * size)
        length = np.full(size, ave.SEGMENTS)
        length[:partial] = np.resize(AVE_LENGTHS, partial)
        length = rng.permutation(length)
        onset = np.floor(rng.random(size) * (ave.SEGMENTS - length + 1)).astype(np.int64)
        t = np.arange(ave.SEGMENTS)
        inside = (t >= onset[:, None]) & (t < (onset + length)[:, None])
        segments.append(np.where(inside, video[:, None], BACKGROUND))
        videos.append(video)
        splits[split] = np.arange(start, start + size)
        start += size
    segments.append(np.full((background, ave.SEGMENTS), BACKGROUND))
    videos.append(np.full(background, BACKGROUND))
    splits["background"] = np.arange(start, start + background)
    count = start + background
    keys = [f"{row}:demo_{row:05d}" for row in range(count)]
    return ave.AVEClips(
        keys, np.arange(count), np.concatenate(segments), np.concatenate(videos), splits
    )


def avvp_clips(sizes: dict[str, int]) -> llp.LLPClips:
    """Draw classes, modalities and spans of events, with LLP's shares."""
    count, classes = sum(sizes.values()), len(LLP_CLASSES)
    popularity = np.array(LLP_WEAK) / sum(LLP_WEAK)
    either = np.maximum(LLP_AUDIO, LLP_VISUAL) * 1.05
    heard, seen = np.array(LLP_AUDIO) / either, np.array(LLP_VISUAL) / either
    weak = np.zeros((count, classes), dtype=np.uint8)
    audio = np.zeros((count, llp.SEGMENTS, classes), dtype=np.uint8)
    visual = np.zeros_like(audio)
    for n in range(count):
        rng = np.random.default_rng([LABEL_SEED, 100 + n])
        number = 1 + rng.choice(len(LLP_CLASSES_PER_CLIP), p=LLP_CLASSES_PER_CLIP)
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
    return llp.LLPClips(keys, np.arange(count), weak, audio, visual, splits)


def _span(rng: np.random.Generator) -> np.ndarray:
    """Return the segments of an event: the whole clip, one run, or two."""
    if rng.random() < LLP_FULL_SHARE:
        return np.arange(llp.SEGMENTS)
    runs = []
    for _ in range(1 + (rng.random() < 0.25)):
        length = int(rng.integers(1, 7))
        start = int(rng.integers(0, llp.SEGMENTS - length + 1))
        runs.append(np.arange(start, start + length))
    return np.unique(np.concatenate(runs))
