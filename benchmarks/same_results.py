"""Short runs whose results must not change, bit for bit, when the code is only rearranged.

Eight models are trained for a few steps on synthetic data, some are scored again, and three of
them parse a rendered video. Every result becomes one line, its name and a sha256, sorted by name:

    python -m benchmarks.same_results --out FOLDER

The lines are also written to FOLDER/hashes.txt. Run this before and after a change, each time with
a new FOLDER and on the same machine, and compare both files with `diff`. Only the command line of
the project is used, so the same script serves code of before and after. It takes a few minutes and
2 GB of disk. The features of the video come from networks with random weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import timm
import torch
from safetensors.torch import save_file
from torchvision.models.video import r2plus1d_18

ROOT = Path(__file__).resolve().parents[1]
STEPS = 12

DROPPED: dict[str, tuple[str, ...]] = {
    "results": ("seconds", "environment"),  # time; versions, commit, hardware and command
    "metrics": (),
    "events": ("video", "model"),  # paths
}
"""Keys at the top of a JSON value that are left out before it is hashed, by the kind of file."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training run: its data, options and arithmetic, and how many processes share it."""

    name: str
    data: str
    options: str
    precision: str = "no"
    processes: int = 1


RUNS = (
    Run(name="avvp-han-leap", data="demo", options="--preset han-leap-avvp-official"),
    Run(
        name="avvp-mmpyr-mmil",
        data="llp",
        options="--task avvp --encoder mmpyr --decoder mmil --supervision weak --batch-size 8",
    ),
    Run(
        name="avvp-psp-dch",
        data="llp",
        options="--task avvp --encoder psp --decoder dch --supervision pseudo --batch-size 8"
        " --streaming --ema 0.9",
    ),
    Run(
        name="avvp-cmbs-leap",
        data="llp",
        options="--task avvp --encoder cmbs --decoder leap --supervision weak --batch-size 8"
        " --streaming --num-workers 2",
        processes=2,
    ),
    Run(
        name="avel-ave-leap",
        data="demo",
        options="--task avel --encoder ave --decoder leap --supervision full",
        precision="bf16",
    ),
    Run(
        name="avel-psp-dch",
        data="ave",
        options="--preset psp-dch-avel-official --batch-size 8",
    ),
    Run(
        name="avel-cmbs-mmil",
        data="ave",
        options="--task avel --encoder cmbs --decoder mmil --supervision weak --batch-size 8"
        " --accumulation 2 --optim.clip-norm 1",
    ),
    Run(
        name="avel-han-leap",
        data="ave",
        options="--task avel --encoder han --decoder leap --supervision weak --batch-size 8"
        " --streaming --optim.name adamw --score-test",
    ),
)

EVALUATIONS = {
    "avvp-han-leap": "--split test --bootstrap 40 --calibration",
    "avel-han-leap": "--split validation --bootstrap 40",
}
"""Options of `eval`, by run."""

PREDICTIONS = {
    "avvp-han-leap": "--recipe llp --threshold 0.3",
    "avvp-psp-dch": "--recipe llp --window 2 --hop 1",
    "avel-ave-leap": "--recipe ave",
}
"""Options of `predict`, by run."""


def main() -> None:
    """Make everything, print the lines and save them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write, which is new")
    out = parser.parse_args().out.resolve()
    out.mkdir(parents=True)
    commands = Commands(out)
    stores = {"demo": "demo", **simulate(commands, out)}
    hashes: dict[str, str] = {}
    for run in RUNS:
        hashes |= train(commands, run, stores[run.data], out / "runs" / run.name)
    for name, options in EVALUATIONS.items():
        file = out / f"eval-{name}.json"
        commands.project("eval", out / "runs" / name, *options.split(), "--json", file)
        hashes[f"eval/{name}"] = json_sha(file, "results")
    video, weights = render(out / "video.mkv"), draw_weights(out / "weights")
    for name, options in PREDICTIONS.items():
        folder = out / "predicted" / name
        places = ("--model", out / "runs" / name, "--weights", weights, "--out", folder)
        commands.project("predict", video, *places, *options.split())
        hashes[f"predict/{name}"] = json_sha(folder / "video" / "events.json", "events")
    lines = "".join(f"{name}  {sha}\n" for name, sha in sorted(hashes.items()))
    (out / "hashes.txt").write_text(lines, encoding="utf-8")
    print(lines, end="")


class Commands:
    """Runs commands of this project's folder on one thread, with a cache and a log of their own."""

    def __init__(self, out: Path) -> None:
        self.log = out / "log.txt"
        own = {"AVPLATFORM_CACHE": str(out / "cache"), "OMP_NUM_THREADS": "1"}
        self.environment = {**os.environ, **own}

    def project(self, command: str, *args: object) -> None:
        """Run `python -m avplatform COMMAND`; all but `data` take a number of threads."""
        machine = () if command == "data" else ("--cpu", "--threads", "1")
        self.python("-m", "avplatform", command, *args, *machine)

    def train(self, processes: int, *args: object) -> None:
        """Run `python train.py`, or the same under `torchrun`."""
        torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes)
        launcher = torchrun if processes > 1 else ()
        self.python(*launcher, "train.py", *args, "--cpu", "--threads", "1")

    def python(self, *args: object) -> None:
        """Run Python and end with what it printed where it fails."""
        words = [str(arg) for arg in args]
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        with self.log.open("a", encoding="utf-8") as log:
            taken = f"{time.monotonic() - begun:.0f} s"
            log.write(f"$ python {' '.join(words)}\n{done.stdout}[{taken}]\n\n")
        print(f"{taken:>6}  python {' '.join(words)}"[:160], file=sys.stderr)
        if done.returncode:
            sys.exit(
                f"{done.stdout[-4000:]}\nexit code {done.returncode}: python {' '.join(words)}"
            )


def simulate(commands: Commands, out: Path) -> dict[str, Path]:
    """Write annotation files of both datasets and draw a store from each."""
    for name, task, write in (("llp", "avvp", write_llp), ("ave", "avel", write_ave)):
        annotations = out / "annotations" / name
        annotations.mkdir(parents=True)
        write(annotations)
        options = ("--task", task, "--annotations", annotations, "--out", out / name)
        commands.project("data", "simulate", *options)
    return {name: out / name for name in ("llp", "ave")}


def write_llp(folder: Path) -> None:
    """Write the files of LLP with 40 training clips and 12 each for validation and test."""
    classes = ("Speech", "Dog", "Cat", "Singing", "Banjo", "Car")
    dense: dict[str, list[str]] = {"audio": [], "visual": []}
    for name, start, count in (("train", 0, 40), ("val_pd", 40, 12), ("test_pd", 52, 12)):
        rows = []
        for clip in range(start, start + count):
            file, pair = f"clip-{clip:06d}_0_10", (classes[clip % 6], classes[(clip + 2) % 6])
            rows.append(f"{file}\t{','.join(pair)}")
            if name != "train":
                onset = clip % 5
                dense["audio"].append(f"{file}\t{onset}\t{onset + 4}\t{pair[0]}")
                dense["visual"].append(f"{file}\t0\t{10 - onset}\t{pair[clip % 2]}")
                dense["visual"].append(f"{file}\t{onset}\t10\t{pair[1 - clip % 2]}")
        table = "\n".join(["filename\tevent_labels", *rows])
        (folder / f"AVVP_{name}.csv").write_text(table + "\n", encoding="utf-8")
    for stream, rows in dense.items():
        table = "\n".join(["filename\tonset\toffset\tevent_labels", *rows])
        (folder / f"AVVP_eval_{stream}.csv").write_text(table + "\n", encoding="utf-8")


def write_ave(folder: Path) -> None:
    """Write the files of AVE with 40 training clips and 12 each for validation and test."""
    classes = ("Church bell", "Bark", "Violin, fiddle", "Truck")
    rows = [
        f"{classes[clip % 4]}&clip-{clip:06d}&good&{clip % 5}&{10 - clip % 3}" for clip in range(64)
    ]
    (folder / "Annotations.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for split, start, stop in (("train", 0, 40), ("val", 40, 52), ("test", 52, 64)):
        with h5py.File(folder / f"{split}_order.h5", "w") as file:
            file["order"] = np.arange(start, stop)


def train(commands: Commands, run: Run, data: object, folder: Path) -> dict[str, str]:
    """Train a run and return what it made as hashes."""
    options = ("--data", data, *run.options.split(), "--precision", run.precision)
    length = ("--max-steps", STEPS, "--no-save-plots")
    commands.train(run.processes, *options, *length, "--output-dir", folder)
    launch = json.loads((folder / "environment.json").read_text(encoding="utf-8"))[-1]
    if launch["processes"] != run.processes:
        sys.exit(f"{run.name}: {launch['processes']} processes instead of {run.processes}")
    weights = folder / "model" / "model.safetensors"
    made = {
        "metrics": json_sha(folder / "metrics.jsonl", "metrics"),
        "results": json_sha(folder / "results.json", "results"),
        "weights": tensors_sha(weights),
        "weights-file": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    for split in ("validation", "test"):
        made[f"{split}-predictions"] = tensors_sha(folder / "predictions" / f"{split}.safetensors")
    return {f"train/{run.name}/{kind}": sha for kind, sha in made.items()}


def tensors_sha(file: Path) -> str:
    """Hash the names, types, shapes and bytes of a safetensors file, but not its metadata."""
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8:start])
    header.pop("__metadata__", None)
    sha = hashlib.sha256()
    for name, tensor in sorted(header.items()):
        begin, end = tensor["data_offsets"]
        sha.update(json.dumps([name, tensor["dtype"], tensor["shape"]]).encode())
        sha.update(data[start + begin : start + end])
    return sha.hexdigest()


def json_sha(file: Path, kind: str) -> str:
    """Hash a file of JSON, or of a JSON value per line, without the keys that are dropped."""
    text = file.read_text(encoding="utf-8")
    values = [json.loads(part) for part in (text.splitlines() if kind == "metrics" else [text])]
    kept = [{key: value[key] for key in value if key not in DROPPED[kind]} for value in values]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def render(path: Path, seconds: int = 3, fps: int = 8, rate: int = 16_000) -> Path:
    """Write a video without loss: noise that moves, and a tone that rises."""
    generator = np.random.default_rng(0)
    texture = generator.integers(0, 256, (12, 40, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    moments = np.arange(seconds * rate) / rate
    tone = (8000 * np.sin(2 * np.pi * (300 + 200 * moments) * moments)).astype(np.int16)
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=fps)
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        for index in range(seconds * fps):
            picture = np.ascontiguousarray(texture[:, 4 * index : 4 * index + 128])
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for start in range(0, len(tone), 1000):
            block = av.AudioFrame.from_ndarray(tone[None, start : start + 1000], layout="mono")
            block.sample_rate, block.pts = rate, start
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    return path


def draw_weights(folder: Path) -> Path:
    """Write a folder of random weights for the networks of the recipes `llp` and `ave`."""
    folder.mkdir()
    torch.manual_seed(0)
    maps = timm.create_model("vgg19.tv_in1k").state_dict()
    networks = {
        "vggish": draw_vggish(),
        "resnet152.tv_in1k": timm.create_model("resnet152.tv_in1k").state_dict(),
        "r2plus1d_18": r2plus1d_18(weights=None).state_dict(),
        "vgg19.tv_in1k": {name: maps[name] for name in maps if name.startswith("features.")},
    }
    for name, tensors in networks.items():
        save_file(tensors, folder / f"{name}.safetensors")
    return folder


def draw_vggish(channels: int = 8, hidden: int = 32, width: int = 128) -> dict[str, torch.Tensor]:
    """Draw weights of a narrow VGGish, under the names of the published ones."""
    tensors: dict[str, torch.Tensor] = {}
    for place, below in zip((0, 3, 6, 8, 11, 13), (1, *[channels] * 5), strict=True):
        tensors[f"features.{place}.weight"] = torch.randn(channels, below, 3, 3) / 3
        tensors[f"features.{place}.bias"] = torch.randn(channels)
    sizes = (24 * channels, hidden, hidden, width)
    for place, below, above in zip((0, 2, 4), sizes, sizes[1:], strict=False):
        tensors[f"embeddings.{place}.weight"] = torch.randn(above, below) / below**0.5
        tensors[f"embeddings.{place}.bias"] = torch.randn(above).abs()
    return tensors


if __name__ == "__main__":
    main()
