"""The decision of models without training: an event where both streams name the same one."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from avplatform.models.contracts import Parse


class Agreement(NamedTuple):
    """Where both streams name the same class, and what is decided.

    Shape: agree bool [B, T]; label int [B, T], background where they do not agree; first int [B],
    the class of the first segment on which they agree, or background if there is none.
    """

    agree: Tensor
    label: Tensor
    first: Tensor


def agreement(
    audio: Tensor,
    visual: Tensor,
    background: int,
    *,
    clip_class: Literal["none", "first"] = "none",
    equal_scores: Literal["background", "first"] = "background",
) -> Agreement:
    """Decide for the class that scores best in both streams, and for background elsewhere.

    The first of equal scores is the best. Where all scores of a stream are equal, as for a vector
    of zeros, it names no class.

    Source: OV-AVEL (CVPR 2025), the baseline without training.

    Departs: with "first", as released, all segments on which the streams agree get the class of the
    first of them, even where they agree on another one. With "none", as the paper describes it,
    each segment keeps its own class. Where all scores are equal, the released code takes the first
    class.

    Args:
        audio: scores of the classes; the last may be that of background.
        visual: the same.
        background: the index of background; it may be the number of classes.
        clip_class: what agreeing segments of a clip get: their own class, or the first one.
        equal_scores: what a stream names whose scores are all equal: nothing, or the first class.

    Shape: two [B, T, C].

    Examples:
        >>> heard = torch.tensor([[[2.0, 1.0], [0.0, 1.0], [3.0, 2.0]]])
        >>> seen = torch.tensor([[[1.0, 0.0], [0.0, 3.0], [0.0, 1.0]]])
        >>> agreement(heard, seen, 2).label, agreement(heard, seen, 2, clip_class="first").label
        (tensor([[0, 1, 2]]), tensor([[0, 0, 2]]))
    """
    heard, seen = audio.argmax(dim=-1), visual.argmax(dim=-1)  # (B, T)
    agree = heard == seen
    if equal_scores == "background":
        agree = agree & ~all_equal(audio) & ~all_equal(visual)
    at = agree.int().argmax(dim=1, keepdim=True)  # the first one
    first = torch.where(agree.any(dim=1), heard.gather(1, at).squeeze(1), background)
    label = first[:, None] if clip_class == "first" else heard
    return Agreement(agree, torch.where(agree, label, background), first)


def all_equal(scores: Tensor) -> Tensor:
    """Return where a segment has the same score for all classes: [B, T, C] -> bool [B, T]."""
    return scores.amax(dim=-1) == scores.amin(dim=-1)


def agreement_of(parse: Parse, background: int, **options: Any) -> Agreement:
    """Decide by the streams of a parse, with the options of `agreement`.

    Raises:
        ValueError: the decoder gives no scores of both streams.
    """
    audio, visual = parse.segment.audio, parse.segment.visual
    if audio is None or visual is None:
        raise ValueError("the decision 'agreement' needs scores of both streams, as of cosine")
    return agreement(audio.values, visual.values, background, **options)
