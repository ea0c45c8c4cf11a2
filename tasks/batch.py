"""The batch that models and tasks read, and what a training step tells about it.

Axes: B clips, T segments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

Values = TypeVar("Values", np.ndarray, Tensor)


class Moment(NamedTuple):
    """When in training a batch is used.

    Args:
        epoch: the epoch, from 1.
        batch: the position of the batch in its epoch, from 0.
        batches: the number of batches in an epoch.
    """

    epoch: int
    batch: int
    batches: int

    @property
    def epochs_before(self) -> float:
        """The epochs that were trained before this batch, a fraction within an epoch."""
        return self.epoch - 1 + self.batch / self.batches


@dataclass(frozen=True, kw_only=True)
class TrainingClips:
    """The clips that a run trains on, for what a task checks before the first step.

    Args:
        data: the name of the data.
        checksum: the checksum of the data.
        batch_size: the number of clips of a step.
        ids: returns the ids of all clips, which a stream reads from its shards first.
    """

    data: str
    checksum: str
    batch_size: int
    ids: Callable[[], Sequence[str]]


@dataclass
class Batch:
    """The features of some clips, with their labels.

    Shape: audio [B, T, Da]; visual [B, T, Dv] (or [B, T*k, Dv], k frames per segment) or
    [B, T, H, W, Dv]; motion [B, T, Dm] or None; row [B], the unique integer key of each clip in its
    dataset; clip_id, B strings (video ids repeat in AVE); labels as the task defines them. In
    training, `moment` says when the batch is used, and a task may make several rows of each clip,
    which then stand one after the other (`rows_per_clip`).
    """

    audio: Tensor
    visual: Tensor
    motion: Tensor | None
    row: Tensor
    clip_id: list[str]
    labels: dict[str, Tensor] = field(default_factory=dict)
    moment: Moment | None = None
    rows_per_clip: int = 1

    def __len__(self) -> int:
        return len(self.row)

    @property
    def clips(self) -> int:
        """The number of clips."""
        return len(self.row) // self.rows_per_clip

    def after(self, epochs: int) -> bool:
        """Return whether so many epochs of training are over; outside training they are."""
        return self.moment is None or self.moment.epoch > epochs

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Batch:
        """Move everything to a device; `dtype` casts the features, not the labels and rows."""

        def cast(x: Tensor) -> Tensor:
            return x.to(device=device, dtype=dtype, non_blocking=True)

        return Batch(
            audio=cast(self.audio),
            visual=cast(self.visual),
            motion=None if self.motion is None else cast(self.motion),
            row=self.row.to(device),
            clip_id=self.clip_id,
            labels={name: x.to(device, non_blocking=True) for name, x in self.labels.items()},
            moment=self.moment,
            rows_per_clip=self.rows_per_clip,
        )

    def split(self, parts: int) -> list[Batch]:
        """Split the batch into consecutive parts of almost equal size, with whole clips."""
        bounds = [self.clips * i // parts * self.rows_per_clip for i in range(parts + 1)]
        return [self.select(slice(a, b)) for a, b in zip(bounds, bounds[1:], strict=False)]

    def select(self, rows: slice) -> Batch:
        """Return the batch of some of the rows."""
        return Batch(
            audio=self.audio[rows],
            visual=self.visual[rows],
            motion=None if self.motion is None else self.motion[rows],
            row=self.row[rows],
            clip_id=self.clip_id[rows],
            labels={name: value[rows] for name, value in self.labels.items()},
            moment=self.moment,
            rows_per_clip=self.rows_per_clip,
        )


class Processes:
    """The processes that share the batch of a training step; by default there is one.

    Losses that rank or mix the clips of a batch need the clips of all processes, because the
    result must not depend on how many there are.
    """

    def gather(self, values: Tensor) -> Tensor:
        """Return the rows of all processes in the order of the global batch.

        Shape: [B of this process, ...] -> [B of all processes, ...].
        """
        return values

    def own(self, values: Tensor) -> Tensor:
        """Return this process's rows of values that are ordered as `gather` orders them."""
        return values


def later(values: Values, segments: int) -> Values:
    """Shift an array or tensor [B, T, ...] later by some segments; the start repeats segment 0."""
    length = values.shape[1]
    return values[:, [max(0, t - segments) for t in range(length)]]
