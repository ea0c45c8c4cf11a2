"""The clips of every batch, as a function of seed and epoch that is the same on every process."""

from __future__ import annotations

import random

import numpy as np

LANES = 8  # parts of an epoch's order from which each shuffled, streamed batch draws
MIXED_GROUPS = 2  # row groups of a lane whose rows are shuffled together


def epoch_batches(
    clips: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    drop_last: bool = False,
) -> list[np.ndarray]:
    """Return the global batches of one epoch as positions; the last one may be smaller."""
    order = np.random.default_rng([seed, epoch]).permutation(clips) if shuffle else np.arange(clips)
    batches = [order[i : i + batch_size] for i in range(0, clips, batch_size)]
    if drop_last and batches and len(batches[-1]) < batch_size:
        batches.pop()
    return batches


def stream_order(
    shards: list[list[int]], batch_size: int, *, seed: int, epoch: int, shuffle: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return the row group, and the row in it, of every clip of a streamed epoch in reading order.

    The shards are put in random order, and so are the row groups of each shard. The resulting
    sequence is cut into LANES parts (lanes), whose lengths fit the batches exactly, and each lane
    is shuffled in blocks of MIXED_GROUPS row groups. A batch takes its first clips from the first
    lane, the next ones from the second lane, and so on. Thus it mixes 2 * LANES row groups, a
    process that gets a part of every batch reads only the lanes of that part, and the batches are
    the same for any number of processes.

    Args:
        shards: the sizes of each shard's row groups, which are numbered consecutively.
        batch_size: clips per global batch.
        seed: random seed; it decides the order together with `epoch`.
        epoch: number of the epoch.
        shuffle: False for the order of the files.

    Shape: returns two arrays [N] for N clips.
    """
    sizes = np.array([size for shard in shards for size in shard], dtype=np.int64)
    sequence = np.arange(len(sizes))
    if not shuffle:
        return _rows_of(sequence, sizes)
    rng = np.random.default_rng([seed, epoch])
    of_shard = np.split(sequence, np.cumsum([len(shard) for shard in shards])[:-1])
    sequence = np.concatenate(
        [rng.permutation(of_shard[shard]) for shard in rng.permutation(len(shards))]
    )
    group, row = _rows_of(sequence, sizes)
    position = np.argsort(sequence)[group]  # position of each row's group in the sequence

    bounds = np.arange(LANES + 1)
    whole, rest = divmod(len(group), batch_size)
    a_batch, a_rest = (np.diff(size * bounds // LANES) for size in (batch_size, rest))
    ends = np.cumsum(whole * a_batch + a_rest)
    heads, tails = [], []
    for lane, end in enumerate(ends):
        places = np.arange(ends[lane - 1] if lane else 0, end)
        # Neighbours run in opposite directions, to use the row group that they share at one time.
        if lane % 2:
            places = places[::-1]
        block = np.abs(position[places] - position[places[:1]]) // MIXED_GROUPS
        places = places[np.lexsort((rng.random(len(places)), block))]
        heads.append(places[: whole * a_batch[lane]].reshape(whole, a_batch[lane]))
        tails.append(places[whole * a_batch[lane] :])
    order = np.concatenate([np.concatenate(heads, axis=1).reshape(-1), *tails])
    return group[order], row[order]


def _rows_of(sequence: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the row group and row of every clip of a sequence of row groups."""
    counts = sizes[sequence]
    firsts = np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(sequence, counts), np.arange(len(firsts)) - firsts


def psp_batches(
    clips: int, batch_size: int, *, seed: int, epoch: int, weak: bool
) -> list[np.ndarray]:
    """Return the batches of one epoch as PSP's published loaders give them, without the remainder.

    Source: PSP (CVPR 2021), released code. The fully supervised loader shuffles one list in place
    once per epoch. The weakly supervised one copies its look-up list again after the shuffle, so
    that only the first batch of an epoch is a random draw, and all others are the fixed positions
    from i * batch_size on.
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
    others = [np.arange(i * batch_size, (i + 1) * batch_size) for i in range(1, count)]
    return [first, *others][:count]


def count_batches(clips: int, batch_size: int, *, drop_last: bool = False) -> int:
    """Return the number of global batches per epoch."""
    return clips // batch_size if drop_last else -(-clips // batch_size)


def process_share(batch: np.ndarray, process_index: int, num_processes: int) -> np.ndarray:
    """Return one process's contiguous part of a global batch, which may be empty.

    The parts' sizes differ by one clip at most.
    """
    start = len(batch) * process_index // num_processes
    end = len(batch) * (process_index + 1) // num_processes
    return batch[start:end]


def eval_batches(
    clips: int, batch_size: int, process_index: int, num_processes: int
) -> list[np.ndarray]:
    """Return one process's evaluation batches: every `num_processes`-th one of a fixed list."""
    batches = [np.arange(i, min(i + batch_size, clips)) for i in range(0, clips, batch_size)]
    return batches[process_index::num_processes]
