"""Losses of audio-visual video parsing; each returns its terms as {name: mean over the batch}."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from avplatform.models.contracts import Parse, Prediction, at_least_single
from avplatform.tasks.avvp.targets import Kept
from avplatform.tasks.counts import count_loss
from avplatform.tasks.losses import CLAMP, clamped_bce

Terms = dict[str, Tensor]
Pooling = Literal["linear", "attention", "top", "noisy_or"]
ALL_KEPT = Kept()


def han_loss(
    parse: Parse,
    weak: Tensor,
    *,
    audio_smooth: float = 1.0,
    visual_smooth: float = 0.9,
    kept: Kept = ALL_KEPT,
) -> Terms:
    """Return HAN's loss on video labels, which are refined and smoothed per modality.

    Source: HAN (ECCV 2020), section 4.3.

    Shape: weak [B, C].
    """
    audio, visual, both = video_probabilities(parse)
    return {
        "audio": clamped_bce(audio, kept.target("audio", weak, audio_smooth)),
        "visual": clamped_bce(visual, kept.target("visual", weak, visual_smooth)),
        "global": clamped_bce(both, kept.global_target(weak)),
    }


def valor_loss(parse: Parse, weak: Tensor, segment_audio: Tensor, segment_visual: Tensor) -> Terms:
    """Return VALOR's loss: the video label on the pooled prediction, pseudo-labels on segments.

    Source: VALOR (NeurIPS 2023), section 4.

    Shape: weak [B, C], segment labels [B, T, C].
    """
    return {
        "global": clamped_bce(video_probabilities(parse)[2], weak),
        "segment_audio": _bce_logits(parse.segment.audio.logit, segment_audio),  # type: ignore[union-attr]
        "segment_visual": _bce_logits(parse.segment.visual.logit, segment_visual),  # type: ignore[union-attr]
    }


def basic_loss(
    parse: Parse,
    *,
    weak: Tensor,
    video_audio: Tensor,
    video_visual: Tensor,
    segment_audio: Tensor,
    segment_visual: Tensor,
    segment_weight: float = 1.0,
    global_term: Literal["once", "twice", "drop"] = "once",
) -> Terms:
    """Return L_basic: terms on video and segments of both modalities, and on the whole clip.

    Source: LEAP (ECCV 2024), Eq. 9. For LEAP the global prediction is a hard OR, which adds a
    constant to the logged loss and no gradient. The released code counts it once; the equation,
    read literally, counts it twice.

    Shape: weak and video labels [B, C], segment labels [B, T, C].
    """
    audio, visual, both = video_probabilities(parse)
    terms = {"audio": clamped_bce(audio, video_audio), "visual": clamped_bce(visual, video_visual)}
    if global_term != "drop":
        terms["global"] = clamped_bce(both, weak) * (2.0 if global_term == "twice" else 1.0)
    for name, prediction, target in (
        ("segment_audio", parse.segment.audio, segment_audio),
        ("segment_visual", parse.segment.visual, segment_visual),
    ):
        terms[name] = segment_weight * clamped_bce(prediction.probability, target)  # type: ignore[union-attr]
    return terms


def multiple_instance_loss(
    parse: Parse,
    weak: Tensor,
    *,
    pooling: Pooling = "linear",
    audio_smooth: float = 1.0,
    visual_smooth: float = 0.9,
    kept: Kept = ALL_KEPT,
) -> Terms:
    """Return the loss of video labels on segments that are pooled over time, and on whole videos.

    The label of a clip says that some of its segments have the class, not which. Its segments are
    therefore pooled before they are compared with it: those of each stream, and those of both
    streams together. The decoder's own video predictions are trained on the same labels, as in
    L_basic. It serves decoders whose segments are not pooled by themselves, such as LEAP.

    Source: ours, with HAN's three terms (ECCV 2020, section 4.3). Departs: LEAP's published code
    repeats the clip's label over all segments, which does not tell when an event happens.

    Shape: weak [B, C].
    """
    audio, visual, _ = video_probabilities(parse)
    segments = [stream.probability for stream in (parse.segment.audio, parse.segment.visual)]  # type: ignore[union-attr]
    heard = kept.target("audio", weak, audio_smooth)
    seen = kept.target("visual", weak, visual_smooth)
    return {
        "audio": clamped_bce(audio, heard),
        "visual": clamped_bce(visual, seen),
        "pooled_audio": clamped_bce(pooled(segments[0], pooling), heard),
        "pooled_visual": clamped_bce(pooled(segments[1], pooling), seen),
        "pooled": clamped_bce(
            pooled(torch.cat(segments, dim=1), pooling), kept.global_target(weak)
        ),
    }


def pooled(probability: Tensor, pooling: Pooling) -> Tensor:
    """Return the probability that a clip has a class, from those of its segments.

    * linear: the mean of the probabilities, weighted by themselves;
    * attention: their mean, weighted by the softmax of their logits over time;
    * top: the mean of the largest tenth and at least three;
    * noisy_or: 1 minus the product of their complements.

    Source: linear is the linear softmax of Wang et al., "A comparison of five multiple instance
    learning pooling functions for sound event detection with weak labeling" (ICASSP 2019).

    Shape: [B, T, C] -> [B, C].
    """
    p = at_least_single(probability)
    if pooling == "linear":
        return p.square().sum(dim=1) / p.sum(dim=1).clamp(min=CLAMP)
    if pooling == "attention":
        return (p.logit(eps=CLAMP).softmax(dim=1) * p).sum(dim=1)
    if pooling == "top":
        count = min(p.shape[1], max(3, p.shape[1] // 10))
        return p.topk(count, dim=1).values.mean(dim=1)
    return 1 - (1 - p).clamp(min=CLAMP).log().sum(dim=1).exp()


def video_probabilities(parse: Parse, *, threshold: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    """Return the video probabilities of audio, visual and the whole clip, each [B, C].

    The probability of the whole clip is the decoder's own if it has one (MMIL). If both streams are
    probabilities (DCH), it is 1 - (1 - a)(1 - v). Otherwise (LEAP) it is the hard OR of both
    thresholded streams, without gradient.

    Source: LEAP (ECCV 2024), Eq. 8.
    """
    audio, visual = _video(parse)
    a, v = audio.probability, visual.probability
    if parse.video.av is not None:
        return a, v, parse.video.av.probability
    if has_soft_global(parse):
        return a, v, 1 - (1 - a) * (1 - v)
    return a, v, global_decision(parse, threshold=threshold).to(a.dtype)


def global_decision(parse: Parse, *, threshold: float = 0.5) -> Tensor:
    """Return the classes of the whole clip, bool [B, C].

    They are the decoder's own decision, or the OR of the decisions on both streams.
    """
    if parse.video.av is not None:
        return parse.video.av.probability >= threshold
    audio, visual = _video(parse)
    return (audio.probability >= threshold) | (visual.probability >= threshold)


def counted_together(parse: Parse) -> list[Tensor]:
    """Return the probabilities of the segments of audio, of visual, and of both together.

    Shape: [B, T, C], [B, T, C] and [B, 2T, C].
    """
    streams = [p.probability for p in (parse.segment.audio, parse.segment.visual)]  # type: ignore[union-attr]
    return [*streams, torch.cat(streams, dim=1)]


def with_counts(
    terms: Terms,
    groups: list[Tensor],
    labels: list[Tensor],
    least: Tensor | None,
    *,
    weight: float = 1.0,
    replace: bool = False,
) -> Terms:
    """Add the likelihood of how many segments have a class, for each stream and the whole clip.

    Source: our own design after the idea of BPS; see `avplatform.tasks.counts`.

    Args:
        terms: the terms of the objective.
        groups: what `counted_together` returns.
        labels: which classes are heard, seen, and in the clip, 3 times [B, C].
        least: in how many segments the classes are at least, [B, 3, C]; None: in one.
        weight: weight of the new terms.
        replace: leave out the term on the pooled prediction of the whole clip.
    """
    found = dict(terms)
    if replace:
        for name in ("global", "pooled"):
            found.pop(name, None)
    for at, (name, p, label) in enumerate(
        zip(("audio", "visual", "global"), groups, labels, strict=True)
    ):
        enough = None if least is None else least[:, at]
        found[f"count_{name}"] = weight * count_loss(p, label, enough)
    return found


def weighted(terms: Terms, weights: dict[str, float]) -> Terms:
    """Return terms times the weight of their stream, which is the last word of their names.

    Examples:
        >>> weighted({"segment_audio": 3.0, "pooled": 1.0}, {"audio": 2.0, "pooled": 0.5})
        {'segment_audio': 6.0, 'pooled': 0.5}
    """
    return {name: weights.get(name.rpartition("_")[2], 1.0) * x for name, x in terms.items()}


def has_soft_global(parse: Parse) -> bool:
    """Return whether the prediction of the whole clip has a gradient."""
    return parse.video.av is not None or all(p.kind == "probability" for p in _video(parse))


def _video(parse: Parse) -> tuple[Prediction, Prediction]:
    """Return the video predictions of audio and visual."""
    if parse.video.audio is None or parse.video.visual is None:
        raise ValueError("video parsing needs video predictions of both modalities")
    return parse.video.audio, parse.video.visual


def labels_without_pseudo(
    weak: Tensor,
    segments: int,
    *,
    audio_smooth: float = 1.0,
    visual_smooth: float = 0.9,
    kept: Kept = ALL_KEPT,
) -> dict[str, Tensor]:
    """Return the labels of L_basic from the weak label alone, as the released pipeline does.

    Audio segments repeat the label itself; visual segments repeat the smoothed label. Labels that
    are dropped in a stream are dropped in its segments too.

    Shape: weak [B, C] -> video_audio, video_visual [B, C]; segment_audio, segment_visual [B, T, C].
    """
    visual = kept.target("visual", weak, visual_smooth)
    return {
        "video_audio": kept.target("audio", weak, audio_smooth),
        "video_visual": visual,
        "segment_audio": kept.label("audio", weak)[:, None, :].expand(-1, segments, -1),
        "segment_visual": visual[:, None, :].expand(-1, segments, -1),
    }


def predicted_events(parse: Parse, *, threshold: float = 0.5) -> tuple[Tensor, Tensor]:
    """Return the predicted event maps, gated by the video prediction of their modality.

    They have no gradient.

    Shape: two maps [B, T, C] in {0, 1}.
    """
    maps = []
    for segment, video in (
        (parse.segment.audio, parse.video.audio),
        (parse.segment.visual, parse.video.visual),
    ):
        p, whole = segment.probability.detach(), video.probability.detach()  # type: ignore[union-attr]
        maps.append((p >= threshold).to(p.dtype) * (whole >= threshold).to(p.dtype)[:, None, :])
    return maps[0], maps[1]


def _bce_logits(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype))


def as_target(labels: Tensor, like: Tensor) -> Tensor:
    """Return labels in the precision of the predictions, at least single.

    With lower precision, smoothed labels would be rounded before the loss is computed.
    """
    return labels.to(at_least_single(like).dtype)
