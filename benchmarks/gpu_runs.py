"""Runs on an accelerator that `benchmarks/gpu.py` judges: by their scores, and when they go on.

They train HAN + MMIL on the built-in synthetic data, with a fixed seed.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import avplatform
from avplatform.runs.folder import read_records

FIGURE = "segment_Type@AV"
APART = 3.0
"""Points by which bf16 and float32 may differ."""
NEXT, RESUMED = 5, 1e-3
"""Steps that follow a checkpoint, and the largest difference of their losses as a share."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Runs in a folder.

    Attributes:
        folder: where the folders of the runs are made.
        steps: the length of the runs that are scored.
        toy: a network of width 32, whose scores are not judged.
    """

    folder: Path
    steps: int
    toy: bool

    def scores_alike(self) -> str:
        """Check that bf16 training scores as float32 training does, and better than none."""
        found = {}
        for precision in ("no", "bf16"):
            options = self.options(precision, self.steps)
            found[precision] = avplatform.train(**options, precision=precision).results
        full, half = (found[precision]["test"][FIGURE] for precision in ("no", "bf16"))
        said = f"{FIGURE} {full:.1f} in float32 and {half:.1f} in bf16 after {self.steps} steps"
        if self.toy:
            return f"{said}; not judged at toy size"
        trivial = untrained(found["no"])
        judge_scores(full, half, trivial)
        return f"{said}; {trivial:.1f} without training"

    def resumes(self) -> str:
        """Check that a run goes on from a checkpoint on the CPU as it does on the device.

        Without dropout, whose masks differ between devices, the losses of the next steps follow
        from the weights, the optimiser's state and the batches.
        """
        steps = max(10, self.steps // 10)
        options = self.options("device", steps, dropout=0.0) | {"schedule": {"name": "constant"}}
        there = Path(avplatform.train(**options, precision="no").folder)
        here = Path(shutil.copytree(there, self.folder / "cpu"))
        losses = []
        for place, cpu in ((there, False), (here, True)):
            avplatform.train(resume=str(place), cpu=cpu, max_steps=steps + NEXT)
            taken = [r for r in read_records(place / "metrics.jsonl") if r["event"] == "step"]
            losses.append([record["loss"] for record in taken if record["step"] > steps])
        return (
            f"{steps} steps; the losses of the next {NEXT} on the device and on the CPU differ by "
            f"at most {judge_losses(*losses):.1e} of their size"
        )

    def options(self, name: str, steps: int, **encoder: Any) -> dict[str, Any]:
        """Return the options of a short run."""
        cell = {"task": "avvp", "encoder": "han", "decoder": "mmil", "supervision": "weak"}
        short = {"epochs": 1000, "save_plots": False, "validate_every": 1000}
        width = {"width": 32, "hidden": 32} if self.toy else {}
        own = {"encoder_config": width | encoder} if width | encoder else {}
        where = {"output_dir": str(self.folder / name), "seed": 1}
        return {**cell, **short, **own, **where, "max_steps": steps}


def untrained(results: Mapping[str, Any]) -> float:
    """Return the best score of the answers that need no training and no labels of the clips."""
    anchors = results["details"]["test"]["anchors"]
    return max(v[FIGURE] for name, v in anchors.items() if name != "video_labels_everywhere")


def judge_scores(full: float, half: float, trivial: float) -> None:
    """Judge the scores of float32 and bf16.

    Raises:
        ValueError: one is not above what needs no training, or they differ by more than `APART`.
    """
    said = f"{FIGURE} is {full:.1f} in float32 and {half:.1f} in bf16"
    if not (full > trivial and half > trivial):  # also where one is NaN
        raise ValueError(
            f"{said}, but {trivial:.1f} without training: where nothing was learned, nothing is "
            "proven"
        )
    if not abs(full - half) <= APART:
        raise ValueError(f"{said}, which is more than {APART} points apart")


def judge_losses(there: Sequence[float], here: Sequence[float]) -> float:
    """Return the largest difference of the losses of the same steps, as a share.

    Raises:
        ValueError: they are not `NEXT` losses each, or differ by more than `RESUMED`.
    """
    if (len(there), len(here)) != (NEXT, NEXT):
        raise ValueError(f"{len(there)} and {len(here)} steps were taken, not {NEXT} each")
    apart = [abs(a - b) / abs(a) if a else math.inf for a, b in zip(there, here, strict=True)]
    if not all(share <= RESUMED for share in apart):  # also where one is NaN
        on_device, on_cpu = (", ".join(f"{x:.6f}" for x in losses) for losses in (there, here))
        raise ValueError(
            f"the losses {on_device} on the device and {on_cpu} on the CPU differ by more than "
            f"{RESUMED:.0e} of their size"
        )
    return max(apart)
