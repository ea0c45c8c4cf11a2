"""How fast clips are read, as ratios measured in one run: `python -m benchmarks.data`.

There are two baselines, both in this file: a torch DataLoader over a Dataset that loads three .npy
files per video (float32, 80 visual frames, like the published LLP loaders), and `datasets`
streaming with its own shuffle buffer of 1000 examples. All read the same synthetic clips (noise in
LLP's shapes) in random order, in batches of 16, on one thread, from a warm page cache. The readers
take turns, and a ratio is the median over the rounds. AVE's maps come next: the rate of the loader
against the rate at which the fastest AVEL model trains (AVE + DCH in bf16), and what stays in
memory. The exit code is 1 unless every goal is met.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, Dataset

from avplatform.base.machine import make_accelerator
from avplatform.config.build import build_model, build_task
from avplatform.config.run import default_config
from avplatform.data import (
    DataSource,
    DataSpec,
    StoreWriter,
    batch_of,
    open_data,
    train_loader,
)
from avplatform.data.simulate.demo import make_demo
from avplatform.models.contracts import FeatureSpec
from avplatform.training.optim import build_optimizer
from avplatform.training.step import optimisation_step

BATCH = 16
SECONDS = 0.5  # at least, for a reader in a round
SHAPES = {"audio": (10, 128), "visual": (80, 2048), "motion": (10, 512)}
SPEC = DataSpec(
    name="noise",
    task="avvp",
    classes=[f"class {i}" for i in range(25)],
    features=FeatureSpec(audio_dim=128, visual_dim=2048, motion_dim=512),
    labels={"weak": [25]},
    label_dtypes={"weak": "uint8"},
    synthetic=True,
)
MAP_BATCH, MAP_CLIPS = 64, 320


class ThreeFilesAVideo(Dataset):
    """The baseline: every item opens three files."""

    def __init__(self, folder: Path, labels: np.ndarray) -> None:
        self.folder, self.labels = folder, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        item = {name: np.load(self.folder / name / f"{index}.npy") for name in SHAPES}
        return {**item, "label": self.labels[index]}


def write_noise(folder: Path, videos: int) -> np.ndarray:
    """Write the same clips in all formats and return their labels.

    The formats are one file per feature and video, and a store in each precision.
    """
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (videos, 25)).astype(np.float32)
    for name in SHAPES:
        (folder / "files" / name).mkdir(parents=True)
    with (
        StoreWriter(folder / "float16", SPEC, rows_per_shard=200) as half,
        StoreWriter(folder / "float32", SPEC, rows_per_shard=200, dtype="float32") as full,
    ):
        for start in range(0, videos, 50):
            rows = np.arange(start, min(start + 50, videos))
            columns = {
                n: rng.standard_normal((len(rows), *s), dtype=np.float32) for n, s in SHAPES.items()
            }
            for name, values in columns.items():
                for row, value in zip(rows, values, strict=True):
                    np.save(folder / "files" / name / f"{row}.npy", value)
            columns["visual"] = columns["visual"].reshape(len(rows), 10, 8, -1).mean(axis=2)
            columns |= {"row": rows, "clip_id": [f"v{row}" for row in rows], "weak": labels[rows]}
            half.add("train", columns)
            full.add("train", columns)
    return labels


def readers(folder: Path, labels: np.ndarray) -> dict[str, Callable[[int], Iterator[int]]]:
    """Return every reader: for an epoch it yields the clips of each batch."""
    stores = {dtype: open_data(folder / dtype, task="avvp") for dtype in ("float16", "float32")}
    half = stores["float16"]

    def files(epoch: int) -> Iterator[int]:
        loader = DataLoader(
            ThreeFilesAVideo(folder / "files", labels), batch_size=BATCH, shuffle=True
        )
        return (len(batch["label"]) for batch in loader)

    def stock(epoch: int) -> Iterator[int]:
        import datasets

        shards = half.shards.urls(half.manifest.splits["train"].shards)
        stream = datasets.load_dataset(
            "parquet", data_files={"train": shards}, split="train", streaming=True
        )
        stream = stream.shuffle(seed=epoch, buffer_size=1000).with_format("torch")
        return (len(batch["row"]) for batch in stream.iter(batch_size=BATCH))

    def through_datasets(data: DataSource) -> Callable[[int], Iterator[int]]:
        dataset = data.as_dataset("train")

        def read(epoch: int) -> Iterator[int]:
            order = np.random.default_rng(epoch).permutation(len(dataset))
            parts = (order[i : i + BATCH] for i in range(0, len(order), BATCH))
            return (len(batch_of(data.spec, dataset[part])) for part in parts)

        return read

    def ours(data: DataSource, streaming: bool) -> Callable[[int], Iterator[int]]:
        loader = train_loader(data, ["train"], streaming=streaming, batch_size=BATCH, seed=1)
        return lambda epoch: (len(share.batch) for share in loader.epoch(epoch))

    found: dict[str, Callable[[int], Iterator[int]]] = {
        "three files a video": files,
        "stock shuffle buffer": stock,
    }
    for dtype, data in stores.items():
        found[f"datasets, mapped, {dtype}"] = through_datasets(data)
        found[f"mapped, {dtype}"] = ours(data, False)
        found[f"streamed, {dtype}"] = ours(data, True)
    return found


def rates(
    read: dict[str, Callable[[int], Iterator[int]]], clips: int, rounds: int
) -> dict[str, list[float]]:
    """Return the clips per second of every reader in every round.

    Before the first round, each reader reads once to warm the page cache.
    """
    found: dict[str, list[float]] = {name: [] for name in read}
    for epoch in range(rounds + 1):
        for name, reader in read.items():
            if epoch == 0 and name == "stock shuffle buffer":
                continue  # its files are warmed by the others
            started, epochs, spent = time.perf_counter(), 0, 0.0
            while (
                spent < SECONDS
            ):  # a fast reader's epoch is shorter than what a busy machine takes away at a time
                count = sum(reader(epoch))
                assert count == clips, (name, count)
                epochs, spent = epochs + 1, time.perf_counter() - started
            if epoch:
                found[name].append(epochs * clips / spent)
    return found


def ratio(found: dict[str, list[float]], name: str, to: str) -> float:
    """Median over the rounds of one reader's rate to another's in the same round."""
    return statistics.median(a / b for a, b in zip(found[name], found[to], strict=True))


def maps(folder: Path, rounds: int) -> tuple[float, float, float, float]:
    """Time the loader on AVE's maps against training, and measure its memory.

    Returns the loader's rate relative to that of training and, in batches, how much the anonymous
    memory grew at most, how much of that was left afterwards, and the size of the whole split.
    """
    make_demo("avel", folder / "maps", sizes={"train": MAP_CLIPS, "validation": 2, "test": 2})
    data, config = open_data(folder / "maps", task="avel"), default_config("avel", "ave", "dch")
    data.split("train")
    accelerator = make_accelerator(cpu=True, precision="bf16", threads=1)
    task = build_task(config)
    model = build_model(config, task, data.spec)
    optimizer = build_optimizer(model, config.optim)
    batch = data.split("train").batch(range(MAP_BATCH))
    batch_bytes = sum(t.numel() * t.element_size() for t in (batch.audio, batch.visual))
    loader = train_loader(data, ["train"], batch_size=MAP_BATCH, seed=1)
    for _ in loader.epoch(1):
        pass
    found, most, left = [], 0, 0
    for epoch in range(rounds):
        for _ in range(2):  # the first one warms up
            started = time.perf_counter()
            optimisation_step(model, task, batch, optimizer, lr=1e-4, accelerator=accelerator)
            training = MAP_BATCH / (time.perf_counter() - started)
        before, started = anonymous(), time.perf_counter()
        clips = 0
        for share in loader.epoch(epoch):
            clips += len(share.batch)
            most = max(most, anonymous() - before)
        del share
        reading = clips / (time.perf_counter() - started)
        left = max(left, anonymous() - before)
        found.append((reading, training))
    reading, training = (statistics.median(values) for values in zip(*found, strict=True))
    print(f"AVE maps: {reading:,.0f} clips/s read, {training:,.0f} trained; ", end="")
    print(f"a batch of {MAP_BATCH} has {batch_bytes / 2**20:.0f} MiB")
    return (
        statistics.median(r / t for r, t in found),
        most / batch_bytes,
        left / batch_bytes,
        MAP_CLIPS / MAP_BATCH,
    )


def anonymous() -> int:
    """Bytes of memory of this process that no file backs."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this benchmark reads /proc/self/status, which this system does not have")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        labels = write_noise(folder, options.videos)
        found = rates(readers(folder, labels), options.videos, options.rounds)
        print(
            f"{options.videos} synthetic videos, {options.rounds} rounds, 1 thread; "
            "clips/s (medians) and ratios"
        )
        print(f"{'reader':<28}{'clips/s':>10}{'to files':>10}{'to stock':>10}")
        for reader, values in found.items():
            to = (
                ratio(found, reader, base)
                for base in ("three files a video", "stock shuffle buffer")
            )
            print(
                f"{reader:<28}{statistics.median(values):>10,.0f}"
                + "".join(f"{value:>9.1f}x" for value in to)
            )
        faster, most, left, copy = maps(folder, options.rounds)
    files, stock = "three files a video", "stock shuffle buffer"
    goals = [
        ("datasets, mapped, to files", ratio(found, "datasets, mapped, float16", files), 10, 20),
        ("mapped, to files", ratio(found, "mapped, float16", files), 30, 60),
        ("streamed, to files", ratio(found, "streamed, float16", files), 1.5, 3),
        ("streamed, to stock buffer", ratio(found, "streamed, float16", stock), 10, 30),
        ("AVE maps, to training", faster, 2, 2),
    ]
    print(f"\n{'goal':<28}{'measured':>10}{'at least':>10}{'aim':>6}")
    met = True
    for goal, value, least, aim in goals:
        met &= value >= least
        print(
            f"{goal:<28}{value:>9.1f}x{least:>9}x{aim:>5}x  {'met' if value >= least else 'MISSED'}"
        )
    resident = (
        most <= 2 and left <= 1
    )  # what is left does not depend on the size of the split: the allocator keeps it
    print(
        f"AVE maps: anonymous memory grew by {most:.2f} batches while reading "
        f"and {left:.2f} after it; a resident copy of",
        end="",
    )
    print(f" the split would be {copy:.0f}: {'met' if resident else 'MISSED'}")
    return 0 if met and resident else 1


if __name__ == "__main__":
    sys.exit(main())
