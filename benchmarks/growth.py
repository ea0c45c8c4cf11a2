"""How time and memory grow with clips, segments, classes and the length of a video.

    python -m benchmarks.growth [clips segments classes video] [--sizes 10 100] [--out FOLDER]

Each size is measured in a process of its own, on one thread: CPU seconds of the process (models:
the least of three passes), and its peak memory, in all and more than for the smallest size, which
is measured before to load what every size needs. The clips
are noise of 8 and 16 numbers a segment; models have their published sizes and random weights; the
videos are rendered (64 x 48 pixels, 5 frames a second, with sound) and read by a small recipe of
random weights, so that time and memory of everything but the networks show. A slope is that of a
straight line through the larger half of the sizes on axes of logarithms: 1 is linear, 2 quadratic.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from avplatform.api import create_model
from avplatform.base.drawing import COLOURS, Figure, grid, save_figure
from avplatform.base.files import write_json
from avplatform.cli import main as avplatform
from avplatform.data import DataSpec, StoreWriter, open_data, train_loader
from avplatform.features.extractor import Extractor
from avplatform.models.av_model import AVModel
from avplatform.models.contracts import FeatureSpec
from avplatform.tasks.batch import Batch
from avplatform.tasks.registry import task_of_model
from tests.features.networks import SMALL, small_weights

SIZES = {
    "clips": (100, 1_000, 10_000, 100_000),
    "segments": (10, 30, 100, 300, 1_000),
    "classes": (25, 100, 300, 1_000),
    "video": (10, 60, 600, 3_600),
}
UNITS = {"clips": "clips", "segments": "segments of a clip", "classes": "classes",
         "video": "seconds of video"}  # fmt: skip
FPS, RATE, BLOCK = 5, 16_000, 1_000
Found = dict[str, float]


def clips(size: int, folder: Path) -> Found:
    """Return the CPU seconds of writing, opening and reading clips, and of their figures."""
    spec = DataSpec(
        name="noise",
        task="avvp",
        classes=[f"class {i}" for i in range(25)],
        features=FeatureSpec(audio_dim=8, visual_dim=16),
        labels={"weak": [25]},
        label_dtypes={"weak": "uint8"},
        synthetic=True,
    )
    rng, out = np.random.default_rng(0), folder / "store"

    def write() -> None:
        with StoreWriter(out, spec) as writer:
            for start in range(0, size, BLOCK):
                rows = np.arange(start, min(start + BLOCK, size))
                shape = (len(rows), 10)
                writer.add("train", {
                    "row": rows,
                    "clip_id": [f"clip{row}" for row in rows],
                    "audio": rng.standard_normal((*shape, 8), dtype=np.float32),
                    "visual": rng.standard_normal((*shape, 16), dtype=np.float32),
                    "weak": rng.integers(0, 2, (len(rows), 25)),
                })  # fmt: skip

    found = {"written as a store": spent(write)}
    found["opened"] = spent(lambda: open_data(out, task="avvp").split("train"))
    loader = train_loader(open_data(out, task="avvp"), ["train"], batch_size=64, seed=1)
    found["read once, shuffled"] = spent(lambda: [len(share.batch) for share in loader.epoch(1)])
    return found | {"ten figures of LLP": figures_of(size, 25)}


def figures_of(count: int, classes: int) -> float:
    """Return the CPU seconds in which AVVP's figures of random decisions are computed."""
    task = task_of_model(model_of("han-mmil.avvp", classes).config)
    draw = torch.Generator().manual_seed(0)

    def events(rows: int) -> torch.Tensor:
        return torch.rand(rows, 10, classes, generator=draw) < 2 / classes

    metrics, seconds = task.metrics(), 0.0
    for start in range(0, count, 64):
        row = torch.arange(start, min(start + 64, count))
        heard, seen = events(len(row)), events(len(row))
        decided = {"audio": heard, "visual": seen, "av": heard & seen, "video": seen.any(dim=1)}
        truth = {"dense_audio": events(len(row)), "dense_visual": events(len(row))}
        batch = Batch(
            audio=torch.zeros(len(row), 1, 1),
            visual=torch.zeros(len(row), 1, 1),
            motion=None,
            clip_id=["-"] * len(row),
            row=row,
            labels={**truth, "weak": torch.zeros(len(row), classes)},
        )
        seconds += spent(lambda batch=batch, decided=decided: metrics.update(decided, batch))
    return seconds + spent(metrics.compute)


def segments(size: int, folder: Path) -> Found:
    """Return the CPU seconds of one clip of so many segments through two models."""
    return {name: forward(model_of(f"{name}.avvp", 25), 1, size) for name in
            ("han-leap", "mmpyr-leap")}  # fmt: skip


def classes(size: int, folder: Path) -> Found:
    """Return the CPU seconds of four clips through a model of so many classes, and of figures."""
    passed = {
        f"{name}, 4 clips": forward(model_of(f"{name}.avvp", size), 4, 10)
        for name in ("han-leap", "han-mmil")
    }
    return passed | {"ten figures of 200 clips": figures_of(200, size)}


def video(size: int, folder: Path) -> Found:
    """Return the CPU seconds of `avplatform predict` on a rendered video of so many seconds."""
    weights = small_weights(folder)
    features = Extractor(SMALL, weights).features
    small = {"width": 32, "heads": 4}
    model = create_model("han-leap.avvp", features=features, encoder_config=small)
    model.save_pretrained(folder / "model")
    rendered = folder / f"{size}s.mp4"
    render(size, rendered)
    flags = ["--weights", *(f"{name}={file}" for name, file in weights.items()), "--cpu"]
    flags += ["--model", str(folder / "model"), "--out", str(folder / "out"), "--threads", "1"]

    def predict() -> None:
        if avplatform(["predict", str(rendered), *flags, "--max-seconds", "4000"]):
            raise SystemExit("the prediction failed")

    return {"predict": spent(predict)}


def render(seconds: int, file: Path) -> None:
    """Write a video of a moving lamp and a changing tone, one second in memory at a time."""
    with av.open(str(file), "w") as box:
        pictures = box.add_stream("mpeg4", rate=FPS, options={"g": "25"})
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sound = box.add_stream("aac", rate=RATE, layout="mono")
        for second in range(seconds):
            for n in range(FPS):
                image = np.full((48, 64, 3), 40, np.uint8)
                image[8:40, (second * 3) % 48 :][:, :16] = 220
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts = second * FPS + n
                box.mux(pictures.encode(frame))
            at = np.arange(RATE) / RATE
            wave = 0.3 * np.sin(2 * np.pi * (200 + 50 * (second % 10)) * at)
            part = av.AudioFrame.from_ndarray(
                wave[None].astype(np.float32), format="flt", layout="mono"
            )
            part.sample_rate, part.pts = RATE, second * RATE
            box.mux(sound.encode(part))
        box.mux(pictures.encode()), box.mux(sound.encode())


def model_of(name: str, count: int) -> AVModel:
    """Return a new model of so many classes, with random label embeddings."""
    config = create_model(name).config
    labels = [f"class {n}" for n in range(count)]
    config = dataclasses.replace(config, classes=labels, label_texts=labels)
    return AVModel(config, label_embeddings=torch.randn(count, config.label_dim)).eval()


@torch.inference_mode()
def forward(model: AVModel, count: int, length: int) -> float:
    """Return the least CPU seconds of three passes of clips of noise."""
    spec = model.config.features
    widths = (spec.audio_dim, spec.visual_dim, spec.motion_dim or 1)
    streams = [torch.randn(count, length, width) for width in widths]
    return min(spent(lambda: model(*streams)) for _ in range(3))


def spent(work: Callable[[], Any]) -> float:
    """Return the CPU seconds of a piece of work."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


MEASURES = {"clips": clips, "segments": segments, "classes": classes, "video": video}


def measured(kind: str, size: int) -> Found:
    """Return CPU seconds and MiB of memory of one size, in a process of its own."""
    with tempfile.TemporaryDirectory() as place:
        told = [sys.executable, "-m", "benchmarks.growth", "--measure", kind, str(size), place]
        one = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(told, check=True, capture_output=True, text=True, env=one)
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(kind: str, size: int, folder: Path) -> None:
    """Print what one size took, after the smallest one, which loads what all sizes need."""
    torch.set_num_threads(1)
    (folder / "first").mkdir()
    MEASURES[kind](min(SIZES[kind]), folder / "first")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = MEASURES[kind](size, folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({**found, "MiB more": (peak - before) / 1024, "MiB in all": peak / 1024}))


def slope(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Return the slope on axes of logarithms, over the larger half of the sizes.

    Examples:
        >>> round(slope([10, 100, 1000], [5.0, 20.0, 2000.0]), 3)
        2.0
    """
    half = min(len(sizes) // 2, len(sizes) - 2)
    if half < 0 or min(values[half:]) <= 0:
        return float("nan")
    x, y = np.log(sizes[half:]), np.log(values[half:])
    return float(np.polyfit(x, y, 1)[0])


def draw(kind: str, sizes: Sequence[int], rows: Sequence[Found], out: Path) -> Path:
    """Draw time and memory against size, with the slopes in the legend."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots(1, 2)
    names = [name for name in rows[0] if not name.startswith("MiB")]
    for panel, curves in zip(axes, (names, ["MiB in all"]), strict=True):
        for number, name in enumerate(curves):
            values = [row[name] for row in rows]
            label = f"{name}: slope {slope(sizes, values):.2f}"
            panel.plot(sizes, values, "o-", color=COLOURS[number], label=label)
        panel.set_xscale("log")
        panel.set_xlabel(UNITS[kind])
        grid(panel)
        panel.legend(frameon=False, fontsize=8)
    axes[0].set_yscale("log")
    axes[0].set_ylabel("CPU seconds")
    axes[1].set_ylim(0, 1.3 * max(row["MiB in all"] for row in rows))
    axes[1].set_ylabel("peak memory, MiB")
    return save_figure(figure, out / f"growth_{kind}.png")


def main(args: Sequence[str] | None = None) -> None:
    """Measure, print tables with the slopes, and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", choices=[*MEASURES, []], help="default: all")
    parser.add_argument("--sizes", type=int, nargs="+", help="of the kinds; default: as in docs")
    parser.add_argument("--out", type=Path, help="folder for pictures and growth.json")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args(args)
    if asked.measure:
        kind, size, folder = asked.measure
        measure(kind, int(size), Path(folder))
        return
    content = {}
    for kind in asked.kinds or MEASURES:
        sizes = asked.sizes or SIZES[kind]
        rows = [measured(kind, size) for size in sizes]
        content[kind] = dict(zip(map(str, sizes), rows, strict=True))
        print(f"| {UNITS[kind]} | {' | '.join(map(str, sizes))} | slope |")
        print("|---" * (len(sizes) + 2) + "|")
        for name in rows[0]:
            values = [row[name] for row in rows]
            shown = " | ".join(f"{value:,.3g}" for value in values)
            found = f"{slope(sizes, values):.2f}".replace("nan", "")
            print(f"| {name} | {shown} | {found} |", flush=True)
        print()
        if asked.out:
            asked.out.mkdir(parents=True, exist_ok=True)
            draw(kind, sizes, rows, asked.out)
    if asked.out:
        write_json(asked.out / "growth.json", content)


if __name__ == "__main__":
    main()
