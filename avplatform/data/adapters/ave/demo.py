"""Demo labels distributed as in AVE, for users without annotation files; their seed is fixed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from avplatform.data.adapters.ave.annotations import SEGMENTS, segment_labels
from avplatform.data.adapters.ave.classes import BACKGROUND
from avplatform.data.adapters.ave.simulation import AVEClips
from avplatform.data.adapters.world import LABEL_SEED

SIZES = {"train": 800, "validation": 200, "test": 402}
BACKGROUND_CLIPS = 40

# Number of clips per class in AVE's Annotations.txt (28 classes).
COUNTS = (
    188, 176, 171, 184, 188, 175, 178, 187, 172, 163, 182, 138, 102, 99, 186, 176, 160, 183, 100,
    83, 69, 160, 60, 64, 180, 109, 154, 156,
)  # fmt: skip
FULL_SHARE = 2750 / 4143  # share of clips whose event fills all ten seconds
LENGTHS = (1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 8, 9)


def demo_clips(sizes: Mapping[str, int], background: int) -> AVEClips:
    """Draw classes in AVE's proportions, and event lengths that give AVE's share of background."""
    segments, splits, videos, start = [], {}, [], 0
    for number, (split, size) in enumerate(sizes.items()):
        rng = np.random.default_rng([LABEL_SEED, number])
        share = np.cumsum(COUNTS) / np.sum(COUNTS)
        video = np.searchsorted(share, (np.arange(size) + 0.5) / size)
        partial = size - round(FULL_SHARE * size)
        length = np.full(size, SEGMENTS)
        length[:partial] = np.resize(LENGTHS, partial)
        length = rng.permutation(length)
        onset = np.floor(rng.random(size) * (SEGMENTS - length + 1)).astype(np.int64)
        segments.append(segment_labels(video, onset, onset + length))
        videos.append(video)
        splits[split] = np.arange(start, start + size)
        start += size
    segments.append(np.full((background, SEGMENTS), BACKGROUND))
    videos.append(np.full(background, BACKGROUND))
    splits["background"] = np.arange(start, start + background)
    count = start + background
    keys = [f"{row}:demo_{row:05d}" for row in range(count)]
    return AVEClips(
        keys, np.arange(count), np.concatenate(segments), np.concatenate(videos), splits
    )
