"""Training batches: every process computes the same global batches and reads its share of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, NoReturn, NotRequired, Protocol, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from avplatform.base.read_ahead import read_ahead
from avplatform.data.reading.arrays import SplitArrays, known_labels
from avplatform.data.reading.sampling import (
    count_batches,
    epoch_batches,
    process_share,
    psp_batches,
)
from avplatform.models.errors import UsageError
from avplatform.tasks.batch import Batch


class Share(NamedTuple):
    """One process's part of a global batch of `global_size` clips.

    A process without clips still receives one, to stay in step with the others; its weight,
    `clips`, is then 0.
    """

    global_size: int
    batch: Batch
    clips: int


class Loader(Protocol):
    """The source of batches in the training loop."""

    def __len__(self) -> int:
        """Return the number of global batches per epoch."""
        ...

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Share]:
        """Yield this process's shares of the epoch's global batches, from number `start` on."""
        ...

    def clip_ids(self) -> list[str]:
        """Return the ids of all clips, in the order of the data."""
        ...


class BatchOptions(TypedDict):
    """The arguments of `SharingLoader`, as type hints for its subclasses."""

    batch_size: int
    seed: int
    shuffle: NotRequired[bool]
    drop_last: NotRequired[bool]
    num_workers: NotRequired[int]
    process_index: NotRequired[int]
    num_processes: NotRequired[int]


class SharingLoader(DataLoader):
    """Base of loaders that distribute the clips themselves, so that Accelerate must not.

    It is a DataLoader in type only: `Accelerator.prepare` returns objects of other types without
    looking at them, so that no error could be raised.

    Args:
        batch_size: clips per global batch.
        seed, shuffle, drop_last: decide the batches, together with the epoch.
        num_workers: threads that read ahead, in order; 0 reads each batch when it is needed.
        process_index, num_processes: which share of each batch to read.
    """

    batch_size: int

    def __init__(
        self,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        drop_last: bool = False,
        num_workers: int = 0,
        process_index: int = 0,
        num_processes: int = 1,
    ) -> None:
        # The set-up of DataLoader is skipped: it has nothing to do here.
        self.batch_size, self.num_workers = batch_size, num_workers
        self.seed, self.shuffle, self.drop_last = seed, shuffle, drop_last
        self.process_index, self.num_processes = process_index, num_processes

    def part(self, batch: np.ndarray) -> tuple[np.ndarray, int]:
        """Return the clips of a global batch that this process reads, and their weight.

        A process without clips reads the first one, with weight 0 (see `Share`).
        """
        mine = process_share(batch, self.process_index, self.num_processes)
        return (mine if len(mine) else batch[:1]), len(mine)

    def shares(self, jobs: list[Callable[[], Share]]) -> Iterator[Share]:
        """Run jobs in order, ahead of the reader if there are workers."""
        return read_ahead(jobs, self.num_workers) if self.num_workers else (job() for job in jobs)

    @property
    def dataset(self) -> NoReturn:  # type: ignore[override]
        """Refuse access to the dataset, which only code that distributes clips asks for.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            f"{type(self).__name__} distributes the clips to the processes itself and must not be "
            "prepared by Accelerate, which would distribute them a second time and lose clips; "
            "prepare model and optimizer only, and iterate loader.epoch(n)"
        )

    _is_accelerate_prepared = dataset  # Accelerator.prepare_data_loader looks at this first

    def __iter__(self) -> NoReturn:
        """Refuse to iterate without an epoch.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            f"{type(self).__name__} is read one epoch at a time; iterate loader.epoch(n)"
        )


class TrainLoader(SharingLoader):
    """Loader of one or more mapped splits, which are read as one.

    Args:
        splits: the splits, in the order in which they are joined.
        order: "default", or "psp-full" or "psp-weak" for the batches of PSP's published loaders.
        batches: the arguments of `SharingLoader`.
    """

    def __init__(
        self,
        splits: list[SplitArrays],
        *,
        order: str = "default",
        **batches: Unpack[BatchOptions],
    ) -> None:
        super().__init__(**batches)
        self.splits, self.order = splits, order
        self.labels = known_labels(splits[0].spec, *(split.name for split in splits))
        self.starts = np.cumsum([0, *map(len, splits)])

    def __len__(self) -> int:
        return count_batches(
            int(self.starts[-1]),
            self.batch_size,
            drop_last=self.drop_last or self.order != "default",
        )

    def clip_ids(self) -> list[str]:
        """Return the ids of all clips."""
        return [clip_id for split in self.splits for clip_id in split.clip_ids]

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Share]:
        """Yield this process's shares; batches before `start` are skipped without being read."""
        clips, size, seed = int(self.starts[-1]), self.batch_size, self.seed
        if self.order == "default":
            batches = epoch_batches(
                clips, size, seed=seed, epoch=epoch, shuffle=self.shuffle, drop_last=self.drop_last
            )
        else:
            batches = psp_batches(
                clips, size, seed=seed, epoch=epoch, weak=self.order == "psp-weak"
            )
        return self.shares([partial(self._share, batch) for batch in batches[start:]])

    def _share(self, batch: np.ndarray) -> Share:
        places, clips = self.part(batch)
        return Share(len(batch), self._gather(places), clips)

    def _gather(self, positions: np.ndarray) -> Batch:
        """Read the clips at some positions of the joined splits, in that order."""
        if len(self.splits) == 1:
            return self.splits[0].batch(positions, labels=self.labels)
        owner = np.searchsorted(self.starts, positions, side="right") - 1
        parts, places = [], []
        for number in np.unique(owner):
            chosen = np.flatnonzero(owner == number)
            parts.append(
                self.splits[number].batch(
                    positions[chosen] - self.starts[number], labels=self.labels
                )
            )
            places.append(chosen)
        if len(parts) == 1:
            return parts[0]
        return join(parts, np.argsort(np.concatenate(places)))


def join(parts: list[Batch], order: np.ndarray) -> Batch:
    """Concatenate batches and put their clips in another order."""
    index, ids = torch.from_numpy(order), [clip_id for p in parts for clip_id in p.clip_id]

    def joined(values: list[Tensor]) -> Tensor:
        return torch.cat(values)[index]

    motions = [p.motion for p in parts if p.motion is not None]
    return Batch(
        audio=joined([p.audio for p in parts]),
        visual=joined([p.visual for p in parts]),
        motion=joined(motions) if motions else None,
        row=joined([p.row for p in parts]),
        clip_id=[ids[i] for i in order],
        labels={name: joined([p.labels[name] for p in parts]) for name in parts[0].labels},
    )
