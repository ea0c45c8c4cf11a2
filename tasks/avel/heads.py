"""Heads of event localization: loss, decision and evidence for each kind of prediction.

Decoders give several kinds of predictions, and each kind has a head here. The tags of a parse say
which head reads it, so third-party decoders are served too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from avplatform.models.contracts import Parse, at_least_single
from avplatform.tasks.agreement import agreement_of, all_equal
from avplatform.tasks.avel import losses
from avplatform.tasks.avel.config import AVELConfig
from avplatform.tasks.avel.head import Head
from avplatform.tasks.avel.losses import joint
from avplatform.tasks.losses import token_losses


class EvidenceHead(Head):
    """Reads the evidence of both streams and of a joint branch, from the evidence decoder.

    Source: ours; CMPAE (CVPR 2023) has released nothing for event localization. An event is in
    both streams, so neither visual labels are smoothed nor labels of a modality dropped.
    """

    @staticmethod
    def reads(parse: Parse, background: int) -> bool:
        """Return whether the joint branch has an uncertainty."""
        return "uncertainty_av" in parse.aux

    def loss(self, parse: Parse, segment: Tensor, video: Tensor) -> losses.Terms:
        """Return terms on both streams and the joint branch, and on the segments (full)."""
        target = losses.mil_target(video, self.dtype(parse), self.background + 1)
        if self.weak:
            target = self.video_target(parse, segment, video)
        weights = zip(("audio", "visual", "av"), self.config.evidence_weights, strict=True)
        terms = {
            name: weight * losses.bce(getattr(parse.video, name), target[:, : self.background])
            for name, weight in weights
        }
        if not self.weak:
            events = one_hot_events(segment, self.background).to(target.dtype)
            terms["segment"] = losses.bce(joint(parse, "segment"), events)
        return terms

    def decide(self, parse: Parse) -> Tensor:
        """Return the clip's best event where both streams and the clip reach their thresholds."""
        label, scores = self._scores(parse)
        found = torch.stack([score >= limit for score, limit in scores]).all(dim=0)
        return torch.where(found, label, self.background)

    def best_event(self, parse: Parse) -> tuple[Tensor, Tensor]:
        """Return the clip's best event, and the lowest of its scores.

        Each score is stretched so that its threshold becomes 0.5.
        """
        label, scores = self._scores(parse)
        stretched = [
            torch.where(x < limit, x / (2 * limit), 0.5 + (x - limit) / (2 * (1 - limit)))
            for x, limit in scores
        ]
        return label, torch.stack(stretched).amin(dim=0)

    def _scores(self, parse: Parse) -> tuple[Tensor, list[tuple[Tensor, float]]]:
        """Return the best event of the clip, and its scores [B, T] with their thresholds."""
        config, segment, video = self.config, parse.segment, parse.video
        whole, label = (video.audio.probability * video.visual.probability).max(dim=-1)  # type: ignore[union-attr]
        streams = [p.probability for p in (segment.audio, segment.visual)]  # type: ignore[union-attr]
        label = label[:, None].expand(streams[0].shape[:2])  # (B, T)
        own = [p.gather(-1, label[..., None]).squeeze(-1) for p in streams]
        clip = whole[:, None].expand(label.shape), config.video_threshold
        return label, [*((score, config.segment_threshold) for score in own), clip]


class SoftmaxHead(Head):
    """Reads logits of events and background that exclude each other, from direct heads."""

    @staticmethod
    def reads(parse: Parse, background: int) -> bool:
        """Return whether the segments are logits under a softmax."""
        return not parse.queried_by_labels and joint(parse, "segment").activation == "softmax"

    def loss(self, parse: Parse, segment: Tensor, video: Tensor) -> losses.Terms:
        """Return one term, on the segments or on the video."""
        kind = self.config.head_loss
        if self.weak:
            return losses.head_weak_loss(parse, self.video_target(parse, segment, video), kind=kind)
        return losses.head_full_loss(parse, segment, kind=kind)  # type: ignore[arg-type]

    def decide(self, parse: Parse) -> Tensor:
        """Return the best label."""
        return self.scores(parse).argmax(dim=-1)

    def best_event(self, parse: Parse) -> tuple[Tensor, Tensor]:
        """Return the best event against background."""
        prediction = joint(parse, "segment")
        return self.against_background(at_least_single(prediction.values), prediction)


class CosineHead(SoftmaxHead):
    """Reads the same as `SoftmaxHead`, and the scores of both streams, from the cosine decoder.

    With `label_set` "events" background has no score, so only the decision agreement finds it, and
    segments without event teach nothing.

    Departs: where all scores of a segment are equal, as for a vector of zeros, it is background.
    The released code decides for the first class (`equal_scores` "first").
    """

    @staticmethod
    def reads(parse: Parse, background: int) -> bool:
        """Return whether the streams have scores beside the joint ones."""
        both = parse.segment.audio is not None and parse.segment.visual is not None
        return both and SoftmaxHead.reads(parse, background)

    def loss(self, parse: Parse, segment: Tensor, video: Tensor) -> losses.Terms:
        """Return one term, on the segments or on the video."""
        if joint(parse, "segment").values.shape[-1] > self.background:
            return super().loss(parse, segment, video)
        kind = self.config.head_loss
        if self.weak:
            target = self.video_target(parse, segment, video)[:, : self.background]
            return losses.head_weak_loss(parse, target, kind=kind)
        events = one_hot_events(segment, self.background)
        return losses.head_event_loss(parse, events, kind=kind)  # type: ignore[arg-type]

    def scores(self, parse: Parse) -> Tensor:
        """Return the joint scores, with that of background raised where all are equal."""
        scores = super().scores(parse)
        if self.config.equal_scores == "first":
            return scores
        nothing = torch.arange(scores.shape[-1], device=scores.device) == self.background
        return scores + (all_equal(scores)[..., None] & nothing)

    def decide(self, parse: Parse) -> Tensor:
        """Return the best label, of the joint scores or where both streams agree."""
        if self.config.decision != "agreement":
            return super().decide(parse)
        rule = {name: getattr(self.config, name) for name in ("clip_class", "equal_scores")}
        return agreement_of(parse, self.background, **rule).label

    def best_event(self, parse: Parse) -> tuple[Tensor, Tensor]:
        """Return the best event against background, or by the lower of its two cosines."""
        prediction = joint(parse, "segment")
        if prediction.values.shape[-1] > self.background:
            return super().best_event(parse)
        label = prediction.values.argmax(dim=-1)
        streams = (parse.segment.audio, parse.segment.visual)
        own = [x.logit.gather(-1, label[..., None]).squeeze(-1) for x in streams]  # type: ignore[union-attr]
        return label, torch.minimum(*own).sigmoid()


class PairHead(Head):
    """Reads probabilities of events, products of both streams without background, from MMIL."""

    @staticmethod
    def reads(parse: Parse, background: int) -> bool:
        """Return whether the segments are probabilities."""
        return not parse.queried_by_labels and joint(parse, "segment").kind == "probability"

    def loss(self, parse: Parse, segment: Tensor, video: Tensor) -> losses.Terms:
        """Return terms on the segments and on the pooled video prediction."""
        if self.weak:
            return losses.mmil_weak_loss(parse, self.video_target(parse, segment, video))
        return losses.mmil_full_loss(parse, segment)

    def decide(self, parse: Parse) -> Tensor:
        """Return the best event where its probability is at least 0.5."""
        label, best = self.best_event(parse)
        return torch.where(best >= 0.5, label, self.background)

    def best_event(self, parse: Parse) -> tuple[Tensor, Tensor]:
        """Return the most probable event."""
        best, label = joint(parse, "segment").probability.max(dim=-1)
        return label, best


class GroupHead(PairHead):
    """Reads the same as `PairHead`, and scores of class tokens, from MGN's decoder."""

    @staticmethod
    def reads(parse: Parse, background: int) -> bool:
        """Return whether there are scores of class tokens beside the probabilities of events."""
        return "token_scores_audio" in parse.aux and PairHead.reads(parse, background)

    def loss(self, parse: Parse, segment: Tensor, video: Tensor) -> losses.Terms:
        """Return terms on the clip, its streams and the class tokens, and on segments if known."""
        target = (
            self.video_target(parse, segment, video)[:, : self.background] if self.weak else None
        )
        terms = losses.group_loss(parse, segment, target)
        return terms | token_losses(parse, self.config.token_weight)


class LabelHead(Head):
    """Reads independent scores of the texts of events and background, from LEAP."""

    @staticmethod
    def reads(parse: Parse, background: int) -> bool:
        """Return whether background has a score."""
        return joint(parse, "segment").values.shape[-1] > background

    def loss(self, parse: Parse, segment: Tensor, video: Tensor) -> losses.Terms:
        """Return terms on the segments and on the video."""
        config = self.config
        if self.weak:
            target = self.video_target(parse, segment, video)
            return losses.leap_weak_loss(parse, target, pool=config.weak_pool)
        return losses.leap_full_loss(
            parse, segment, segment_loss=config.segment_loss, video_loss=config.video_loss
        )

    def decide(self, parse: Parse) -> Tensor:
        """Return the best label; for weak supervision see `weak_decision`."""
        scores, video = self.scores(parse), joint(parse, "video")
        if self.weak:
            return weak_decision(scores, video.values)
        if self.config.decision == "masked":
            scores = scores.masked_fill((video.probability < 0.5)[:, None, :], -torch.inf)
            nothing = torch.isinf(scores).all(dim=-1)
            return torch.where(nothing, self.background, scores.argmax(dim=-1))
        return scores.argmax(dim=-1)

    def best_event(self, parse: Parse) -> tuple[Tensor, Tensor]:
        """Return the best event of the segment, or of the clip (weak), against background."""
        prediction = joint(parse, "segment")
        scores = at_least_single(prediction.values)
        label = None
        if self.weak:
            best = joint(parse, "video").values[..., : self.background].argmax(dim=-1, keepdim=True)
            label = best.expand(scores.shape[:2])
        return self.against_background(scores, prediction, label)

    def probabilities(self, parse: Parse) -> Tensor:
        """Return the softmax of logits trained by cross entropy, else independent probabilities."""
        prediction = joint(parse, "segment")
        if prediction.kind == "logit" and self.config.segment_loss == "ce":
            return prediction.logit.softmax(dim=-1)
        return prediction.probability


class OneEventHead(Head):
    """Base of the last two heads: one event per clip, on the segments that are relevant."""

    def relevance(self, parse: Parse) -> Tensor:
        """Return the probability that a segment is relevant: [B, T]."""
        raise NotImplementedError

    def clip_scores(self, parse: Parse) -> Tensor:
        """Return the logits that decide the class of the clip: [B, C] or [B, C + 1]."""
        return joint(parse, "video").values

    def best_event(self, parse: Parse) -> tuple[Tensor, Tensor]:
        """Return the best event of the clip, and the relevance of each segment."""
        relevance = self.relevance(parse)
        label = self.clip_scores(parse)[..., : self.background].argmax(dim=-1, keepdim=True)
        return label.expand(relevance.shape), relevance

    def probabilities(self, parse: Parse) -> Tensor:
        """Return the relevance of each segment times the class probabilities of the clip."""
        whole = parse.aux.get("raw_logits", joint(parse, "video").values)
        classes = at_least_single(whole).softmax(dim=-1)
        return self.relevance(parse)[..., None] * classes[:, None]  # (B, T, C)


class EventHead(OneEventHead):
    """Reads independent scores of the texts of events alone, which also give the relevance."""

    @staticmethod
    def reads(parse: Parse, background: int) -> bool:
        """Return whether only events have scores."""
        return joint(parse, "segment").values.shape[-1] <= background

    def loss(self, parse: Parse, segment: Tensor, video: Tensor) -> losses.Terms:
        """Return terms on relevance, video and segments."""
        if self.weak:
            target = self.video_target(parse, segment, video)[:, : self.background]
            return losses.leap_weak_loss(parse, target, pool=self.config.weak_pool)
        return losses.relevance_loss(parse, segment, video)

    def decide(self, parse: Parse) -> Tensor:
        """Return the clip's best event where the relevance is above 0.5."""
        relevant = losses.relevance_logit(parse) > 0  # (B, T)
        label = self.clip_scores(parse).argmax(dim=-1, keepdim=True)  # (B, 1)
        return torch.where(relevant, label, self.background)

    def relevance(self, parse: Parse) -> Tensor:
        """Return the decoder's own relevance, or that of the class logits."""
        return losses.relevance_logit(parse).sigmoid()


class RelevanceHead(OneEventHead):
    """Reads a relevance per segment and one class per clip, from CMBS's own head."""

    has_gate_terms = True

    @staticmethod
    def reads(parse: Parse, background: int) -> bool:
        """Return whether there is a relevance, from a decoder that does not query texts."""
        return parse.relevance is not None and not parse.queried_by_labels

    def loss(self, parse: Parse, segment: Tensor, video: Tensor) -> losses.Terms:
        """Return CMBS's four terms, or one on the video (weak)."""
        config = self.config
        if self.weak:
            target = self.video_target(parse, segment, video)
            return losses.head_weak_loss(parse, target, kind=config.head_loss)
        return losses.cmbs_full_loss(parse, segment, gate_loss=config.gate_loss)

    def decide(self, parse: Parse) -> Tensor:
        """Return the clip's class on the segments whose relevance is above 0.5.

        Departs: the released code for weak supervision squashes its gate once more before the
        threshold, so that every segment passes (weak_relevance "official").
        """
        passes = self.relevance(parse) > 0.5
        if self.weak and self.config.weak_relevance == "official":
            passes = torch.ones_like(passes)
        label = self.clip_scores(parse).argmax(dim=-1, keepdim=True)  # (B, 1)
        return torch.where(passes, label, self.background)

    def relevance(self, parse: Parse) -> Tensor:
        """Return the decoder's own relevance."""
        return parse.relevance.probability  # type: ignore[union-attr]

    def clip_scores(self, parse: Parse) -> Tensor:
        """Return the class logits; for weak supervision, those before the gate."""
        return parse.aux["raw_logits"] if self.weak else joint(parse, "video").values


HEADS: tuple[type[Head], ...] = (
    RelevanceHead,
    EvidenceHead,
    GroupHead,
    PairHead,
    CosineHead,
    SoftmaxHead,
    LabelHead,
    EventHead,
)
"""All heads; the first one that reads a parse is used."""


def head_of(parse: Parse, config: AVELConfig, background: int) -> Head:
    """Return the head that reads a decoder's predictions.

    Raises:
        ValueError: the decoder gives no audio-visual prediction.
    """
    kind = next(head for head in HEADS if head.reads(parse, background))
    return kind(config, background)


def weak_decision(segment_logits: Tensor, video_logits: Tensor) -> Tensor:
    """Decide weakly supervised segments: the clip's best event where it is not below background.

    The whole clip is background if the video logit of background is the largest.

    Shape: segment [B, T, C + 1], video [B, C + 1] -> [B, T].
    """
    background = video_logits.shape[-1] - 1
    best = video_logits[:, :background].argmax(dim=-1)  # (B,)
    index = best[:, None, None].expand(-1, segment_logits.shape[1], 1)
    scores = segment_logits.gather(-1, index).squeeze(-1)
    label = torch.where(scores >= segment_logits[..., background], best[:, None], background)
    empty = video_logits.argmax(dim=-1) == background
    return torch.where(empty[:, None], background, label)


def one_hot_events(segment: Tensor, background: int) -> Tensor:
    """Turn labels [B, T] into events [B, T, C], without background."""
    return F.one_hot(segment, background + 1)[..., :background]
