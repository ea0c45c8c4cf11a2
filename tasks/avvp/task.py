"""Audio-visual video parsing: which events are heard, which are seen, and in which segments."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, nn

from avplatform.models.config import AVModelConfig
from avplatform.models.contracts import Encoding, Parse, may_give
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.models.encoders.han import HAN
from avplatform.models.errors import DataError, UsageError
from avplatform.tasks.avvp import labels as label_rules
from avplatform.tasks.avvp.analysis import AVVPAnalysis
from avplatform.tasks.avvp.cells import CELLS, EVIDENCE
from avplatform.tasks.avvp.class_thresholds import EarlyThresholds, pick_class_thresholds
from avplatform.tasks.avvp.combinations import task_rules
from avplatform.tasks.avvp.config import AVVPConfig
from avplatform.tasks.avvp.contrast import contrast_loss
from avplatform.tasks.avvp.decisions import decisions_of, evidence_of
from avplatform.tasks.avvp.dropping import Dropping
from avplatform.tasks.avvp.losses import (
    Terms,
    as_target,
    basic_loss,
    counted_together,
    han_loss,
    has_soft_global,
    labels_without_pseudo,
    multiple_instance_loss,
    predicted_events,
    valor_loss,
    weighted,
    with_counts,
)
from avplatform.tasks.avvp.metrics import FIGURES, STREAMS, AVVPMetrics
from avplatform.tasks.avvp.mixing import mixed, unmixed
from avplatform.tasks.avvp.targets import Kept, kept_labels
from avplatform.tasks.avvp.unseen import AVVPUnseen
from avplatform.tasks.batch import Batch, Processes, TrainingClips
from avplatform.tasks.contracts import Task
from avplatform.tasks.counts import LeastCounts
from avplatform.tasks.guides import guide_losses, guide_networks
from avplatform.tasks.losses import similarity_loss, token_losses
from avplatform.tasks.metrics import Metrics
from avplatform.tasks.mutual_learning import mutual_learning_of
from avplatform.tasks.options import refuse_unread


class AVVP(Task):
    """Audio-visual video parsing: separate audio and visual events, of any classes.

    Source: HAN (ECCV 2020); LEAP (ECCV 2024), section 3.

    Labels of a batch: "weak" [B, C]; for pseudo supervision also "pseudo_audio" and "pseudo_visual"
    [B, T, C]; for scoring also "dense_audio" and "dense_visual" [B, T, C].
    """

    name = "avvp"
    Config = AVVPConfig
    default_encoder = HAN.name
    supervisions = ("pseudo", "weak")
    selection_metric = "segment_Type@AV"
    whole_metric = "video_F"
    shown = ("segment_Type@AV", "event_Type@AV")
    figures = FIGURES
    streams = "apart"
    training = {"epochs": 24, "optim": {"lr": 5e-4}}
    paper = HAN.paper
    title = "audio-visual video parsing"
    about = (
        "For each second of a clip it names the events that are heard and, apart from them, those "
        "that are seen"
    )
    decisions = "audio, visual: true where the class is heard, seen"
    cells = CELLS
    rule = AVVPUnseen
    from_events = label_rules.FROM_EVENTS
    config: AVVPConfig

    def __init__(
        self,
        config: AVVPConfig,
        *,
        classes: Sequence[str],
        texts: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__(config, classes=classes, texts=texts)
        self._counts = LeastCounts()
        self._picked = EarlyThresholds()
        config.check_classes(self.classes)

    def with_classes(self, names: Sequence[str], texts: Sequence[str] | None = None) -> Self:
        """Return a copy of the task for these classes, which keep their own thresholds."""
        other = super().with_classes(names, texts)
        other.config = self.config.for_classes(self.classes, names)
        return other

    @classmethod
    def task_options(cls, encoder: str, decoder: str, supervision: str) -> dict[str, Any]:
        """Return CMPAE's losses and thresholds for decoders with uncertainties."""
        given = DECODERS[decoder].gives(DECODERS[decoder].Config())
        return EVIDENCE[supervision] if given is not None and "uncertainty" in given else {}

    def check(self, encoder: str, decoder: str, encoder_config: Any, decoder_config: Any) -> None:
        """Refuse options of a joint stream, and options that do not fit the decoder or do nothing.

        The objectives "han" and "valor" need a pooled prediction.
        """
        super().check(encoder, decoder, encoder_config, decoder_config)
        given, objective = DECODERS[decoder].gives(decoder_config), self.config.objective
        if objective in (HAN.name, "valor") and not may_give(given, "pooled"):
            why = {
                HAN.name: f"needs a pooled prediction, which {decoder} does not give",
                "valor": f"would not train {decoder}'s video classifiers",
            }[objective]
            raise UsageError(f"task_config.objective '{objective}' {why}; use basic")
        if objective == "valor" and getattr(decoder_config, "levels", "last") == "mean":
            raise UsageError(
                "task_config.objective 'valor' needs logits of segments, but decoder_config.levels "
                "'mean' gives means of probabilities; use basic, or levels last"
            )
        refuse_unread(self.config, task_rules(self.config, given), group="task_config")
        reads_stem = self.config.contrast == "ma" and self.config.contrast_visual == "stem"
        if reads_stem and ENCODERS[encoder].wants != "vectors":
            raise UsageError(
                "task_config.contrast_visual 'stem' compares with the visual vectors before the "
                f"encoder, but {encoder} reads maps; use encoded"
            )

    def check_training_labels(self, names: Iterable[str]) -> None:
        """Refuse data without pseudo-labels if the supervision is "pseudo"."""
        missing = {"pseudo_audio", "pseudo_visual"} - set(names)
        if missing and self.config.supervision == "pseudo":
            raise DataError(
                f"the data have no '{min(missing)}' labels; "
                "use data with pseudo-labels, or --supervision weak"
            )

    odd_labels = staticmethod(label_rules.odd_labels)

    def check_training_clips(self, clips: TrainingClips) -> list[str]:
        """Refuse refined labels and noise ratios of other data, clips or classes."""
        return self._dropping.check(clips)

    @cached_property
    def _dropping(self) -> Dropping:
        """What drops labels that do not hold in a stream."""
        return Dropping(self.config, self.classes)

    def prepare(self, model: nn.Module, batch: Batch, processes: Processes) -> Batch:
        """Add the refined labels of the batch, "keep_audio" and "keep_visual" [B, C], if any.

        They come from a file, and from denoising, which ranks the clips of all processes. From the
        second epoch on, "counts" [B, 3, C] says in how many segments the classes are at least. For
        the contrast across videos, each clip is followed by a mixed pair (`mixed`).
        """
        smoothing = self._smoothing(batch)
        batch = self._dropping.by_denoising(
            model,
            self._dropping.by_file(batch),
            processes,
            labels=self._stream_labels,
            smoothing=(smoothing["audio_smooth"], smoothing["visual_smooth"]),
        )
        if self.config.count_terms != "off" and batch.moment.epoch > 1:  # type: ignore[union-attr]
            groups = counted_together(model(batch.audio, batch.visual, batch.motion).parse)
            counts = self._counts.update(batch.row, groups, processes)
            batch = dataclasses.replace(batch, labels=batch.labels | {"counts": counts})
        if self.config.contrast == "cross_video" and batch.after(self.config.contrast_after):
            batch = mixed(batch)
        return batch

    def label_origins(self) -> dict[str, dict[str, Any]]:
        """Return how refined labels and noise ratios were made."""
        return self._dropping.origins()

    def state(self) -> dict[str, Tensor]:
        """Return the fractions that denoising carries to the next batch, and counts of segments."""
        return self._counts.state() | self._picked.state() | self._dropping.state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        self._counts.load_state(state)
        self._picked.load_state(state)
        self._dropping.load_state(state)

    def loss(self, parse: Parse, encoding: Encoding, batch: Batch) -> Terms:
        """Return the weighted terms of the objective, and the other losses that are on."""
        every = parse, encoding, batch
        parse, encoding, batch = unmixed(*every)
        config, scores = self.config, parse.segment.audio.values  # type: ignore[union-attr]
        weak = as_target(batch.labels["weak"], scores)
        kept = self._kept(batch)
        smoothing: dict[str, Any] = {**self._smoothing(batch), "kept": kept}
        pseudo = self._pseudo(batch, scores) if config.supervision == "pseudo" else None
        objective = self._objective(parse)
        if objective == "mil":
            terms = multiple_instance_loss(parse, weak, pooling=config.pooling, **smoothing)
        elif objective == HAN.name:
            terms = han_loss(parse, weak, **smoothing)
        elif objective == "valor":
            audio, visual = pseudo or self._pseudo(batch, scores)
            terms = valor_loss(parse, kept.global_target(weak), audio, visual)
        else:
            labels = labels_without_pseudo(weak, scores.shape[1], **smoothing)
            if pseudo is not None:
                audio, visual = pseudo
                labels = {
                    "video_audio": audio.amax(dim=1),
                    "video_visual": visual.amax(dim=1),
                    "segment_audio": audio,
                    "segment_visual": visual,
                }
            terms = basic_loss(
                parse,
                weak=kept.global_target(weak),
                segment_weight=config.segment_weight,
                global_term=config.global_term,
                **labels,
            )
        if config.count_terms != "off":
            terms = with_counts(
                terms,
                counted_together(parse),
                [*self._stream_labels(batch, scores), kept.global_target(weak)],
                batch.labels.get("counts"),
                weight=config.count_weight,
                replace=config.count_terms == "replace",
            )
        whole = config.global_weight
        weights = {"audio": config.audio_weight, "visual": config.visual_weight}
        terms = weighted(terms, weights | {"global": whole, "pooled": whole})
        if config.contrast != "off" and batch.after(config.contrast_after):
            terms["contrast"] = config.contrast_weight * contrast_loss(
                config.contrast,
                *every[:2],
                *self._stream_labels(every[2], scores),
                temperature=config.contrast_temperature,
                visual=config.contrast_visual,
            )
        if config.mutual_weight:
            terms |= mutual_learning_of(
                parse,
                weak,
                batch=batch.moment.batch if batch.moment else 0,
                weight=config.mutual_weight,
                floor=config.global_uncertainty_floor,
            )
        terms |= token_losses(parse, config.token_weight)
        targets = kept.guide_targets(weak, refined=config.refines, **self._smoothing(batch))
        terms |= guide_losses(parse, encoding, *targets, apart=config.apart_weight)
        if config.avss != "off":
            maps = pseudo or predicted_events(parse, threshold=config.threshold)
            terms["similarity"] = config.avss_weight * similarity_loss(
                encoding.audio,
                encoding.visual,
                *maps,
                form=config.avss,
                eps=config.avss_eps,
                empty_pair=config.empty_pair,
            )
        return terms

    def companion(self, model: AVModelConfig) -> nn.Module | None:
        """Return the guide networks, if the options ask for them."""
        return guide_networks(self.config, model)

    def _objective(self, parse: Parse) -> str:
        """Return "basic", "han" or "valor": the chosen objective, or what "auto" stands for."""
        if self.config.objective != "auto":
            return self.config.objective
        if self.config.supervision == "pseudo":
            return "basic"
        return HAN.name if has_soft_global(parse) else "basic"

    def _pseudo(self, batch: Batch, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the audio and visual pseudo-labels that are kept, in the precision of `like`.

        Shape: two maps [B, T, C].
        """
        self.check_training_labels(batch.labels)
        audio, visual = batch.labels["pseudo_audio"], batch.labels["pseudo_visual"]
        kept = self._kept(batch)
        return (
            kept.segments("audio", as_target(audio, like)),
            kept.segments("visual", as_target(visual, like)),
        )

    def _stream_labels(self, batch: Batch, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return which classes are heard and seen in the clips, as far as training knows.

        Shape: two labels [B, C] in {0, 1}.
        """
        if self.config.supervision == "pseudo":
            audio, visual = self._pseudo(batch, like)
            return audio.amax(dim=1), visual.amax(dim=1)
        weak, kept = as_target(batch.labels["weak"], like), self._kept(batch)
        return kept.label("audio", weak), kept.label("visual", weak)

    def _kept(self, batch: Batch) -> Kept:
        """Return which labels of a batch hold in which stream."""
        config = self.config
        return kept_labels(batch, smooth_dropped=config.smooth_dropped, whole=config.global_target)

    def _smoothing(self, batch: Batch) -> dict[str, float]:
        """Return the smoothing of both streams at this moment of training."""
        config = self.config
        over = config.smooth_epochs and batch.after(config.smooth_epochs)
        if over or config.supervision == "pseudo":
            return {"audio_smooth": 1.0, "visual_smooth": 1.0}
        return {"audio_smooth": config.audio_smooth, "visual_smooth": config.visual_smooth}

    def decide(self, parse: Parse) -> dict[str, Tensor]:
        """Return "audio" and "visual" (bool [B, T, C]) and "video" (bool [B, C]), by `>=`.

        Source: HAN (ECCV 2020): segments are gated by the video prediction.
        """
        return decisions_of(parse.for_decisions, self.config)

    def evidence(self, parse: Parse, decisions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the ungated probabilities of segments, those of whole videos, and the gates.

        Shape: "audio" and "visual" [B, T, C]; "video_audio" and "video_visual" [B, C];
        "gate_audio" and "gate_visual" bool [B, C].
        """
        return evidence_of(parse.for_decisions, decisions["video"], self.config)

    def settle(self, validation: Metrics) -> Self:
        """Pick one video threshold per class, by the option `class_thresholds`.

        The other classes and streams keep theirs meanwhile, so the order does not matter. With
        `threshold_epoch` the thresholds are those that were picked after that epoch.
        """
        picked = self._picked.limits or pick_class_thresholds(self.config, validation)
        if not picked:
            return self
        other = copy.copy(self)
        other.config = dataclasses.replace(self.config, **picked)
        return other

    def validated(self, epoch: int, validation: Metrics) -> None:
        """Pick the class thresholds up to `threshold_epoch`; see `settle`."""
        if epoch <= self.config.threshold_epoch:
            self._picked.limits = pick_class_thresholds(self.config, validation)

    def analysis(self) -> AVVPAnalysis:
        """Return the analysis for intervals, comparisons, calibration and thresholds."""
        limits = {stream: self.config.limit(stream, "segment") for stream in STREAMS}
        return AVVPAnalysis(self.classes, defaults=limits)

    def metrics(self) -> AVVPMetrics:
        """Return a new accumulator."""
        return AVVPMetrics(self.classes)

    def events(self, decisions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the events that are heard, seen, and both in the same segment."""
        audio, visual = decisions["audio"], decisions["visual"]
        return {"audio": audio, "visual": visual, "av": audio & visual}

    def probabilities(self, parse: Parse) -> dict[str, Tensor]:
        """Return the probabilities of both streams, and the lower of the two as "av"."""
        segment = parse.for_decisions.segment
        audio, visual = segment.audio.probability, segment.visual.probability  # type: ignore[union-attr]
        return {"audio": audio, "visual": visual, "av": torch.minimum(audio, visual)}

    def truth(self, batch: Batch) -> dict[str, Tensor]:
        """Return the dense labels as `events` returns decisions, and {} where there are none."""
        if "dense_audio" not in batch.labels:
            return {}
        return self.events({s: batch.labels[f"dense_{s}"].bool() for s in ("audio", "visual")})
