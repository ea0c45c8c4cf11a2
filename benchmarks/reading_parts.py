"""Where the time of mapped reading goes: `python -m benchmarks.reading_parts`.

The clips and batches are those of `benchmarks/data.py`. Each line is a part of the cost of a batch
of 16, measured separately in CPU time of the process (one thread, warm page cache, parts in turn,
medians over the rounds). The ratio says how many times as fast as three files per video reading
would be if it did nothing else.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from avplatform.data import batch_of, open_data
from benchmarks.data import BATCH, readers, write_noise

REPEATS = 3  # readings of an epoch in a round


def parts(folder: Path, labels: np.ndarray, dtype: str) -> dict[str, Callable[[], Any]]:
    """Return the timed functions for one precision of the store; each runs through one epoch."""
    data, read = open_data(folder / dtype, task="avvp"), readers(folder, labels)
    split, dataset = data.split("train"), data.as_dataset("train")
    order = np.random.default_rng(0).permutation(len(split))
    batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    indices, tables = (
        [torch.from_numpy(batch) for batch in batches],
        [dataset[batch] for batch in batches],
    )
    columns = split.columns()
    mapped = [torch.from_numpy(columns[name]) for name in data.spec.feature_names]
    kept = [values[:BATCH].clone() for values in mapped]
    cast = [values.float() for values in kept]

    def each(items: list[Any], work: Callable[[Any], Any]) -> Callable[[], None]:
        def run() -> None:
            for item in items:
                work(item)

        return run

    def gather_into_kept(index: torch.Tensor) -> None:
        for values, out in zip(mapped, kept, strict=True):
            torch.index_select(values, 0, index, out=out[: len(index)])

    def cast_into_kept(index: torch.Tensor) -> None:
        for values, out in zip(kept, cast, strict=True):
            out[: len(index)].copy_(values[: len(index)])

    return {
        "three files a video": lambda: sum(read["three files a video"](1)),
        "mapped: all": lambda: sum(read[f"mapped, {dtype}"](1)),
        "  rows copied to memory that is there": each(indices, gather_into_kept),
        "  cast to memory that is there": each(indices, cast_into_kept),
        "  SplitArrays.batch": each(batches, split.batch),
        "datasets: all": lambda: sum(read[f"datasets, mapped, {dtype}"](1)),
        "  dataset[positions]": each(batches, dataset.__getitem__),
        "  its pieces joined": each(tables, pa.Table.combine_chunks),
        "  batch_of, joining included": each(tables, lambda table: batch_of(data.spec, table)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    count = -(-options.videos // BATCH)
    with tempfile.TemporaryDirectory() as name:
        labels = write_noise(Path(name), options.videos)
        for dtype in ("float16", "float32"):
            timed = parts(Path(name), labels, dtype)
            spent: dict[str, list[float]] = {part: [] for part in timed}
            for number in range(options.rounds + 1):
                for part, work in timed.items():
                    started = time.process_time()
                    for _ in range(REPEATS):
                        work()
                    if number:  # the first round warms up
                        spent[part].append((time.process_time() - started) / REPEATS / count)
            files = spent["three files a video"]
            print(f"{dtype:<42}{'us a batch':>12}{'to files':>10}")
            for part, values in spent.items():
                to = statistics.median(a / b for a, b in zip(files, values, strict=True))
                print(f"{part:<42}{1e6 * statistics.median(values):>12,.0f}{to:>9.1f}x")


if __name__ == "__main__":
    main()
