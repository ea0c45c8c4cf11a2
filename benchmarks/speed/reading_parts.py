"""Where the time of reading goes: each part of a batch, against three files a video.

The clips and batches are those of `benchmarks/speed/reading.py`. A ratio says how many times as
fast as three files per video reading would be if it did nothing else; a part computes no result of
its own, so nothing is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from avplatform.data import batch_of, open_data
from benchmarks.speed.reading import BATCH, VIDEOS, epoch, readers, write_noise
from benchmarks.timing import Comparison, Setting, Side


def comparisons(setting: Setting) -> dict[str, Callable[[], Iterable[Comparison]]]:
    """Return what is timed: a store in float16 and one in float32."""
    return {"parts": partial(both, setting.folder)}


def both(folder: Path) -> Iterable[Comparison]:
    """Yield the parts of reading an epoch, for each precision of the store."""
    pa.set_cpu_count(1)
    labels = write_noise(folder, VIDEOS)
    for dtype in ("float16", "float32"):
        work = parts(folder, labels, dtype)
        plain = work.pop("three files a video")
        sides = [Side(name=f"{dtype}, {name}", run=run, repeats=5) for name, run in work.items()]
        yield Comparison(title=dtype, plain=plain, sides=sides)


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
        "three files a video": partial(epoch, read["three files a video"]),
        "mapped: all": partial(epoch, read[f"mapped, {dtype}"]),
        "... rows copied to memory that is there": each(indices, gather_into_kept),
        "... cast to memory that is there": each(indices, cast_into_kept),
        "... SplitArrays.batch": each(batches, split.batch),
        "datasets: all": partial(epoch, read[f"datasets, mapped, {dtype}"]),
        "... dataset[positions]": each(batches, dataset.__getitem__),
        "... its pieces joined": each(tables, pa.Table.combine_chunks),
        "... batch_of, joining included": each(tables, lambda table: batch_of(data.spec, table)),
    }
