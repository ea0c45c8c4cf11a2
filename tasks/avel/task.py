"""Audio-visual event localization: one event per clip, both heard and seen, and its segments."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from avplatform.models.config import AVModelConfig
from avplatform.models.contracts import Encoding, Needs, Parse, at_least_single, may_give
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.models.encoders.ave import AVE
from avplatform.models.errors import DataError, UsageError
from avplatform.tasks.avel import labels, losses
from avplatform.tasks.avel.analysis import AVELAnalysis
from avplatform.tasks.avel.cells import CELLS
from avplatform.tasks.avel.combinations import task_rules
from avplatform.tasks.avel.config import BACKGROUND, AVELConfig
from avplatform.tasks.avel.head import Head
from avplatform.tasks.avel.heads import EvidenceHead, head_of, one_hot_events
from avplatform.tasks.avel.metrics import AVELMetrics
from avplatform.tasks.avel.unseen import AVELUnseen
from avplatform.tasks.batch import Batch, Processes
from avplatform.tasks.contracts import Task
from avplatform.tasks.counts import LeastCounts, count_loss
from avplatform.tasks.guides import guide_losses, guide_networks
from avplatform.tasks.losses import jomold_contrast, similarity_loss
from avplatform.tasks.mutual_learning import mutual_learning_of
from avplatform.tasks.options import refuse_unread
from avplatform.tasks.unseen import UnseenRule


class AVEL(Task):
    """Audio-visual event localization: any events, and background as the last class.

    Source: AVE (ECCV 2018). The LEAP paper gives results on this task but no code; the losses and
    decisions for LEAP here are ours (docs/cells.md).

    Labels of a batch: "segment" [B, T] and "video" [B], class indices. The index of background is
    the number of events; background is added if the classes lack it.

    Raises:
        UsageError: background is among the classes, but is not the last one.
    """

    name = "avel"
    Config: ClassVar[type] = AVELConfig
    default_encoder = AVE.name
    supervisions = ("full", "weak")
    selection_metric = "accuracy"
    whole_metric = "video_accuracy"
    shown: ClassVar[tuple[str, ...]] = ("accuracy",)
    streams = "joint"
    paper = AVE.paper
    title = "audio-visual event localization"
    about = (
        "For each second of a clip it names the event that is both heard and seen, or background"
    )
    decisions = "segment: a label's index for each second"
    cells = CELLS
    rule: ClassVar[type[UnseenRule] | None] = AVELUnseen
    from_events = labels.FROM_EVENTS
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
                f"the class '{BACKGROUND}' is at position {list(classes).index(BACKGROUND)} "
                f"of {len(classes)} (counted from 0); it must be the last"
            )
        if classes[-1] != BACKGROUND:
            classes = (*classes, BACKGROUND)
            texts = {spelling: (*found, BACKGROUND) for spelling, found in (texts or {}).items()}
        super().__init__(config, classes=classes, texts=texts)
        self.background = len(self.classes) - 1
        """The index of background, which is the number of events."""
        self._counts = LeastCounts()
        self._pair_target = (
            losses.StalePairTargets() if config.pair_target == "official" else losses.pair_target
        )

    def state(self) -> dict[str, Tensor]:
        """Return what PSP's official pair targets keep of earlier batches, and counts."""
        kept = getattr(self._pair_target, "kept", None)
        return self._counts.state() | ({} if kept is None else {"pair_targets": kept})

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        self._counts.load_state(state)
        if isinstance(self._pair_target, losses.StalePairTargets):
            self._pair_target.kept = state.get("pair_targets")

    def train_splits(self) -> tuple[str, ...]:
        """Return the splits for training; weak supervision adds the background clips."""
        return ("train", "background") if self.config.supervision == "weak" else ("train",)

    @property
    def needs(self) -> Needs:
        """One audio-visual stream, and what the losses read from it."""
        config, events = self.config, self.config.label_set == "events"
        full = config.supervision == "full"
        # The texts are ends of error messages, see `Needs`.
        logits = (
            "which task_config.segment_loss 'ce' and label_set 'events' cannot use; "
            "set segment_loss to bce and label_set to with_background"
        )
        options = ("segment_loss", "video_loss")
        per_modality = [name for name in options if getattr(config, name) == "per_modality"]
        both = "task_config.{} reads the audio and the visual stream"
        modalities = both.format(f"{per_modality[0]} 'per_modality'") if per_modality else ""
        if config.guides:
            modalities = both.format("guides")
        relevance = "is for full supervision with task_config.label_set 'events'; set both"
        return dataclasses.replace(
            super().needs,
            logits=logits if events or (full and config.segment_loss == "ce") else "",
            modalities=modalities,
            no_relevance="" if full and events else relevance,
        )

    def model_classes(
        self, decoder: str | None = None, encoder: str | None = None
    ) -> tuple[list[str], list[str]]:
        """Return all classes, or only the events for decoders without background."""
        count = len(self.classes)
        if decoder is not None:
            decoder_type = DECODERS[decoder]
            encoder_type = ENCODERS[encoder or self.default_encoder]
            if not decoder_type.scores_background(self.needs, encoder_type) or (
                decoder_type.needs_labels and self.config.label_set == "events"
            ):
                count = self.background
        return list(self.classes[:count]), list(self.class_texts()[:count])

    def with_classes(self, names: Sequence[str], texts: Sequence[str] | None = None) -> Self:
        """Return a copy of the task for these events only, and background."""
        other = super().with_classes((*names, BACKGROUND), (*(texts or names), BACKGROUND))
        other.background = len(names)
        return other

    @classmethod
    def task_options(cls, encoder: str, decoder: str, supervision: str) -> dict[str, Any]:
        """Return the pooling of the encoder's own weak head, for decoders that query texts."""
        pool, reader = ENCODERS[encoder].pooling, DECODERS[decoder]
        pools = may_give(reader.gives(reader.Config()), "text scores")
        weak_texts = reader.needs_labels and pools and supervision == "weak"
        return {"weak_pool": pool} if pool and weak_texts else {}

    def encoder_options(self, encoder: str) -> dict[str, Any]:
        """Return the options of an encoder's published model for this supervision, if it has one.

        Some encoders were published as two models, one per supervision.
        """
        return ENCODERS[encoder].settings.get(self.config.supervision, {})

    def check(self, encoder: str, decoder: str, encoder_config: Any, decoder_config: Any) -> None:
        """Refuse options that do not fit together, and options that are not read."""
        super().check(encoder, decoder, encoder_config, decoder_config)
        given = ENCODERS[encoder].gives(encoder_config), DECODERS[decoder].gives(decoder_config)
        if self.config.guides and "label scores" in (given[1] or ()):
            raise UsageError(
                f"task_config.guides teaches the audio and the visual stream, but {decoder} "
                "predicts their events together; leave guides out, or use another decoder"
            )
        refuse_unread(self.config, task_rules(self.config, *given), group="task_config")

    def check_held_out(self, encoder: str) -> None:
        """Refuse losses on a gate, which read all labels, and label sets without background."""
        gated = [n for n, e in ENCODERS.items() if "gate" in (e.gives(e.Config()) or ())]
        if encoder in gated or self.config.label_set != "with_background":
            raise UsageError(
                f"held_out on {self.name} needs a background text and no gate losses; "
                f"use label_set with_background and another encoder than {' or '.join(gated)}"
            )

    odd_labels = staticmethod(labels.odd_labels)

    def check_training_labels(self, names: Iterable[str]) -> None:
        """Refuse data without labels of segments where the loss reads them."""
        config = self.config
        weak = config.supervision == "weak" and config.weak_target == "mil" and config.avss == "off"
        if missing := {"video", *([] if weak else ["segment"])} - set(names):
            raise DataError(
                f"the training clips have no '{min(missing)}' labels; give the times of their "
                "events, or train with --supervision weak"
            )

    def head(self, parse: Parse) -> Head:
        """Return the head that reads the decoder's kind of prediction."""
        return head_of(parse, self.config, self.background)

    def prepare(self, model: nn.Module, batch: Batch, processes: Processes) -> Batch:
        """Add "counts" [B, 1, C], in how many segments an event is at least, from epoch 2 on."""
        if self.config.count_terms == "off" or batch.moment.epoch == 1:  # type: ignore[union-attr]
            return batch
        parse = model(batch.audio, batch.visual, batch.motion).parse
        pair = losses.joint(parse, "segment").probability[..., : self.background]
        counts = self._counts.update(batch.row, [pair], processes)
        return dataclasses.replace(batch, labels=batch.labels | {"counts": counts})

    def loss(self, parse: Parse, encoding: Encoding, batch: Batch) -> losses.Terms:
        """Return the weighted terms of the head, the encoder and the similarity loss."""
        config, video = self.config, batch.labels["video"]
        # Without times, no loss that `check_training_labels` lets through reads the segments.
        segment = batch.labels.get("segment", video[:, None])
        head = self.head(parse)
        terms = head.loss(parse, segment, video)
        if config.supervision == "full":
            terms |= self._encoder_terms(head, parse, encoding, segment)
        if config.contrast_weight and isinstance(head, EvidenceHead):
            rows = segment != self.background if config.supervision == "full" else None
            streams = encoding.audio, encoding.visual
            terms["contrast"] = config.contrast_weight * jomold_contrast(*streams, rows=rows)
        if config.count_terms == "add":
            pair = losses.joint(parse, "segment").probability[..., : self.background]
            present = losses.mil_target(video, pair.dtype, self.background + 1)
            least = batch.labels["counts"][:, 0] if "counts" in batch.labels else None
            terms["count"] = count_loss(pair, present[:, : self.background], least)
        if config.mutual_weight:
            weak = losses.mil_target(video, head.dtype(parse), self.background + 1)
            terms |= mutual_learning_of(
                parse,
                weak[:, : self.background],
                batch=batch.moment.batch if batch.moment else 0,
                weight=config.mutual_weight,
                floor=config.global_uncertainty_floor,
            )
        if config.guides:
            target = head.clip_target(parse, segment, video)
            terms |= guide_losses(parse, encoding, target, target)
        if config.avss != "off":
            events = one_hot_events(segment, self.background)
            terms["similarity"] = config.avss_weight * similarity_loss(
                encoding.audio,
                encoding.visual,
                events,
                events,
                form=config.avss,
                empty_pair=config.empty_pair,
            )
        return terms

    def companion(self, model: AVModelConfig) -> nn.Module | None:
        """Return the guide networks, if the options ask for them."""
        return guide_networks(self.config, model)

    def _encoder_terms(
        self, head: Head, parse: Parse, encoding: Encoding, segment: Tensor
    ) -> losses.Terms:
        """Return the losses of the encoder's paper, which apply with any decoder.

        These are PSP's loss on pairs of segments, and CMBS's losses on its gate and on the classes
        of its queries.
        """
        config, terms = self.config, {}
        similarity, gate = encoding.aux.get("similarity"), encoding.aux.get("av_gate")
        if similarity is not None and config.pair_weight:
            similarity = at_least_single(similarity)
            target = self._pair_target(segment, head.dtype(parse))
            terms["pair"] = config.pair_weight * losses.pair_similarity_loss(similarity, target)
        if gate is not None and not head.has_gate_terms and config.auxiliary_weight:
            weight = config.auxiliary_weight
            terms["gate"] = weight * losses.gate_term(
                gate, segment, kind=config.gate_loss, background=self.background
            )
            if (scores := parse.aux.get("class_scores")) is not None:
                terms["class_scores"] = weight * losses.class_score_loss(
                    scores, segment, background=self.background
                )
        return terms

    def decide(self, parse: Parse) -> dict[str, Tensor]:
        """Return "segment" (int [B, T]), the label of each segment; the last is background."""
        parse = parse.for_decisions
        return {"segment": self.head(parse).decide(parse)}

    def evidence(self, parse: Parse, decisions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the best event of each segment, "label" (int [B, T]), and its score "event".

        "event" (float [B, T]) is the score of the best event against background alone,
        p / (p + p of background), or the relevance of the segment. It is at least 0.5 exactly where
        an event was decided.
        """
        parse, decided = parse.for_decisions, decisions["segment"] != self.background
        label, event = self.head(parse).best_event(parse)
        # The largest number below 0.5 in half precision, in which the evidence is stored.
        below = 0.5 - 2**-12
        event = torch.where(decided, event.clamp(min=0.5), event.clamp(max=below))
        return {"event": event, "label": torch.where(decided, decisions["segment"], label)}

    def unseen_rule(self) -> UnseenRule | None:
        """Return the rule; None for the decision agreement, whose two scores it does not change."""
        return None if self.config.decision == "agreement" else super().unseen_rule()

    def analysis(self) -> AVELAnalysis:
        """Return the analysis for intervals, comparisons, calibration and thresholds."""
        return AVELAnalysis(self.classes)

    def metrics(self) -> AVELMetrics:
        """Return a new accumulator."""
        return AVELMetrics(self.classes)

    def events(self, decisions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the events, which are heard and seen, as the one stream "av"."""
        return {"av": one_hot_events(decisions["segment"], self.background).bool()}

    def truth(self, batch: Batch) -> dict[str, Tensor]:
        """Return the labels as `events` returns decisions, and {} where there are none."""
        return self.events(batch.labels) if "segment" in batch.labels else {}

    def probabilities(self, parse: Parse) -> dict[str, Tensor]:
        """Return the probability of each event in each segment."""
        parse = parse.for_decisions
        return {"av": self.head(parse).probabilities(parse)[..., : self.background]}

    def tracks(self, decisions: dict[str, Tensor], batch: Batch) -> list[dict[str, Any]]:
        """Return one audio-visual track per clip; background is not among its classes."""
        classes = list(self.classes[: self.background])
        return [clip | {"classes": classes} for clip in super().tracks(decisions, batch)]
