"""Which clips make which batch: a function of the seed and the epoch, the same on every process."""

from __future__ import annotations

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
