"""Video thresholds of single classes, picked on validation.

Axes: N clips, T segments, C classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avplatform.tasks.avvp.config import CLASS_THRESHOLDS, AVVPConfig
from avplatform.tasks.avvp.metrics import STREAMS, class_f, event_counts
from avplatform.tasks.metrics import Arrays, Metrics

CANDIDATES = tuple(round(0.25 + 0.05 * i, 2) for i in range(10))
"""Thresholds from 0.25 to 0.70."""


class EarlyThresholds:
    """The class thresholds that an epoch before the kept one picked, as options; {}: none.

    Source: CMPAE (CVPR 2023), released code: thresholds are those of the weights after epoch 8.
    """

    def __init__(self) -> None:
        self.limits: dict[str, Any] = {}

    def state(self) -> dict[str, Tensor]:
        """Return the thresholds for a checkpoint."""
        return {name: torch.tensor(v, dtype=torch.float64) for name, v in self.limits.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        names = [name for name in CLASS_THRESHOLDS if name in state]
        self.limits = {name: tuple(state[name].tolist()) for name in names}


def pick_class_thresholds(config: AVVPConfig, validation: Metrics) -> dict[str, Any]:
    """Return the class thresholds by option; {}: none are asked for, or events have no times."""
    evidence = validation.evidence if validation.timed else None
    if config.class_thresholds == "off" or evidence is None:
        return {}
    found = with_class_thresholds(config, validation.state(), evidence)
    pairs = ((name, getattr(found, name)) for name in CLASS_THRESHOLDS)
    return {name: limits for name, limits in pairs if limits}


def with_class_thresholds(config: AVVPConfig, state: Arrays, evidence: Arrays) -> AVVPConfig:
    """Return the options with the video thresholds that `config.class_thresholds` picks.

    Args:
        config: the options of the task.
        state: the decisions and the truth of a split; see `AVVPMetrics`.
        evidence: the scores behind the decisions; see `AVVP.evidence`.
    """
    chosen: dict[str, Any] = {}
    for stream in STREAMS if config.class_thresholds == "both" else ("visual",):
        scores = class_threshold_scores(
            evidence[stream] >= config.limit(stream, "segment"),
            evidence[f"video_{stream}"],
            state[f"true_{stream}"],
            default=config.limit(stream, "video"),
        )
        chosen[f"{stream}_class_thresholds"] = tuple(choose_class_thresholds(scores).tolist())
    return dataclasses.replace(config, **chosen)


def choose_class_thresholds(
    scores: np.ndarray, candidates: Sequence[float] = CANDIDATES
) -> np.ndarray:
    """Return the best candidate of each class, and of equally good ones the highest.

    Scores that differ by less than 1e-9 count as equal.

    Source: CMPAE (CVPR 2023), released code.

    Shape: scores [C, G] of G ascending candidates -> [C].
    """
    rounded = np.round(scores, 9)[:, ::-1]
    return np.asarray(candidates)[::-1][rounded.argmax(axis=1)]


def class_threshold_scores(
    found: np.ndarray,
    video: np.ndarray,
    true: np.ndarray,
    *,
    default: float,
    candidates: Sequence[float] = CANDIDATES,
) -> np.ndarray:
    """Return the event-level F of a stream, with a candidate for one class and the default for all.

    The F is that of the whole split, in percent, not that of the class alone.

    Source: CMPAE (CVPR 2023), released code. Departs: the scores are cached, where that code runs
    the model once per class and candidate.

    Args:
        found: the decisions on segments before a gate.
        video: the probabilities of whole videos, which gate their segments.
        true: the true segments.
        default: the threshold of all other classes.
        candidates: the G thresholds to try.

    Shape: found, true bool [N, T, C]; video [N, C] -> [C, G].
    """
    # The F of each clip and class, and whether it counts, with a closed and with an open gate.
    gated = [class_f(event_counts(maps, true)) for maps in (np.zeros_like(found), found)]

    def terms(threshold: float) -> tuple[np.ndarray, np.ndarray]:
        opened = video >= video.dtype.type(threshold)
        f, counts = (np.where(opened, on, off) for off, on in zip(*gated, strict=True))
        return f, counts.astype(np.int64)

    f, counts = terms(default)
    others = f.sum(axis=1, keepdims=True) - f, counts.sum(axis=1, keepdims=True) - counts  # (N, C)
    out = np.empty((found.shape[2], len(candidates)))
    for at, candidate in enumerate(candidates):
        f, counts = (base + own for base, own in zip(others, terms(candidate), strict=True))
        # A clip without true or predicted events scores 1.
        clips = np.where(counts > 0, f / np.maximum(counts, 1), 1.0)
        out[:, at] = 100 * clips.mean(axis=0)
    return out
