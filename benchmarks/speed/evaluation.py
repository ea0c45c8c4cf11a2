"""A whole LLP evaluation with HAN, from files on disk to the ten numbers, against the plain path.

The plain path opens three files a video, runs a plain HAN + MMIL on one video at a time, looks the
truth of each video up by pandas, and scores it in a loop. Ours is `evaluate` on a store of the same
values: mapped arrays, batches of 64, all clips scored at once. Features are noise, the weights are
random and the same, and the ten numbers must agree to a hundredth of a point: a probability that
is within rounding of the threshold may fall on either side. Files are in the page cache. Evaluation
computes in the precision of the weights, so there is no row of bf16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from avplatform.base.machine import make_accelerator
from avplatform.data import DataSpec, StoreWriter, open_data
from avplatform.evaluation.evaluate import evaluate
from avplatform.models.stem import pool_frames
from benchmarks.speed.metrics import annotations, dense, furthest, loop, one_clip
from benchmarks.timing import Comparison, Setting, Side
from tests.plain.steps import LLP, ROWS, pair

VIDEOS = 400
"""A third of LLP's test split, whose plain features would take 0.8 GB; the time is per video."""
SHAPES = {"audio": (10, 128), "visual": (80, 2048), "motion": (10, 512)}


def comparisons(setting: Setting) -> dict[str, Callable[[], Iterable[Comparison]]]:
    """Return what is timed."""
    return {"llp": partial(llp, setting.folder)}


def llp(folder: Path) -> Iterable[Comparison]:
    """Yield the evaluation of HAN + MMIL."""
    pa.set_cpu_count(1)
    tables, names, classes = annotations()
    names = names[:VIDEOS]
    task, ours, plain, batch, _ = pair(ROWS["han"])
    for model in (ours, plain):
        for classifier in [m for n, m in model.named_modules() if n.endswith(".classifier")]:
            spread_out(classifier)
    write(folder, names, classes, [dense(table, names, classes) for table in tables])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ours(batch.audio, pool_frames(batch.visual, batch.audio.shape[1]), batch.motion)
    work = counter.get_total_flops() / len(batch) * len(names)

    accelerator = make_accelerator(cpu=True, precision="no", threads=1)

    def platform() -> dict[str, float]:
        split = open_data(folder / "store", task="avvp").split("test")
        return evaluate(ours, task, split, accelerator=accelerator).figures()

    def usual() -> dict[str, float]:
        predicted = [[], []]
        for name in names:
            for stream, found in zip(predicted, decide(plain, folder, name), strict=True):
                stream.append(found)
        look = [lambda i, table=t: one_clip(table, names[i], classes) for t in tables]
        return loop(predicted, look)  # type: ignore[arg-type]

    yield Comparison(
        title="llp",
        plain=usual,
        sides=[
            Side(
                name=f"LLP evaluation, HAN + MMIL, {VIDEOS} videos, files to ten numbers, fp32",
                run=platform,
                difference=lambda: furthest(usual(), platform()),
                tolerance=0.01,
                floor=12,
                aim=40,
                work=work,
            )
        ],
    )


def spread_out(layer: nn.Module) -> None:
    """Let random probabilities differ enough that rounding moves few over the threshold."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(20)


@torch.no_grad()
def decide(model: nn.Module, folder: Path, name: str) -> list[np.ndarray]:
    """Return the decisions of a plain model on one video: audio and visual, bool [T, C]."""
    model.eval()
    features = [torch.from_numpy(np.load(folder / k / f"{name}.npy"))[None] for k in SHAPES]
    audio, visual = model.encoder(*model.stem(*features))
    whole = model.decoder(audio, visual)[2][0] >= 0.5
    scores = [torch.sigmoid(model.decoder.classifier(stream))[0] for stream in (audio, visual)]
    return [((score >= 0.5) & whole).numpy() for score in scores]


def write(folder: Path, names: list[str], classes: list[str], truth: list[np.ndarray]) -> None:
    """Write the same noise as three files a video and as a store."""
    rng = np.random.default_rng(0)
    maps = {"dense_audio": truth[0], "dense_visual": truth[1]}
    columns = {**maps, "weak": (truth[0] | truth[1]).any(axis=1)}
    spec = DataSpec(
        name="noise",
        task="avvp",
        classes=classes,
        features=LLP,
        labels={name: list(values.shape[1:]) for name, values in columns.items()},
        label_dtypes=dict.fromkeys(columns, "uint8"),
        synthetic=True,
    )
    for kind in SHAPES:
        (folder / kind).mkdir()
    with StoreWriter(folder / "store", spec, rows_per_shard=200, dtype="float32") as store:
        for start in range(0, len(names), 50):
            rows = np.arange(start, min(start + 50, len(names)))
            values = {
                kind: rng.standard_normal((len(rows), *shape), dtype=np.float32)
                for kind, shape in SHAPES.items()
            }
            for kind, found in values.items():
                for row, value in zip(rows, found, strict=True):
                    np.save(folder / kind / f"{names[row]}.npy", value)
            frames = torch.from_numpy(values["visual"]).unflatten(1, (10, 8))
            values["visual"] = frames.mean(dim=2).numpy()
            labels = {name: found[rows].astype(np.uint8) for name, found in columns.items()}
            ids = [names[row] for row in rows]
            store.add("test", {**values, **labels, "row": rows, "clip_id": ids})
