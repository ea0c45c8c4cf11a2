"""Losses of audio-visual event localization, with terms as {name: mean over the batch}.

Shape: segment labels [B, T] and video labels [B] as class indices; one-hot targets [B, T, C] and
[B, C]. The last of C classes is background; decoders without background predict C - 1 classes.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from avplatform.models.contracts import Parse, Prediction, at_least_single
from avplatform.tasks.losses import binary_cross_entropy, clamped_bce

Terms = dict[str, Tensor]
Pool = Literal["max", "mean", "top4"]


def soft_margin(probability: Tensor, target: Tensor) -> Tensor:
    """Return the multi-label soft margin loss of probabilities, which it squashes once more.

    Source: AVE (ECCV 2018), released code.

    Shape: two tensors [..., C] -> scalar, the mean over all entries.
    """
    target = target.to(probability.dtype)
    return -(target * F.logsigmoid(probability) + (1 - target) * F.logsigmoid(-probability)).mean()


def head_full_loss(parse: Parse, segment: Tensor, *, kind: Literal["ce", "soft_margin"]) -> Terms:
    """Return the loss of a softmax head on every segment, whose labels are [B, T]."""
    prediction = joint(parse, "segment")
    if kind == "ce":
        return {"segment": F.cross_entropy(prediction.logit.flatten(0, 1), segment.flatten())}
    classes = prediction.values.shape[-1]
    return {"segment": soft_margin(prediction.probability, F.one_hot(segment, classes))}


def head_event_loss(parse: Parse, events: Tensor, *, kind: Literal["ce", "soft_margin"]) -> Terms:
    """Return the loss of a softmax head without background: a segment without event adds nothing.

    Shape: events [B, T, C], one-hot, or zeros where a segment has no event.
    """
    prediction = joint(parse, "segment")
    if kind == "soft_margin":
        return {"segment": soft_margin(prediction.probability, events)}
    log_probability = prediction.logit.log_softmax(dim=-1)
    return {"segment": -(events.to(log_probability.dtype) * log_probability).sum(dim=-1).mean()}


def head_weak_loss(
    parse: Parse, video_target: Tensor, *, kind: Literal["ce", "soft_margin", "bce"]
) -> Terms:
    """Return the loss of a softmax head on its video prediction.

    Shape: video_target [B, C]; each row sums to 1.
    """
    prediction = joint(parse, "video")
    if kind == "bce":  # PSP applies it to softmax probabilities
        return {"video": binary_cross_entropy(prediction.probability, video_target)}
    if kind == "ce":
        log_probability = prediction.logit.log_softmax(dim=-1)
        per_clip = (video_target.to(log_probability.dtype) * log_probability).sum(dim=-1)
        return {"video": -per_clip.mean()}
    return {"video": soft_margin(prediction.probability, video_target)}


def leap_full_loss(
    parse: Parse,
    segment: Tensor,
    *,
    segment_loss: Literal["ce", "bce", "per_modality"],
    video_loss: Literal["combined", "per_modality", "off"],
) -> Terms:
    """Return the loss of LEAP on the label of each segment, and on the labels of the video.

    The labels of the video are those of its segments, background included.

    Shape: segment [B, T].
    """
    prediction = joint(parse, "segment")
    target = F.one_hot(segment, prediction.values.shape[-1]).to(prediction.probability.dtype)
    if segment_loss == "ce":
        terms = {"segment": F.cross_entropy(prediction.logit.flatten(0, 1), segment.flatten())}
    elif segment_loss == "bce":
        terms = {"segment": bce(prediction, target)}
    else:
        names = ("audio", "visual")
        terms = {f"segment_{name}": bce(getattr(parse.segment, name), target) for name in names}
    present = target.amax(dim=1)
    if video_loss == "combined":
        terms["video"] = bce(joint(parse, "video"), present)
    elif video_loss == "per_modality":
        for name in ("audio", "visual"):
            terms[f"video_{name}"] = bce(getattr(parse.video, name), present)
    return terms


def leap_weak_loss(parse: Parse, video_target: Tensor, *, pool: Pool = "max") -> Terms:
    """Return the loss of LEAP on the video prediction and on the pooled segment probabilities.

    Shape: video_target [B, C].
    """
    return {
        "video": bce(joint(parse, "video"), video_target),
        "segment": pooled_bce(joint(parse, "segment"), video_target, pool=pool),
    }


def relevance_loss(parse: Parse, segment: Tensor, video: Tensor) -> Terms:
    """Return the loss of LEAP with the texts of the events and a relevance per segment.

    A clip without an event contributes nothing to the term on the video.

    Shape: segment [B, T], video [B].
    """
    logits, video_logits = joint(parse, "segment").logit, joint(parse, "video").logit
    background = logits.shape[-1]
    in_event, has_event = segment != background, video != background
    target = F.one_hot(segment, background + 1)[..., :background].to(logits.dtype)
    per_clip = F.cross_entropy(video_logits, video.clamp(max=background - 1), reduction="none")
    relevance = relevance_logit(parse)
    return {
        "relevance": F.binary_cross_entropy_with_logits(relevance, in_event.to(logits.dtype)),
        "video": (per_clip * has_event).mean(),
        "segment": F.binary_cross_entropy_with_logits(logits, target),
    }


def relevance_logit(parse: Parse) -> Tensor:
    """Return the relevance of each segment as a logit [B, T].

    It is the decoder's own, or the log-sum-exp of the class logits.
    """
    if parse.relevance is not None:
        return parse.relevance.logit
    return joint(parse, "segment").logit.logsumexp(dim=-1)


def cmbs_full_loss(
    parse: Parse, segment: Tensor, *, gate_loss: Literal["official", "plain"]
) -> Terms:
    """Return CMBS's four terms: relevance, gate, event, and class scores of the gated queries.

    Source: CMBS (CVPR 2022), section 3.4.

    Departs: the released code squashes the gate, a probability, once more ("official"); "plain"
    does not. As in the released code, a clip without an event is trained as class 0.
    """
    relevance = parse.relevance.logit  # type: ignore[union-attr]
    logits = joint(parse, "video").logit
    background = logits.shape[-1]
    event = (segment != background).to(relevance.dtype)
    return {
        "relevance": F.binary_cross_entropy_with_logits(relevance, event),
        "gate": gate_term(parse.aux["gate"], segment, kind=gate_loss, background=background),
        "event": F.cross_entropy(logits, event_class_target(segment, background)),
        "class_scores": class_score_loss(parse.aux["class_scores"], segment, background=background),
    }


def gate_term(
    gate: Tensor, segment: Tensor, *, kind: Literal["official", "plain"], background: int
) -> Tensor:
    """Return CMBS's loss on its gate, the probabilities [B, T]; "official" squashes them again."""
    gate = at_least_single(gate)
    event = (segment != background).to(gate.dtype)
    if kind == "official":
        return F.binary_cross_entropy_with_logits(gate, event)
    return clamped_bce(gate, event)


def class_score_loss(scores: Tensor, segment: Tensor, *, background: int) -> Tensor:
    """Return CMBS's loss on the class scores [B, C] of its gated queries."""
    return F.cross_entropy(at_least_single(scores), event_class_target(segment, background))


def mmil_full_loss(parse: Parse, segment: Tensor) -> Terms:
    """Return the loss of MMIL on the product of both streams, over the events.

    Shape: segment [B, T].
    """
    pair = joint(parse, "segment").probability
    events = pair.shape[-1]
    target = F.one_hot(segment, events + 1)[..., :events].to(pair.dtype)
    return {
        "segment": clamped_bce(pair, target),
        "video": clamped_bce(joint(parse, "video").probability, target.amax(dim=1)),
    }


def mmil_weak_loss(parse: Parse, video_target: Tensor) -> Terms:
    """Return the loss of MMIL on the pooled prediction and on the largest product over time.

    Shape: video_target [B, C], of which background is not read.
    """
    pair = joint(parse, "segment").probability
    target = video_target[:, : pair.shape[-1]]
    return {
        "video": clamped_bce(joint(parse, "video").probability, target),
        "segment": clamped_bce(pair.amax(dim=1), target),
    }


def group_loss(parse: Parse, segment: Tensor, video_target: Tensor | None = None) -> Terms:
    """Return the loss of MGN on the clip: audio, visual and both; and on segments if known.

    An event is heard and seen, so the labels of both streams are the same and not smoothed.

    Shape: segment [B, T]; video_target [B, C] for weak supervision, else None.
    """
    pair = joint(parse, "segment").probability
    events, terms = pair.shape[-1], {}
    if video_target is None:
        target = F.one_hot(segment, events + 1)[..., :events].to(pair.dtype)
        terms["segment"] = clamped_bce(pair, target)
        video_target = target.amax(dim=1)
    streams = {"audio": parse.video.audio, "visual": parse.video.visual, "video": parse.video.av}
    for name, prediction in streams.items():
        terms[name] = clamped_bce(prediction.probability, video_target)  # type: ignore[union-attr]
    return terms


def pair_similarity_loss(similarity: Tensor, target: Tensor) -> Tensor:
    """Return AVPS, the loss of rectified and normalised similarities against a soft target.

    The similarities of a clip are divided by their sum. A clip whose similarities are all negative
    has zeros.

    Source: PSP (CVPR 2021), Eq. 7.

    Shape: two [B, T] -> scalar.
    """
    rectified = similarity.relu()
    shares = rectified / (rectified.sum(dim=-1, keepdim=True) + 1e-8)
    return (shares - target.to(shares.dtype)).square().mean()


def pair_target(segment: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return PSP's soft target: 1/n on the n segments of the event, 1/T for a background clip.

    Shape: [B, T] -> [B, T].
    """
    chosen = (segment == segment.amin(dim=1, keepdim=True)).to(dtype)
    return chosen / chosen.sum(dim=1, keepdim=True)


class StalePairTargets:
    """PSP's soft targets as its published loader makes them, with values of earlier batches.

    A segment outside the event keeps the value that an earlier batch wrote at its position. Each
    process has its own `kept`.

    Source: PSP (CVPR 2021), released code.
    """

    def __init__(self) -> None:
        self.kept: Tensor | None = None

    def __call__(self, segment: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the targets of the next batch: [B, T] -> [B, T]."""
        target = pair_target(segment, dtype)
        if self.kept is None or len(self.kept) < len(target):
            grown = torch.zeros_like(target)
            if self.kept is not None:
                grown[: len(self.kept)] = self.kept
            self.kept = grown
        stale = self.kept[: len(target)].to(target)
        self.kept[: len(target)] = torch.where(target > 0, target, stale)
        return self.kept[: len(target)].clone()


def event_class_target(segment: Tensor, background: int) -> Tensor:
    """Return the event class of each clip; for a clip without an event 0, as CMBS's code does.

    Shape: [B, T] -> [B].
    """
    return torch.where(segment == background, 0, segment).amax(dim=1)


def pool_segments(values: Tensor, pool: Pool) -> Tensor:
    """Pool over time by maximum (AVE), mean (PSP) or mean of the four largest (CMBS).

    Shape: [B, T, C] -> [B, C].
    """
    if pool == "mean":
        return values.mean(dim=1)
    if pool == "top4":
        return values.topk(min(4, values.shape[1]), dim=1).values.mean(dim=1)
    return values.amax(dim=1)


def pooled_bce(prediction: Prediction, target: Tensor, *, pool: Pool) -> Tensor:
    """Return the binary cross entropy of probabilities that are pooled over time.

    For logits, everything is computed in logarithms, which have a gradient even where a probability
    is 0 or 1 in floating point. A clamp has none there: LEAP's scores, which grow with a learned
    gain, can leave its range in the first steps and would never return.

    Shape: segments [B, T, C], target [B, C] -> scalar.
    """
    if prediction.kind != "logit":
        return clamped_bce(pool_segments(prediction.probability, pool), target)
    logits = prediction.logit
    if pool == "max":
        logits = logits.amax(dim=1, keepdim=True)
    elif pool == "top4":
        logits = logits.topk(min(4, logits.shape[1]), dim=1).values
    count = math.log(logits.shape[1])
    log_present = F.logsigmoid(logits).logsumexp(dim=1) - count  # log of the mean probability
    log_absent = F.logsigmoid(-logits).logsumexp(dim=1) - count
    target = target.to(logits.dtype)
    return -(target * log_present + (1 - target) * log_absent).mean()


def mil_target(video: Tensor, dtype: torch.dtype, classes: int) -> Tensor:
    """Return the video label one-hot: [B] -> [B, C]."""
    return F.one_hot(video, classes).to(dtype)


def proportion_target(segment: Tensor, dtype: torch.dtype, classes: int) -> Tensor:
    """Return PSP's "normalised" video label, the share of segments of each label.

    It tells the duration of the event, so it is stronger supervision than a video label.

    Shape: [B, T] -> [B, C].
    """
    return F.one_hot(segment, classes).to(dtype).mean(dim=1)


def bce(prediction: Prediction, target: Tensor) -> Tensor:
    """Return the binary cross entropy, computed from logits if the prediction has them."""
    if prediction.kind == "logit":
        logits = prediction.logit
        return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype))
    return clamped_bce(prediction.probability, target)


def joint(parse: Parse, level: Literal["segment", "video"]) -> Prediction:
    """Return the audio-visual prediction of the segments or of the video.

    Raises:
        ValueError: the decoder gives none.
    """
    prediction = getattr(parse, level).av
    if prediction is None:
        raise ValueError(
            f"event localization needs audio-visual {level} predictions; the decoder gives none"
        )
    return prediction
