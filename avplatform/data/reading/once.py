"""A stream's clips are shared out between processes once: who would deal them a second time is told so, and loses none.

`datasets` and Accelerate each deal a stream's clips, and neither asks whether it was done already. What they do ask is
answered here with an error: a share refuses the arithmetic by which `split_dataset_by_node` would split it again, and looks,
whenever it is read, whether a DataLoader that Accelerate prepared is the reader.
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
    """Return one process's share of a stream that was not shared out; it cannot be shared out again.

    Streams made of the share (`map`, `shuffle`, `shard`) refuse it as well.

    Raises:
        UsageError: it was split by node already: half of the clips or more would silently be lost.
    """
    check_not_shared_out(stream)
    if num_processes == 1:
        return stream
    share = split_dataset_by_node(stream, rank=process_index, world_size=num_processes)
    share._distributed = _Share(_Index(process_index), num_processes, share._distributed.strategy)
    return share


def check_not_shared_out(stream: datasets.IterableDataset) -> None:
    """Raise UsageError where a stream already gives each process only a part (`split_dataset_by_node`)."""
    distributed = getattr(stream, "_distributed", None)
    if distributed is not None and distributed.world_size > 1:
        raise UsageError(
            f"this stream was already split between {distributed.world_size} processes (split_dataset_by_node); splitting it "
            "again would lose clips: give the unsplit stream, or leave out num_processes"
        )


class _Index(int):
    """Number of a process; `split_dataset_by_node` multiplies it to split a share again."""

    def __rmul__(self, other: Any) -> int:
        if other != 1:
            raise UsageError(
                "this stream is already one process's share of the clips; splitting it again (split_dataset_by_node) would "
                "lose clips: leave that out, or call stream_dataset without num_processes"
            )
        return int(self)


class _Share(DistributedConfig):
    """Which share a stream gives; `datasets` carries it along and asks for its truth before a stream is read."""

    def __bool__(self) -> bool:
        reader = GradientState().active_dataloader
        dataset = getattr(reader, "dataset", None)
        dataset = getattr(dataset, "dataset", dataset)  # Accelerate may have wrapped it
        if isinstance(getattr(dataset, "_distributed", None), _Share):
            reader.end()  # an abandoned reader would stay the active one
            raise UsageError(
                f"this stream is already one of {self.world_size} processes' share of the clips; a DataLoader of it must not "
                "be prepared by Accelerate, which would deal them a second time and lose clips: iterate the DataLoader as it "
                "is, or call stream_dataset without num_processes"
            )
        return True
