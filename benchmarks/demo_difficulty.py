"""Check that the built-in AVEL data are not too easy.

    python -m benchmarks.demo_difficulty --out runs/difficulty

Trains AVE + LEAP and AVE + DCH with default settings, a linear classifier on single segments, and
AVE + LEAP on shuffled labels, and compares their test accuracies in one run. The exit code is 1
unless the linear classifier stays at least 10 points below the trained model, the model trained on
shuffled labels is within 3 points of always-background, and no model is above 90.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from avplatform.data import open_data
from avplatform.data.reading.arrays import SplitArrays
from avplatform.data.store.schema import DataSpec
from avplatform.data.store.writer import StoreWriter

ROOT = Path(__file__).resolve().parent.parent


def train(out: Path, *flags: str) -> dict:
    """Train by the defaults and return the results."""
    if not (out / "results.json").exists():
        command = [
            sys.executable,
            str(ROOT / "train.py"),
            "--task",
            "avel",
            "--no-save-plots",
            "--output-dir",
            str(out),
        ]
        subprocess.run([*command, *flags], check=True)
    return json.loads((out / "results.json").read_text(encoding="utf-8"))


def segments(split: SplitArrays) -> tuple[torch.Tensor, torch.Tensor]:
    """Return every segment's features (audio and mean of the map) and label."""
    features, labels = [], []
    for start in range(0, len(split), 64):
        batch = split.batch(range(start, min(len(split), start + 64)))
        features.append(
            torch.cat([batch.audio, batch.visual.mean(dim=(2, 3))], dim=-1).flatten(0, 1)
        )
        labels.append(batch.labels["segment"].flatten())
    return torch.cat(features), torch.cat(labels)


def linear_accuracy(train_split: SplitArrays, validation: SplitArrays, test: SplitArrays) -> float:
    """Return the test accuracy of ridge regression on single segments.

    Its penalty is chosen on the validation split.
    """
    (x, y), held, tested = segments(train_split), segments(validation), segments(test)
    mean, spread = x.mean(dim=0), x.std(dim=0) + 1e-6

    def prepare(values: torch.Tensor) -> torch.Tensor:
        return torch.cat([(values - mean) / spread, torch.ones(len(values), 1)], dim=1).double()

    design, target = prepare(x), torch.nn.functional.one_hot(y, 29).double()
    gram, moment = design.T @ design, design.T @ target
    scores = {}
    for penalty in (10.0, 100.0, 1e3, 1e4, 1e5):
        weight = torch.linalg.solve(
            gram + penalty * torch.eye(len(gram), dtype=torch.float64), moment
        )
        accuracy = [
            float(((prepare(f) @ weight).argmax(dim=1) == labels).double().mean())
            for f, labels in (held, tested)
        ]
        scores[penalty] = accuracy
    return 100 * max(scores.values())[1]


def shuffled_store(out: Path) -> Path:
    """Write the demo data with shuffled training labels.

    They are exchanged between clips and shuffled over time.
    """
    if out.exists():
        return out
    data, rng = open_data("demo", task="avel"), np.random.default_rng(0)
    spec = DataSpec(**{**vars(data.spec), "name": "demo-avel-1-shuffled"})
    with StoreWriter(out, spec) as writer:
        for name in ("train", "validation", "test"):
            split = data.split(name)
            order = rng.permutation(len(split)) if name == "train" else np.arange(len(split))
            segment, video = split.labels("segment")[order], split.labels("video")[order]
            if name == "train":
                segment = rng.permuted(segment, axis=1)
            for start in range(0, len(split), 64):
                index = np.arange(start, min(len(split), start + 64))
                batch = split.batch(index)
                writer.add(
                    name,
                    {
                        "row": batch.row.numpy(),
                        "clip_id": batch.clip_id,
                        "audio": batch.audio.numpy(),
                        "visual": batch.visual.numpy(),
                        "segment": segment[index],
                        "video": video[index],
                    },
                )
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    data = open_data("demo", task="avel")
    leap, dch = train(out / "leap"), train(out / "dch", "--decoder", "dch")
    shuffled = train(out / "shuffled", "--data", str(shuffled_store(out / "store")))
    linear = linear_accuracy(data.split("train"), data.split("validation"), data.split("test"))
    scores = {
        name: r["test"]["accuracy"]
        for name, r in (("leap", leap), ("dch", dch), ("shuffled labels", shuffled))
    }
    anchors = leap["details"]["test"]["anchors"]
    print("SYNTHETIC data, test accuracy in percent")
    for name, value in {**scores, "linear on single segments": linear, **anchors}.items():
        print(f"  {name}: {value:.1f}")
    checks = {
        "linear at least 10 below leap": linear <= scores["leap"] - 10,
        "shuffled within 3 of always background": abs(
            scores["shuffled labels"] - anchors["always_background"]
        )
        <= 3,
        "nothing above 90": max(*scores.values(), linear) <= 90,
    }
    for name, held in checks.items():
        print(f"  {'holds' if held else 'FAILS'}: {name}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
