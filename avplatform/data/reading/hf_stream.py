"""A split as a stream of the library `datasets`, for custom training loops."""

from __future__ import annotations

from collections.abc import Sequence

import datasets

from avplatform.data.reading.arrays import known_labels
from avplatform.data.reading.source import DataSource
from avplatform.models.errors import UsageError


def stream_dataset(
    source: DataSource | datasets.IterableDataset,
    split: str | Sequence[str] = "train",
    *,
    process_index: int = 0,
    num_processes: int = 1,
) -> datasets.IterableDataset:
    """Return one process's share of a split as a `datasets.IterableDataset` in arrow format.

    It holds the clips' rows, ids and features, and the labels that are known in the split.

    Together the shares hold every clip once. They may differ in length, so a loop must not rely on
    equal numbers of batches (`StreamLoader`, which training uses, gives equal numbers). Either this
    function distributes the clips or Accelerate does; for the latter, leave `num_processes` at 1.
    Splitting a share again, or reading it through a DataLoader that Accelerate prepared, raises
    UsageError.

    Args:
        source: a store, or a stream from elsewhere.
        split: a split of the store, or several that are read one after the other.
        process_index: index of the process whose share is returned.
        num_processes: number of processes.

    Raises:
        UsageError: the stream was split by node before, so that splitting it again would silently
            lose half of the clips or more; or `process_index` is out of range.
    """
    import datasets

    from avplatform.data.reading.once import share_of

    if isinstance(source, datasets.IterableDataset):
        stream = source
    else:
        names = [source.split_name(name) for name in ([split] if isinstance(split, str) else split)]
        shards = [shard for name in names for shard in source.manifest.splits[name].shards]
        source.shards.footers(shards)  # report missing or damaged shards before anything is read
        files = {"train": source.shards.urls(shards)}
        # Labels that are not known in all of these splits are zeros in the files: leave them out.
        columns = ["row", "clip_id", *source.spec.feature_names, *known_labels(source.spec, *names)]
        stream = datasets.load_dataset(
            "parquet", data_files=files, split="train", streaming=True, columns=columns
        )
        stream = stream.with_format("arrow")
    if not 0 <= process_index < num_processes:
        raise UsageError(
            f"process_index is {process_index}; "
            f"with {num_processes} processes it must be 0 to {num_processes - 1}"
        )
    return share_of(stream, process_index, num_processes)
