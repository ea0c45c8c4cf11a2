"""Demo labels distributed as in OV-AVEBench, for users without annotation files."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from avplatform.data.adapters.ovave.annotations import SEGMENTS
from avplatform.data.adapters.ovave.classes import EVENTS, SEEN
from avplatform.data.adapters.ovave.simulation import OVAVEClips
from avplatform.data.adapters.world import LABEL_SEED

SIZES = {"train": 800, "validation": 268, "test": 402}
EMPTY, FULL = 6019 / 24800, 10782 / 24800  # shares of clips without event, and with ten segments
SEVERAL = 3167 / 24800  # share of clips with more than one event


def demo_clips(sizes: Mapping[str, int]) -> OVAVEClips:
    """Draw clips whose events are as often absent, whole and several as in OV-AVEBench.

    Every class has equally many clips, of the seen classes in training and of all elsewhere.
    """
    categories, events, splits, start = [], [], {}, 0
    for number, (split, size) in enumerate(sizes.items()):
        rng = np.random.default_rng([LABEL_SEED, number])
        classes = np.array([EVENTS.index(name) for name in (SEEN if split == "train" else EVENTS)])
        categories.append(classes[np.arange(size) * len(classes) // size])
        events += [_event(rng) for _ in range(size)]
        splits[split] = np.arange(start, start + size)
        start += size
    keys = [f"demo_{n:06d}" for n in range(start)]
    category = np.concatenate(categories)
    return OVAVEClips(keys, np.arange(start), category, np.stack(events), splits)


def _event(rng: np.random.Generator) -> np.ndarray:
    """Draw which segments of a clip have its event: none, all, one run, or two."""
    event, draw = np.zeros(SEGMENTS, np.uint8), rng.random()
    if draw < EMPTY:
        return event
    if draw < EMPTY + FULL:
        return event + np.uint8(1)
    several = draw < EMPTY + FULL + SEVERAL
    while not event.any() or event.all():
        event[:] = 0
        for _ in range(2 if several else 1):
            length = int(rng.integers(1, 5 if several else SEGMENTS))
            at = int(rng.integers(0, SEGMENTS - length + 1))
            event[at : at + length] = 1
    return event
