"""Options of `avplatform eval` and of `avplatform.evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from avplatform.labels.assumed import Assumed


@dataclass(kw_only=True)
class EvalOptions:
    """Score a saved model or run; several processes share the work and give the same numbers."""

    model: Annotated[str, tyro.conf.Positional]
    """run folder, model folder or hub id; training-free: CLIP and CLAP, on a store of those"""
    data: str | None = None
    """demo, a data folder or a hub dataset id; default: what the run or its card was trained on"""
    cache_dir: str | None = None
    """folder for cached data; default: the data folder, $AVPLATFORM_CACHE or ~/.cache/avplatform"""
    split: str = "test"
    """train, validation or test"""
    held_out: tuple[str, ...] = ()
    """score these classes by their label texts (leap), on the clips that hold one of them"""
    among: Literal["held-out", "all"] = "held-out"
    """with --held-out: let the model choose among those classes only, or among all of the task"""
    embeddings: str | None = None
    """with --held-out: source of label embeddings; default: the source used in training"""
    unseen: Assumed | None = None
    """classes never trained on: present (default if held out), rare (training), plain (no bank)"""
    threshold: float | None = None
    """lowest probability at which a class is detected (avvp); default: the model's own"""
    json: str | None = None
    """write the results to this file; without a name: print them as JSON, and nothing else"""
    predictions: str | None = None
    """write decisions, truth and scores of all clips to this file, or FOLDER/SPLIT.safetensors"""
    bootstrap: int = 0
    """resamples of the videos for 95 % intervals of the headline figures, such as 1000; 0: none"""
    thresholds: Literal["own", "validation"] = "own"
    """own: the model's; validation: per class, chosen on the validation split (results say so)"""
    calibration: bool = False
    """test scores as probabilities, both unchanged and after rescaling on the validation split"""
    presence: bool = False
    """print the scores of events that are only audible, only visible, or both (avvp)"""
    robustness: bool = False
    """score with late, muted, noisy or missing audio and with frozen, noisy or missing video"""
    out: str | None = None
    """folder for the calibration and robustness pages; default: evaluation/ in the run's folder"""
    seed: int = 0
    """seed of the resamples and of the noise"""
    weights: tuple[str, ...] = ()
    """with training-free: clip=FOLDER and clap=FOLDER, or auto (fetch what is missing)"""
    batch_size: int = 64
    """clips per batch"""
    cpu: bool = False
    """stay on the CPU"""
    threads: int = 0
    """CPU threads per process; 0: cores divided by the number of processes on this machine"""

    @property
    def reads_validation(self) -> bool:
        """Return whether something is learnt on the validation split."""
        return self.calibration or self.thresholds == "validation"
