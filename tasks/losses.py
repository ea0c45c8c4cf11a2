"""Losses that several tasks share; all compute in at least single precision."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from avplatform.models.contracts import Parse, at_least_single

CLAMP = 1e-7
EmptyPair = Literal["zero", "one", "ignore"]
SMOOTHING = 0.1
"""Share of the target that the other segments of a clip have together."""


def clamped_bce(probability: Tensor, target: Tensor) -> Tensor:
    """Return the binary cross entropy of probabilities that are clamped to [1e-7, 1 - 1e-7].

    The gradient is zero where the clamp acts.

    Shape: two tensors of equal shape -> scalar, the mean over all entries.
    """
    return binary_cross_entropy(at_least_single(probability).clamp(CLAMP, 1 - CLAMP), target)


def binary_cross_entropy(probability: Tensor, target: Tensor) -> Tensor:
    """Return the binary cross entropy of probabilities; it is NaN if one of them is NaN.

    Departs: torch's own function raises for NaN on a CPU and ends the program on a GPU. A NaN loss
    lets a run skip the step or stop.

    Shape: two tensors of equal shape -> scalar, the mean over all entries.
    """
    unknown = probability.isnan()
    loss = F.binary_cross_entropy(
        probability.masked_fill(unknown, 0.5), target.to(probability.dtype)
    )
    return loss * torch.where(unknown.any(), math.nan, 1.0)


def token_losses(parse: Parse, weight: float = 1.0) -> dict[str, Tensor]:
    """Return the losses that make each class token recognisable as its class (MGN).

    They read the tokens as learned, not the clips. There are none for a parse without scores of
    tokens, or with a weight of 0.

    Source: MGN (NeurIPS 2022), released code.
    """
    terms = {}
    for stream in ("audio", "visual") if weight else ():
        if (scores := parse.aux.get(f"token_scores_{stream}")) is not None:
            classes = torch.arange(len(scores), device=scores.device)
            terms[f"class_{stream}"] = weight * F.cross_entropy(scores, classes)
    return terms


def segment_similarity(audio: Tensor, visual: Tensor) -> Tensor:
    """Return the cosine similarity of all pairs of an audio and a visual segment.

    Source: LEAP (ECCV 2024), Eq. 10; norms are at least 1e-12.

    Shape: audio and visual [B, T, D] -> [B, T, T], rows audio.
    """
    audio, visual = (F.normalize(at_least_single(x), dim=-1, eps=1e-12) for x in (audio, visual))
    return audio @ visual.transpose(-1, -2)


def own_segment(segments: int, like: Tensor, *, smoothing: float = SMOOTHING) -> Tensor:
    """Return the target of each audio segment: the visual segment of its second, smoothed.

    Shape: [T, T], with 1 - smoothing on the diagonal; rows add up to 1 from two segments on.
    """
    same = torch.eye(segments, dtype=like.dtype, device=like.device)
    return (1 - smoothing) * same + smoothing / max(1, segments - 1) * (1 - same)


def jomold_contrast(
    audio: Tensor,
    visual: Tensor,
    *,
    temperature: float = 0.2,
    smoothing: float = SMOOTHING,
    rows: Tensor | None = None,
) -> Tensor:
    """Return JoMoLD's contrast: minus the logarithm of the probability of the smoothed target.

    Source: JoMoLD (ECCV 2022), released code, where both streams are encoded. Its comment names MA,
    whose formula has the sum over segments outside the logarithm.

    Shape: audio and visual [B, T, D]; rows bool [B, T], the audio segments that are compared, all
    if None -> scalar, the mean over all audio segments, of which those left out add nothing.
    """
    logits = segment_similarity(audio, visual) / temperature  # (B, T, T)
    loss = jomold_rows(logits, smoothing=smoothing)
    return (loss if rows is None else loss * rows).mean()


def jomold_rows(logits: Tensor, *, smoothing: float = SMOOTHING) -> Tensor:
    """Return JoMoLD's contrast of each audio segment, from similarities over a temperature.

    Shape: [B, T, T], rows audio and columns visual -> [B, T].
    """
    target = own_segment(logits.shape[-1], logits, smoothing=smoothing)
    return -(target.log() + logits.log_softmax(dim=-1)).logsumexp(dim=-1)


def event_iou(
    audio_events: Tensor, visual_events: Tensor, *, empty_pair: EmptyPair = "zero"
) -> tuple[Tensor, Tensor]:
    """Return the EIoU, the overlap of the event sets of all pairs of an audio and a visual segment.

    Source: LEAP (ECCV 2024), section 3.4. For two empty sets it is 0/0: `empty_pair` "zero" and
    "ignore" set it to 0, "one" to 1.

    Shape: event maps [B, T, C] in {0, 1} -> EIoU [B, T, T] and valid [B, T, T], which is False
    where both sets are empty.
    """
    audio_events, visual_events = audio_events.double(), visual_events.double()
    shared = audio_events @ visual_events.transpose(-1, -2)
    union = audio_events.sum(-1).unsqueeze(-1) + visual_events.sum(-1).unsqueeze(-2) - shared
    valid = union > 0
    empty = 1.0 if empty_pair == "one" else 0.0
    return torch.where(valid, shared / union.clamp(min=1), torch.full_like(shared, empty)), valid


def released_target(audio_events: Tensor, visual_events: Tensor, *, eps: float = 0.01) -> Tensor:
    """Return the similarity target of LEAP's released code.

    It is x / (1 + x) + eps with x = |A and V| / (size of the clip's largest event set).

    Departs: from the EIoU of the paper in the denominator (one per clip instead of the union of
    each pair), in the squashing and in eps.

    Shape: event maps [B, T, C] -> [B, T, T].
    """
    audio_events, visual_events = audio_events.double(), visual_events.double()
    shared = audio_events @ visual_events.transpose(-1, -2)
    largest = torch.maximum(audio_events.sum(-1).amax(-1), visual_events.sum(-1).amax(-1))  # (B,)
    ratio = shared / largest.clamp(min=1e-8)[:, None, None]
    return ratio / (1 + ratio) + eps


def similarity_loss(
    audio: Tensor,
    visual: Tensor,
    audio_events: Tensor,
    visual_events: Tensor,
    *,
    form: Literal["official", "paper"] = "official",
    eps: float = 0.01,
    empty_pair: EmptyPair = "zero",
) -> Tensor:
    """Return L_avss, which pulls the similarity of segments towards the overlap of their events.

    Source: LEAP (ECCV 2024), Eq. 11 ("paper"); the released code rectifies the similarity and uses
    another target ("official").

    Shape: features [B, T, D], event maps [B, T, C] -> scalar, the mean over clips and pairs
    ("ignore": over valid pairs).
    """
    similarity = segment_similarity(audio, visual)
    if form == "official":
        target = released_target(audio_events, visual_events, eps=eps).to(similarity.dtype)
        return (similarity.relu() - target).square().mean()
    target, valid = event_iou(audio_events, visual_events, empty_pair=empty_pair)
    squared = (similarity - target.to(similarity.dtype)).square()
    if empty_pair == "ignore":
        return (squared * valid).sum() / valid.sum().clamp(min=1)
    return squared.mean()
