"""A split as a dataset of the library `datasets`, for training loops of one's own."""

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
    """Return one process's part of a split as a `datasets.IterableDataset` in arrow format, for loops of one's own.

    It holds the clips' rows, ids and features, and the labels that are known in the split.

    The parts of all processes hold every clip once; they may differ in length, so a loop must not count on equal numbers
    of batches (`StreamLoader`, which training uses, gives equal numbers). Either this function deals the clips or Accelerate
    does, with `num_processes=1` here: a share that is split again, or read through a DataLoader that Accelerate prepared,
    raises UsageError.

    Args:
        source: a store, or a stream of one's own.
        split: of the store; several are read one after the other.
        process_index: whose part,
        num_processes: of how many.

    Raises:
        UsageError: the stream was split by node already: half of the clips or more would silently be lost.
    """
    import datasets

    from avplatform.data.reading.once import share_of

    if isinstance(source, datasets.IterableDataset):
        stream = source
    else:
        names = [source.split_name(name) for name in ([split] if isinstance(split, str) else split)]
        shards = [shard for name in names for shard in source.manifest.splits[name].shards]
        source.shards.footers(shards)  # what is missing or damaged is said before anything is read
        files = {"train": source.shards.urls(shards)}
        # Labels that are not known in all of these splits are zeros in the files, and would pass as labels.
        columns = ["row", "clip_id", *source.spec.feature_names, *known_labels(source.spec, *names)]
        stream = datasets.load_dataset(
            "parquet", data_files=files, split="train", streaming=True, columns=columns
        )
        stream = stream.with_format("arrow")
    if not 0 <= process_index < num_processes:
        raise UsageError(
            f"process_index is {process_index}; of {num_processes} processes it must be 0 to {num_processes - 1}"
        )
    return share_of(stream, process_index, num_processes)
