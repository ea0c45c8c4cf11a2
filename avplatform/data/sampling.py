"""Which clips make which batch: a function of the seed and the epoch, the same on every process."""

from __future__ import annotations

import random

import numpy as np


def epoch_batches(
    clips: int, batch_size: int, *, seed: int, epoch: int, shuffle: bool = True, drop_last: bool = False
) -> list[np.ndarray]:
    """Return the global batches of one epoch as positions; the last one may be smaller."""
    order = np.random.default_rng([seed, epoch]).permutation(clips) if shuffle else np.arange(clips)
    batches = [order[i : i + batch_size] for i in range(0, clips, batch_size)]
    if drop_last and batches and len(batches[-1]) < batch_size:
        batches.pop()
    return batches


def psp_batches(clips: int, batch_size: int, *, seed: int, epoch: int, weak: bool) -> list[np.ndarray]:
    """Return the batches of one epoch as PSP's published loaders deliver them; the remainder is dropped.

    Source: PSP (CVPR 2021), released code. The fully supervised loader shuffles one list in place once an epoch. The weakly
    supervised one copies its look-up list anew after the shuffle, so that only the first batch of an epoch is a random draw
    and all others are the fixed positions i * batch_size onwards.
    """
    rng, order = random.Random(seed), list(range(clips))
    before = list(order)
    for _ in range(epoch):
        before = list(order)
        rng.shuffle(order)
    count = clips // batch_size
    if not weak:
        return [np.array(order[i * batch_size : (i + 1) * batch_size]) for i in range(count)]
    place = {clip: position for position, clip in enumerate(before)}
    first = np.array([place[clip] for clip in order[:batch_size]])
    return [first, *(np.arange(i * batch_size, (i + 1) * batch_size) for i in range(1, count))][:count]


def count_batches(clips: int, batch_size: int, *, drop_last: bool = False) -> int:
    """Return how many global batches an epoch has."""
    return clips // batch_size if drop_last else -(-clips // batch_size)


def process_share(batch: np.ndarray, process_index: int, num_processes: int) -> np.ndarray:
    """Return one process's contiguous part of a global batch; parts differ by one clip at most, and may be empty."""
    start = len(batch) * process_index // num_processes
    end = len(batch) * (process_index + 1) // num_processes
    return batch[start:end]


def eval_batches(clips: int, batch_size: int, process_index: int, num_processes: int) -> list[np.ndarray]:
    """Return one process's evaluation batches: whole batches of fixed composition, dealt in turn."""
    batches = [np.arange(i, min(i + batch_size, clips)) for i in range(0, clips, batch_size)]
    return batches[process_index::num_processes]
