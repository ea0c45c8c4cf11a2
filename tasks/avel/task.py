"""Audio-visual event localization: one event a clip, both heard and seen, and its seconds."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from avplatform.models.contracts import Encoding, Parse, at_least_single
from avplatform.models.errors import UsageError
from avplatform.tasks.avel import labels, losses
from avplatform.tasks.avel.analysis import AVELAnalysis
from avplatform.tasks.avel.combinations import check_combination
from avplatform.tasks.avel.config import BACKGROUND, AVELConfig
from avplatform.tasks.avel.metrics import AVELMetrics
from avplatform.tasks.contracts import Batch, Task
from avplatform.tasks.losses import similarity_loss


class AVEL(Task):
    """Audio-visual event localization: any events, and background as the last class.

    Source: AVE (ECCV 2018). For LEAP on this task the paper gives results but no code; the losses and decisions here are
    ours (docs/cells.md).

    Labels of a batch: "segment" [B, T] and "video" [B], class indices; background is the number of events. It is added
    where the classes lack it.

    Raises:
        UsageError: background is among the classes, but not the last one.
    """

    name = "avel"
    Config = AVELConfig
    default_encoder = "ave"
    supervisions = ("full", "weak")
    selection_metric = "accuracy"
    config: AVELConfig

    def __init__(
        self,
        config: AVELConfig,
        *,
        classes: Sequence[str],
        texts: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        if BACKGROUND in classes[:-1]:
            raise UsageError(
                f"the class '{BACKGROUND}' is number {list(classes).index(BACKGROUND)} of {len(classes)}; it must be the last"
            )
        if classes[-1] != BACKGROUND:
            classes = (*classes, BACKGROUND)
            texts = {spelling: (*found, BACKGROUND) for spelling, found in (texts or {}).items()}
        super().__init__(config, classes=classes, texts=texts)
        self.background = len(self.classes) - 1
        """Index of background, which is the number of events."""
        self._pair_target = (
            losses.StalePairTargets() if config.pair_target == "official" else losses.pair_target
        )

    def state(self) -> dict[str, Tensor]:
        """The rests of earlier batches that PSP's official pair targets keep."""
        kept = (
            self._pair_target.kept
            if isinstance(self._pair_target, losses.StalePairTargets)
            else None
        )
        return {} if kept is None else {"pair_targets": kept}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        if isinstance(self._pair_target, losses.StalePairTargets):
            self._pair_target.kept = state.get("pair_targets")

    def train_splits(self) -> tuple[str, ...]:
        """Weak training adds the background clips."""
        return ("train", "background") if self.config.supervision == "weak" else ("train",)

    def model_classes(
        self, decoder: str, encoder: str | None = None
    ) -> tuple[list[str], list[str]]:
        """Return all classes, or the events alone for decoders that know no background."""
        count = len(self.classes)
        by_relevance = decoder == "dch" and encoder == "cmbs" and self.config.supervision == "full"
        if (
            decoder == "mmil"
            or by_relevance
            or (decoder == "leap" and self.config.label_set == "events")
        ):
            count = self.background
        return list(self.classes[:count]), list(self.class_texts()[:count])

    def with_classes(self, names: Sequence[str], texts: Sequence[str] | None = None) -> AVEL:
        """Return a copy that knows these events only, and background."""
        other = copy.copy(self)
        other.background, other.classes = len(names), (*names, BACKGROUND)
        other.texts = {self.config.label_texts: (*(texts or names), BACKGROUND)}
        return other

    @classmethod
    def task_options(cls, encoder: str, decoder: str, supervision: str) -> dict[str, Any]:
        """LEAP's segments are pooled as the encoder's own weakly supervised head does."""
        own = {"psp": "mean", "cmbs": "top4"}
        return (
            {"weak_pool": own[encoder]}
            if decoder == "leap" and supervision == "weak" and encoder in own
            else {}
        )

    def encoder_options(self, encoder: str) -> dict[str, Any]:
        """PSP and CMBS were published as two models each, one a setting."""
        return {"variant": self.config.supervision} if encoder in ("psp", "cmbs") else {}

    def decoder_options(self, encoder: str, decoder: str) -> dict[str, Any]:
        """Return how each decoder makes the audio-visual stream.

        LEAP starts with a learned gain on its scores here, where nothing was published: without it, it trains slowly. Weakly
        supervised, where scores are squashed one by one, it starts with a bias towards "absent" too.
        """
        options: dict[str, dict[str, Any]] = {
            "leap": {"combine": "mean", "score_gain": 8.0},
            "mmil": {"product": True},
        }
        if self.config.supervision == "weak":
            options["leap"]["score_bias"] = -2.5
        if decoder == "dch" and encoder in ("psp", "cmbs"):
            return {"form": encoder, "weighting": self.config.supervision == "weak"}
        if decoder == "leap" and encoder == "cmbs" and self.config.supervision == "full":
            return {**options["leap"], "classify_queries": True}
        return options.get(decoder, {})

    def check(self, encoder: str, decoder: str, encoder_config: Any, decoder_config: Any) -> None:
        """Refuse what does not go together, see `combinations`."""
        check_combination(self.config, encoder, decoder, encoder_config, decoder_config)

    odd_labels = staticmethod(labels.odd_labels)

    def loss(self, parse: Parse, encoding: Encoding, batch: Batch) -> losses.Terms:
        """Return the weighted terms for the kind of prediction that the decoder makes."""
        config, segment, video = self.config, batch.labels["segment"], batch.labels["video"]
        kind, weak = self._kind(parse), config.supervision == "weak"
        dtype = at_least_single((parse.segment.av or parse.video.av).values).dtype  # type: ignore[union-attr]
        target = losses.mil_target(video, dtype, self.background + 1)
        if config.weak_target == "prob":
            target = losses.proportion_target(segment, dtype, self.background + 1)
        if kind == "cmbs":
            weakly = losses.head_weak_loss(parse, target, kind=config.head_loss) if weak else None
            terms = weakly or losses.cmbs_full_loss(parse, segment, gate_loss=config.gate_loss)
        elif kind == "head":
            weakly = losses.head_weak_loss(parse, target, kind=config.head_loss) if weak else None
            terms = weakly or losses.head_full_loss(parse, segment, kind=config.head_loss)  # type: ignore[arg-type]
        elif kind == "probability":
            terms = (
                losses.mmil_weak_loss(parse, target)
                if weak
                else losses.mmil_full_loss(parse, segment)
            )
        elif kind == "relevance":
            wide = target[:, : self.background]
            terms = (
                losses.leap_weak_loss(parse, wide, pool=config.weak_pool)
                if weak
                else losses.relevance_loss(parse, segment, video)
            )
        elif weak:
            terms = losses.leap_weak_loss(parse, target, pool=config.weak_pool)
        else:
            terms = losses.leap_full_loss(
                parse, segment, segment_loss=config.segment_loss, video_loss=config.video_loss
            )
        if not weak:
            terms |= self._auxiliaries(kind, parse, encoding, segment, dtype)
        if config.avss != "off":
            events = self._one_hot(segment)
            terms["similarity"] = config.avss_weight * similarity_loss(
                encoding.audio,
                encoding.visual,
                events,
                events,
                form=config.avss,
                empty_pair=config.empty_pair,
            )
        return terms

    def _auxiliaries(
        self, kind: str, parse: Parse, encoding: Encoding, segment: Tensor, dtype: torch.dtype
    ) -> losses.Terms:
        """Return the encoder's own losses, which stay under any decoder: PSP's pairs, CMBS's gate and query classes."""
        config, terms = self.config, {}
        similarity = encoding.aux.get("similarity")
        if similarity is not None and config.pair_weight:
            pairs = losses.pair_similarity_loss(
                at_least_single(similarity), self._pair_target(segment, dtype)
            )
            terms["pair"] = config.pair_weight * pairs
        gate = encoding.aux.get("av_gate")
        if (
            gate is not None and kind != "cmbs" and config.auxiliary_weight
        ):  # CMBS's own head has these terms itself
            terms["gate"] = config.auxiliary_weight * losses.gate_term(
                gate, segment, kind=config.gate_loss, background=self.background
            )
            if "class_scores" in parse.aux:
                scores = losses.class_score_loss(
                    parse.aux["class_scores"], segment, background=self.background
                )
                terms["class_scores"] = config.auxiliary_weight * scores
        return terms

    def decide(self, parse: Parse) -> dict[str, Tensor]:
        """Return "segment" (int [B, T]), the label of every segment."""
        prediction, kind = parse.segment.av, self._kind(parse)
        if kind == "cmbs":
            return {"segment": self._relevant_segments(parse)}
        assert prediction is not None
        if kind == "probability":
            best, label = prediction.probability.max(dim=-1)
            return {"segment": torch.where(best >= 0.5, label, self.background)}
        logits = at_least_single(
            prediction.values
        )  # of LEAP with another combination than the mean: probabilities
        if kind == "head":
            return {"segment": logits.argmax(dim=-1)}
        video = parse.video.av
        assert video is not None
        if kind == "relevance":
            relevant = losses.relevance_logit(parse) > 0  # (B, T)
            label = video.values.argmax(dim=-1, keepdim=True)  # (B, 1)
            return {"segment": torch.where(relevant, label, self.background)}
        if self.config.supervision == "weak":
            return {"segment": weak_decision(logits, video.values)}
        if self.config.decision == "masked":
            logits = logits.masked_fill((video.probability < 0.5)[:, None, :], -torch.inf)
            nothing = torch.isinf(logits).all(dim=-1)
            return {"segment": torch.where(nothing, self.background, logits.argmax(dim=-1))}
        return {"segment": logits.argmax(dim=-1)}

    def evidence(self, parse: Parse, decisions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return "event" (float [B, T]), from 0.5 on where an event was decided, and "label" (int [B, T]), the best event.

        Against background alone: the score of the best event in p / (p + background's p), or CMBS's and LEAP's relevance.
        """
        decided = decisions["segment"] != self.background
        label, event = self._best_event(parse)
        below = 0.5 - 2**-12  # the next lower number in half precision, as which these are stored
        event = torch.where(decided, event.clamp(min=0.5), event.clamp(max=below))
        return {"event": event, "label": torch.where(decided, decisions["segment"], label)}

    def _best_event(self, parse: Parse) -> tuple[Tensor, Tensor]:
        """Return the event that each segment would get if it were not background, and its score, both [B, T]."""
        prediction, video, kind = parse.segment.av, parse.video.av, self._kind(parse)
        if kind in ("cmbs", "relevance"):
            assert video is not None
            weakly = kind == "cmbs" and self.config.supervision == "weak"
            whole = parse.aux["raw_logits"] if weakly else video.values
            relevance = (
                parse.relevance.probability
                if kind == "cmbs"
                else losses.relevance_logit(parse).sigmoid()
            )  # type: ignore[union-attr]
            return whole[..., : self.background].argmax(dim=-1, keepdim=True).expand(
                relevance.shape
            ), relevance
        assert prediction is not None
        if kind == "probability":
            best, label = prediction.probability.max(dim=-1)
            return label, best
        scores = at_least_single(prediction.values)
        events, background = scores[..., : self.background], scores[..., self.background]
        if kind == "leap" and self.config.supervision == "weak":
            assert video is not None
            label = (
                video.values[..., : self.background]
                .argmax(dim=-1, keepdim=True)
                .expand(background.shape)
            )
            best = events.gather(-1, label[..., None]).squeeze(-1)
        else:
            best, label = events.max(dim=-1)
        if prediction.kind == "probability":
            return label, best / (best + background).clamp(min=1e-12)
        return label, (best - background).sigmoid()

    def analysis(self) -> AVELAnalysis:
        """Return what intervals, comparisons, calibration and thresholds need."""
        return AVELAnalysis(self.classes)

    def _relevant_segments(self, parse: Parse) -> Tensor:
        """CMBS: one class a clip, on the segments whose relevance passes 0.5.

        Departs: the weak released code squashes its gate once more before the threshold, so that every segment passes.
        """
        relevance, video = parse.relevance, parse.video.av
        assert relevance is not None and video is not None
        passes = relevance.probability > 0.5
        label = video.values.argmax(dim=-1, keepdim=True)  # (B, 1)
        if self.config.supervision == "weak":
            label = parse.aux["raw_logits"].argmax(dim=-1, keepdim=True)
            if self.config.weak_relevance == "official":
                passes = torch.ones_like(passes)
        return torch.where(passes, label, self.background)

    def _kind(self, parse: Parse) -> Literal["head", "probability", "leap", "relevance", "cmbs"]:
        """Tell CMBS's head, a softmax head, a product of probabilities, and LEAP with and without background apart."""
        prediction = parse.segment.av
        if parse.relevance is not None and not parse.queried_by_labels:
            return "cmbs"
        if prediction is None:
            raise ValueError(
                "event localization needs audio-visual segment predictions; the decoder gives none"
            )
        if not parse.queried_by_labels:
            if prediction.kind == "probability":
                return "probability"
            if prediction.activation == "softmax":
                return "head"
        return "leap" if prediction.values.shape[-1] > self.background else "relevance"

    def metrics(self) -> AVELMetrics:
        """Return a fresh accumulator."""
        return AVELMetrics(self.classes)

    def events(self, decisions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the one track of events that are heard and seen."""
        return {"av": self._one_hot(decisions["segment"]).bool()}

    def probabilities(self, parse: Parse) -> dict[str, Tensor]:
        """Return them from whatever the decisions are made of; logits that exclude each other are softmaxed."""
        kind, segment, video = self._kind(parse), parse.segment.av, parse.video.av
        if kind in ("cmbs", "relevance"):  # which segments matter, times what the clip is
            relevance = (
                parse.relevance.probability
                if parse.relevance is not None
                else losses.relevance_logit(parse).sigmoid()
            )
            whole = parse.aux.get("raw_logits", video.values)  # type: ignore[union-attr]
            values = relevance[..., None] * at_least_single(whole).softmax(dim=-1)[:, None]
        elif kind == "leap" and segment.kind == "logit" and self.config.segment_loss == "ce":  # type: ignore[union-attr]
            values = segment.logit.softmax(dim=-1)  # type: ignore[union-attr]
        else:
            values = segment.probability  # type: ignore[union-attr]
        return {"av": values[..., : self.background]}

    def _one_hot(self, segment: Tensor) -> Tensor:
        """Labels [B, T] to events [B, T, C]; background is none of them."""
        return F.one_hot(segment, self.background + 1)[..., : self.background]

    def tracks(self, decisions: dict[str, Tensor], batch: Batch) -> list[dict[str, Any]]:
        """Return one audio-visual track a clip."""
        truth = self._one_hot(batch.labels["segment"]).bool().cpu().numpy()
        found = self.events(decisions)["av"].cpu().numpy()
        return [
            {
                "clip_id": clip_id,
                "classes": list(self.classes[: self.background]),
                "tracks": {"av": {"truth": truth[i], "prediction": found[i]}},
            }
            for i, clip_id in enumerate(batch.clip_id)
        ]


def weak_decision(segment_logits: Tensor, video_logits: Tensor) -> Tensor:
    """Decide weakly supervised segments: the clip's best event wherever it scores at least as high as background.

    Background takes the whole clip where its video logit is the largest.

    Shape: segment [B, T, C], video [B, C] -> [B, T]; background is the last of C.
    """
    background = video_logits.shape[-1] - 1
    best = video_logits[:, :background].argmax(dim=-1)  # (B,)
    scores = segment_logits.gather(
        -1, best[:, None, None].expand(-1, segment_logits.shape[1], 1)
    ).squeeze(-1)
    label = torch.where(scores >= segment_logits[..., background], best[:, None], background)
    empty = video_logits.argmax(dim=-1) == background
    return torch.where(empty[:, None], background, label)
