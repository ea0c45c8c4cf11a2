"""A small labelled store with any classes, and flags that train on it in a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avplatform.data.adapters.llp.classes import CLASSES
from avplatform.data.store.schema import DataSpec
from avplatform.data.store.writer import StoreWriter
from avplatform.models.contracts import FeatureSpec

OTHERS = ("Dog", "Cat", "Violin", "Guitar", "Helicopter", "Banjo")
FLAGS = ["train", "--task", "avvp", "--encoder", "han", "--supervision", "weak", "--cpu",
         "--threads", "1", "--precision", "no", "--batch-size", "4", "--no-save-plots",
         "--encoder-config.width", "16", "--encoder-config.hidden", "16"]  # fmt: skip


def make(out: Path, classes: Sequence[str] = CLASSES, *, train: int = 12, audio: int = 8) -> Path:
    """Write a store of synthetic clips and return its folder."""
    count, rng, row = len(classes), np.random.default_rng(0), 0
    labels = {"weak": [count], "dense_audio": [10, count], "dense_visual": [10, count]}
    spec = DataSpec(
        name="mine",
        task="avvp",
        classes=list(classes),
        features=FeatureSpec(audio_dim=audio, visual_dim=12),
        labels=labels,
        label_dtypes=dict.fromkeys(labels, "uint8"),
        label_splits={k: ["validation", "test"] for k in ("dense_audio", "dense_visual")},
        synthetic=True,
    )
    with StoreWriter(out, spec) as writer:
        for split, clips in (("train", train), ("validation", 4), ("test", 4)):
            for _ in range(clips):
                heard, seen = np.zeros((2, 1, 10, count), np.uint8)
                if split != "train":
                    heard[0, :5, row % count] = seen[0, 2:, row % count] = 1
                weak = np.zeros((1, count), np.uint8)
                weak[0, row % count] = 1
                clip = {"row": np.array([row]), "clip_id": [f"clip{row:04d}"], "weak": weak}
                truth = {"dense_audio": heard, "dense_visual": seen}
                audio_values = rng.standard_normal((1, 10, audio)).astype(np.float32)
                visual_values = rng.standard_normal((1, 10, 12)).astype(np.float32)
                features = {"audio": audio_values, "visual": visual_values}
                writer.add(split, {**clip, **truth, **features})
                row += 1
    return out
