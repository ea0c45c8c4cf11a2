"""Mutual learning of a joint branch and two modalities, each surer of some clips than the other."""

from __future__ import annotations

import torch
from torch import Tensor

from avplatform.models.contracts import Parse, at_least_single
from avplatform.tasks.losses import CLAMP


def mutual_learning_of(
    parse: Parse, weak: Tensor, *, batch: int, weight: float, floor: float
) -> dict[str, Tensor]:
    """Return the term "mutual" of a parse with uncertainties; without them, no term.

    Args:
        parse: the predictions.
        weak: the labels of the clips.
        batch: the position of the batch in its epoch, from 0; odd ones train the joint branch.
        weight: weight of the term.
        floor: see `mutual_learning`.

    Shape: weak [B, C].
    """
    if "uncertainty_av" not in parse.aux:
        return {}
    streams = (parse.video.av, parse.video.audio, parse.video.visual)
    joint, audio, visual = (p.probability for p in streams)  # type: ignore[union-attr]
    names = ("audio", "visual", "av")
    unsure = {name: at_least_single(parse.aux[f"uncertainty_{name}"]) for name in names}
    loss = mutual_learning(
        joint, audio, visual, unsure, weak.to(joint.dtype), odd=batch % 2 == 1, floor=floor
    )
    return {"mutual": weight * loss}


def mutual_learning(
    joint: Tensor,
    audio: Tensor,
    visual: Tensor,
    unsure: dict[str, Tensor],
    weak: Tensor,
    *,
    odd: bool,
    floor: float = 0.9,
) -> Tensor:
    """Return CMPAE's mutual learning: squared differences between the joint branch and modalities.

    A class that the clip has is compared with the modality that scores it higher, any other class
    with the mean of both. In odd batches the joint branch moves, in even ones the modalities; the
    other side has no gradient. Differences weigh by the certainty of the modalities, and by the
    uncertainty of the joint branch (odd) or its certainty (even).

    Source: CMPAE (CVPR 2023), released code. As there, uncertainties do have a gradient, and that
    of the joint branch counts as at least `floor`; 0: as it is.

    Shape: joint, audio, visual, weak [B, C]; unsure: audio and visual [B, C], av [B] -> scalar.
    """
    joint, audio, visual = (p.clamp(CLAMP, 1 - CLAMP) for p in (joint, audio, visual))
    louder = audio >= visual
    best = torch.where(louder, audio, visual)
    best_unsure = torch.where(louder, unsure["audio"], unsure["visual"])
    mean, mean_unsure = (audio + visual) / 2, (unsure["audio"] + unsure["visual"]) / 2
    whole = unsure["av"].clamp(min=floor)[:, None]  # (B, 1)
    if odd:
        weight, best, mean = whole, best.detach(), mean.detach()
    else:
        weight, joint = 1 - whole, joint.detach()
    present = weak * (1 - best_unsure) * (joint - best).square()
    absent = (1 - weak) * (1 - mean_unsure) * (joint - mean).square()
    return (weight * (present + absent)).mean()
