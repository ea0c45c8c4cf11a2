"""Audio-visual event localization: one event a clip, both heard and seen, and its seconds."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from avplatform.models.contracts import Encoding, Parse, at_least_single
from avplatform.models.errors import UsageError
from avplatform.tasks.avel import labels, losses
from avplatform.tasks.avel.analysis import AVELAnalysis
from avplatform.tasks.avel.combinations import check_combination
from avplatform.tasks.avel.config import BACKGROUND, AVELConfig
from avplatform.tasks.avel.heads import Head, head_of, one_hot_events
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

    def head(self, parse: Parse) -> Head:
        """Return what reads the decoder's kind of prediction."""
        return head_of(parse, self.config, self.background)

    def loss(self, parse: Parse, encoding: Encoding, batch: Batch) -> losses.Terms:
        """Return the weighted terms of the head, of the encoder and of the similarity loss."""
        config, segment = self.config, batch.labels["segment"]
        head = self.head(parse)
        terms = head.loss(parse, segment, batch.labels["video"])
        if config.supervision == "full":
            terms |= self._encoder_terms(head, parse, encoding, segment)
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

    def _encoder_terms(
        self, head: Head, parse: Parse, encoding: Encoding, segment: Tensor
    ) -> losses.Terms:
        """Return the encoder's own losses, which stay under any decoder.

        These are PSP's on pairs of segments, and CMBS's on its gate and the classes of its queries.
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
            if "class_scores" in parse.aux:
                scores = losses.class_score_loss(
                    parse.aux["class_scores"], segment, background=self.background
                )
                terms["class_scores"] = weight * scores
        return terms

    def decide(self, parse: Parse) -> dict[str, Tensor]:
        """Return "segment" (int [B, T]), the label of every segment, C for background."""
        return {"segment": self.head(parse).decide(parse)}

    def evidence(self, parse: Parse, decisions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return "event" (float [B, T]) and "label" (int [B, T]), the best event.

        "event" is at least 0.5 where an event was decided: the score of the best event against
        background alone, p / (p + background's p), or the relevance of the segment.
        """
        decided = decisions["segment"] != self.background
        label, event = self.head(parse).best_event(parse)
        # The next lower number than 0.5 in half precision, in which these are stored.
        below = 0.5 - 2**-12
        event = torch.where(decided, event.clamp(min=0.5), event.clamp(max=below))
        return {"event": event, "label": torch.where(decided, decisions["segment"], label)}

    def analysis(self) -> AVELAnalysis:
        """Return what intervals, comparisons, calibration and thresholds need."""
        return AVELAnalysis(self.classes)

    def metrics(self) -> AVELMetrics:
        """Return a fresh accumulator."""
        return AVELMetrics(self.classes)

    def events(self, decisions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the one track of events that are heard and seen."""
        return {"av": one_hot_events(decisions["segment"], self.background).bool()}

    def probabilities(self, parse: Parse) -> dict[str, Tensor]:
        """Return how likely each event is in each segment."""
        return {"av": self.head(parse).probabilities(parse)[..., : self.background]}

    def tracks(self, decisions: dict[str, Tensor], batch: Batch) -> list[dict[str, Any]]:
        """Return one audio-visual track a clip."""
        truth = one_hot_events(batch.labels["segment"], self.background).bool().cpu().numpy()
        found = self.events(decisions)["av"].cpu().numpy()
        return [
            {
                "clip_id": clip_id,
                "classes": list(self.classes[: self.background]),
                "tracks": {"av": {"truth": truth[i], "prediction": found[i]}},
            }
            for i, clip_id in enumerate(batch.clip_id)
        ]
