"""Distribute a stream's clips between processes exactly once; a second distribution is an error.

Both `datasets` and Accelerate can distribute a stream's clips, and neither checks whether the other
did, in which case clips would silently be lost. A share made here raises an error instead: in the
arithmetic by which `split_dataset_by_node` would split it again, and when it is read by a
DataLoader that Accelerate prepared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accelerate.state import GradientState
from datasets.distributed import split_dataset_by_node
from datasets.iterable_dataset import DistributedConfig

from avplatform.models.errors import UsageError

if TYPE_CHECKING:
    import datasets


def share_of(
    stream: datasets.IterableDataset, process_index: int, num_processes: int
) -> datasets.IterableDataset:
    """Return one process's share of an unsplit stream; the share cannot be split again.

    This also holds for streams made from the share (`map`, `shuffle`, `shard`).

    Raises:
        UsageError: the stream was split by node before, so that splitting it again would silently
            lose half of the clips or more.
    """
    check_not_shared_out(stream)
    if num_processes == 1:
        return stream
    share = split_dataset_by_node(stream, rank=process_index, world_size=num_processes)
    share._distributed = _Share(_Index(process_index), num_processes, share._distributed.strategy)
    return share


def check_not_shared_out(stream: datasets.IterableDataset) -> None:
    """Raise UsageError if a stream was split before by `split_dataset_by_node`."""
    distributed = getattr(stream, "_distributed", None)
    if distributed is not None and distributed.world_size > 1:
        raise UsageError(
            f"this stream was already split between {distributed.world_size} processes "
            "(split_dataset_by_node); splitting it again would lose clips: "
            "give the unsplit stream, or leave out num_processes"
        )


class _Index(int):
    """Index of a process; `split_dataset_by_node` multiplies it to split a share again."""

    def __rmul__(self, other: Any) -> int:
        if other != 1:
            raise UsageError(
                "this stream is already one process's share of the clips; "
                "splitting it again (split_dataset_by_node) would lose clips: "
                "leave that out, or call stream_dataset without num_processes"
            )
        return int(self)


class _Share(DistributedConfig):
    """Which share a stream gives; `datasets` evaluates its truth before it reads a stream."""

    def __bool__(self) -> bool:
        reader = GradientState().active_dataloader
        dataset = getattr(reader, "dataset", None)
        dataset = getattr(dataset, "dataset", dataset)  # Accelerate may have wrapped it
        if isinstance(getattr(dataset, "_distributed", None), _Share):
            reader.end()  # an abandoned reader would stay the active one
            raise UsageError(
                f"this stream is already one of {self.world_size} processes' share of the clips; "
                "a DataLoader of it must not be prepared by Accelerate, which would distribute "
                "them a second time and lose clips: iterate the DataLoader as it is, "
                "or call stream_dataset without num_processes"
            )
        return True
