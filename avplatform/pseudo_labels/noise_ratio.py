"""Noise ratios: how many labels of each class do not hold in a modality, by a trained model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

AUDIO_THRESHOLD, VISUAL_THRESHOLD = 0.6, 1.8
AUDIO_TARGET, VISUAL_TARGET = 1.0, 0.95


def class_means(probability: Tensor, batches: Sequence[Tensor]) -> Tensor:
    """Return the mean probability of each class: the mean over the batches of their means.

    A short last batch counts as much as a full one.

    Shape: probability [N, C], batches of positions -> [C].
    """
    return torch.stack([probability[index].mean(dim=0) for index in batches]).mean(dim=0)


def noise_ratio(
    probability: Tensor,
    weak: Tensor,
    mean: Tensor,
    *,
    target: float,
    threshold: float,
    counts: Tensor | None = None,
) -> np.ndarray:
    """Return the share of a class's labels whose probability is low for the class.

    A label is counted as noise if `target * probability / mean` is below the threshold. The mean is
    over clips with and without the class, so the threshold is relative to how often it occurs.

    Source: JoMoLD (ECCV 2022), released code, which multiplies by the smoothed target of a label:
    1 for audio and 0.95 for visual. Departs: it divides by the occurrences in the csv file, where a
    class may stand twice in a row (`counts`); by default we divide by the labels.

    Args:
        probability: video probabilities of one modality, [N, C].
        weak: the video labels, [N, C].
        mean: the mean probability of each class, [C]; see `class_means`.
        target: the target of a positive label.
        threshold: the ratio to the mean below which a label is noise.
        counts: the number of labels of each class, [C].

    Shape: float64 [C]; NaN for a class without labels.
    """
    noisy = (weak.bool() & (probability * target / mean < threshold)).sum(dim=0)
    total = weak.sum(dim=0) if counts is None else counts
    return (noisy.double() / total.double()).numpy(force=True)
