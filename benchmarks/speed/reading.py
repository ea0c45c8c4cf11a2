"""Reading clips, mapped, through `datasets` and streamed, against the usual ways.

There are two baselines, both in this file: a torch DataLoader over a Dataset that loads three .npy
files per video (float32, 80 visual frames, like the published LLP loaders), and `datasets`
streaming with its own shuffle buffer of 1000 examples. All read the same synthetic clips (noise in
LLP's shapes) in random order, in batches of 16, on one thread, from a warm page cache, and the
means of every clip's features are compared first. AVE's maps come next: the time of reading them
against that of training on them with the fastest AVEL model (AVE + DCH in bf16), and what stays in
memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

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
from benchmarks.timing import Bound, Comparison, Setting, Side

VIDEOS, BATCH = 600, 16
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
Reader = Callable[[int], Iterator[Any]]
"""Yields the batches of an epoch."""
GOALS = {"datasets, mapped": (18, 20), "mapped": (40, 54), "streamed": (1.5, 3)}
"""Floor and aim against three files a video, of a store in float16."""


def comparisons(setting: Setting) -> dict[str, Callable[[], Iterable[Comparison | Bound]]]:
    """Return what is timed."""
    return {"clips": partial(clips, setting.folder), "maps": partial(maps, setting)}


def clips(folder: Path) -> Iterable[Comparison]:
    """Yield an epoch of every reader against both baselines."""
    pa.set_cpu_count(1)
    labels = write_noise(folder, VIDEOS)
    read = readers(folder, labels)
    wanted = sums(read["three files a video"](1))
    for base in ("three files a video", "stock shuffle buffer"):
        files = base == "three files a video"
        sides = []
        for name, reader in read.items():
            kind, _, dtype = name.rpartition(", ")
            if kind not in GOALS or (not files and kind != "streamed"):
                continue
            goals = GOALS[kind] if files else (10, 30)
            sides.append(
                Side(
                    name=f"{name}, to {base}",
                    run=partial(epoch, reader),
                    difference=partial(apart, reader, wanted),
                    tolerance=1e-3 if dtype == "float16" else 1e-5,
                    floor=goals[0] if dtype == "float16" else None,
                    aim=goals[1] if dtype == "float16" else None,
                    # Several epochs: after the stock buffer, which holds all clips, the first one
                    # has to get its memory from the system again.
                    repeats=5 if kind != "streamed" else 3,
                )
            )
        yield Comparison(title=base, plain=partial(epoch, read[base]), sides=sides)


def epoch(reader: Reader) -> None:
    """Read an epoch."""
    assert sum(len(batch["row"] if isinstance(batch, dict) else batch) for batch in reader(1))


def sums(batches: Iterable[Any]) -> dict[int, list[float]]:
    """Return the means of the audio, visual and motion features of every clip by its row."""
    found: dict[int, list[float]] = {}
    for batch in batches:
        values = batch if isinstance(batch, dict) else vars(batch)
        means = [values[name].flatten(1).double().mean(dim=1) for name in SHAPES]
        rows = values["row"].tolist()
        found |= dict(zip(rows, torch.stack(means, dim=1).tolist(), strict=True))
    return found


def apart(reader: Reader, wanted: dict[int, list[float]]) -> float:
    """Return how far the clips of a reader are from those wanted; infinite: not the same clips."""
    found = sums(reader(1))
    if found.keys() != wanted.keys():
        return float("inf")
    pairs = [pair for row in wanted for pair in zip(found[row], wanted[row], strict=True)]
    return max(abs(one - other) for one, other in pairs)


class ThreeFilesAVideo(Dataset):
    """The baseline: every item opens three files."""

    def __init__(self, folder: Path, labels: np.ndarray) -> None:
        self.folder, self.labels = folder, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = {name: np.load(self.folder / name / f"{index}.npy") for name in SHAPES}
        return {**item, "label": self.labels[index], "row": index}


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


def readers(folder: Path, labels: np.ndarray) -> dict[str, Reader]:
    """Return every reader by its name."""
    stores = {dtype: open_data(folder / dtype, task="avvp") for dtype in ("float16", "float32")}
    half = stores["float16"]

    def files(epoch: int) -> Iterator[Any]:
        dataset = ThreeFilesAVideo(folder / "files", labels)
        return iter(DataLoader(dataset, batch_size=BATCH, shuffle=True))

    def stock(epoch: int) -> Iterator[Any]:
        import datasets

        shards = half.shards.urls(half.manifest.splits["train"].shards)
        stream = datasets.load_dataset(
            "parquet", data_files={"train": shards}, split="train", streaming=True
        )
        stream = stream.shuffle(seed=epoch, buffer_size=1000).with_format("torch")
        return iter(stream.iter(batch_size=BATCH))

    def through_datasets(data: DataSource) -> Reader:
        dataset = data.as_dataset("train")

        def read(epoch: int) -> Iterator[Any]:
            order = np.random.default_rng(epoch).permutation(len(dataset))
            parts = (order[i : i + BATCH] for i in range(0, len(order), BATCH))
            return (batch_of(data.spec, dataset[part]) for part in parts)

        return read

    def ours(data: DataSource, streaming: bool) -> Reader:
        loader = train_loader(data, ["train"], streaming=streaming, batch_size=BATCH, seed=1)
        return lambda epoch: (share.batch for share in loader.epoch(epoch))

    found: dict[str, Reader] = {
        "three files a video": files,
        "stock shuffle buffer": stock,
    }
    for dtype, data in stores.items():
        found[f"datasets, mapped, {dtype}"] = through_datasets(data)
        found[f"mapped, {dtype}"] = ours(data, False)
        found[f"streamed, {dtype}"] = ours(data, True)
    return found


def maps(setting: Setting) -> Iterable[Comparison | Bound]:
    """Yield a batch of AVE's maps, read and trained on, and what reading leaves in memory."""
    folder = setting.folder / "maps"
    make_demo("avel", folder, sizes={"train": MAP_CLIPS, "validation": 2, "test": 2})
    data, config = open_data(folder, task="avel"), default_config("avel", "ave", "dch")
    precision = "bf16" if setting.bf16 else "no"
    accelerator = make_accelerator(cpu=True, precision=precision, threads=1)
    task = build_task(config)
    model = build_model(config, task, data.spec)
    optimizer = build_optimizer(model, config.optim)
    batch = data.split("train").batch(range(MAP_BATCH))
    batch_bytes = sum(t.numel() * t.element_size() for t in (batch.audio, batch.visual))
    loader = train_loader(data, ["train"], batch_size=MAP_BATCH, seed=1)
    before, most = 0, 0

    def train() -> None:
        for _ in range(MAP_CLIPS // MAP_BATCH):
            optimisation_step(model, task, batch, optimizer, lr=1e-4, accelerator=accelerator)

    def read() -> None:
        nonlocal before, most
        before = anonymous()
        for share in loader.epoch(1):
            most = max(most, anonymous() - before)
            del share

    read()
    yield Comparison(
        title="AVE maps",
        plain=train,
        sides=[Side(name=f"AVE maps, to training in {precision}", run=read, floor=2.0, aim=2.0)],
    )
    most = 0
    read()
    left, unit = anonymous() - before, f"batches of {batch_bytes / 2**20:.0f} MiB"
    # What is left does not depend on the size of the split: the allocator keeps it.
    yield Bound(name="AVE maps: memory while reading", value=most / batch_bytes, unit=unit, most=2)
    yield Bound(name="AVE maps: memory afterwards", value=left / batch_bytes, unit=unit, most=1)


def anonymous() -> int:
    """Bytes of memory of this process that no file backs."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this benchmark reads /proc/self/status, which this system does not have")
