"""Audio-visual event localization on AVE: one event a clip, both heard and seen, and its seconds."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from avplatform.models.contracts import Encoding, FeatureSpec, Needs, Parse, at_least_single
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.models.encoders.ave import AVE
from avplatform.models.errors import UsageError
from avplatform.tasks.avel import losses
from avplatform.tasks.avel.analysis import AVELAnalysis
from avplatform.tasks.avel.cells import CELLS
from avplatform.tasks.avel.classes import BACKGROUND, CLASSES, FIRST_PHRASES, LABEL_TEXTS
from avplatform.tasks.avel.combinations import task_rules
from avplatform.tasks.avel.config import AVELConfig
from avplatform.tasks.avel.metrics import AVELMetrics
from avplatform.tasks.contracts import Batch, Task
from avplatform.tasks.losses import similarity_loss
from avplatform.tasks.options import check_parts, refuse_unread


class AVEL(Task):
    """Audio-visual event localization on AVE (28 events and background).

    Source: AVE (ECCV 2018). For LEAP on this task the paper gives results but no code; the losses and decisions here are
    ours (docs/cells.md).

    Labels of a batch: "segment" [B, T] and "video" [B], class indices with 28 for background.
    """

    name = "avel"
    Config = AVELConfig
    default_encoder = AVE.name
    supervisions = ("full", "weak")
    selection_metric = "accuracy"
    shown = ("accuracy",)
    streams = "joint"
    features = FeatureSpec(audio_dim=128, visual_dim=512, map_size=(7, 7))
    paper = AVE.paper
    title = "audio-visual event localization"
    about = (
        "For each second of a clip it names the event that is both heard and seen, or background"
    )
    decisions = "segment: a label's index for each second"
    cells = CELLS
    classes = CLASSES
    config: AVELConfig

    def __init__(self, config: AVELConfig) -> None:
        super().__init__(config)
        self.background = BACKGROUND
        """Index of background, which is the number of events."""
        self._texts: tuple[str, ...] | None = None  # of a copy that `with_classes` made
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

    @property
    def needs(self) -> Needs:
        """One audio-visual stream, with what the losses read of it."""
        config, events = self.config, self.config.label_set == "events"
        full = config.supervision == "full"
        logits = (
            "which task_config.segment_loss 'ce' and label_set 'events' cannot use; set segment_loss to bce and label_set to "
            "with_background"
        )
        per_modality = "per_modality" in (config.segment_loss, config.video_loss)
        both = "is for full supervision with task_config.label_set 'events'; set both"
        return dataclasses.replace(
            super().needs,
            logits=logits if events or (full and config.segment_loss == "ce") else "",
            modalities="there is no loss per modality" if per_modality else "",
            no_relevance="" if full and events else both,
        )

    def model_classes(
        self, decoder: str | None = None, encoder: str | None = None
    ) -> tuple[list[str], list[str]]:
        """Return 29 labels, or the 28 events for decoders that know no background."""
        texts = self._texts or (LABEL_TEXTS if self.config.label_texts == "full" else FIRST_PHRASES)
        count = len(self.classes)
        if decoder is not None:
            kind, behind = DECODERS[decoder], ENCODERS[encoder or self.default_encoder]
            if not kind.scores_background(self.needs, behind) or (
                kind.needs_labels and self.config.label_set == "events"
            ):
                count = self.background
        return list(self.classes[:count]), list(texts[:count])

    def with_classes(self, names: Sequence[str], texts: Sequence[str] | None = None) -> AVEL:
        """Return a copy that knows these events only, and background."""
        other = copy.copy(self)
        other.background = len(names)
        other.classes, other._texts = (
            (*names, CLASSES[BACKGROUND]),
            (*(texts or names), LABEL_TEXTS[BACKGROUND]),
        )
        return other

    @classmethod
    def task_options(cls, encoder: str, decoder: str, supervision: str) -> dict[str, Any]:
        """Segments that are scored by texts are pooled as the encoder's own weakly supervised head does."""
        pool = ENCODERS[encoder].pooling
        weak_texts = DECODERS[decoder].needs_labels and supervision == "weak"
        return {"weak_pool": pool} if pool and weak_texts else {}

    def encoder_options(self, encoder: str) -> dict[str, Any]:
        """Some encoders were published as two models, one a setting."""
        return ENCODERS[encoder].settings.get(self.config.supervision, {})

    def check(self, encoder: str, decoder: str, encoder_config: Any, decoder_config: Any) -> None:
        """Refuse what does not go together, and options that nothing reads."""
        parts = ENCODERS[encoder], DECODERS[decoder]
        check_parts(*parts, encoder_config, decoder_config, self.needs)
        rules = task_rules(
            self.config, parts[0].gives(encoder_config), parts[1].gives(decoder_config)
        )
        refuse_unread(self.config, rules, group="task_config")

    def check_held_out(self, encoder: str) -> None:
        """Refuse losses on a gate, which read the labels of all events, and classes without background."""
        gated = [n for n, e in ENCODERS.items() if "gate" in (e.gives(e.Config()) or ())]
        if encoder in gated or self.config.label_set != "with_background":
            raise UsageError(
                f"held_out on {self.name} needs a background text and no gate losses; use label_set with_background and no "
                f"{' or '.join(gated)}"
            )

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
                gate, segment, kind=config.gate_loss
            )
            if "class_scores" in parse.aux:
                scores = losses.class_score_loss(parse.aux["class_scores"], segment)
                terms["class_scores"] = config.auxiliary_weight * scores
        return terms

    def decide(self, parse: Parse) -> dict[str, Tensor]:
        """Return "segment" (int [B, T]), the label of every segment, 28 for background."""
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

    Shape: segment [B, T, 29], video [B, 29] -> [B, T].
    """
    background = video_logits.shape[-1] - 1
    best = video_logits[:, :background].argmax(dim=-1)  # (B,)
    scores = segment_logits.gather(
        -1, best[:, None, None].expand(-1, segment_logits.shape[1], 1)
    ).squeeze(-1)
    label = torch.where(scores >= segment_logits[..., background], best[:, None], background)
    empty = video_logits.argmax(dim=-1) == background
    return torch.where(empty[:, None], background, label)
