"""Open-vocabulary audio-visual event localization: classes that training never saw are found."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from avplatform.models.contracts import Encoding, Parse
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.models.encoders.mgn import MGN
from avplatform.models.encoders.temporal import Temporal
from avplatform.models.errors import UsageError
from avplatform.tasks.agreement import agreement_of
from avplatform.tasks.avel import AVEL
from avplatform.tasks.avel.config import BACKGROUND
from avplatform.tasks.avel.heads import LabelHead, SoftmaxHead
from avplatform.tasks.avel.losses import joint
from avplatform.tasks.batch import Batch, Processes
from avplatform.tasks.metrics import Metrics
from avplatform.tasks.ovavel.analysis import OVAVELAnalysis
from avplatform.tasks.ovavel.cells import CELLS
from avplatform.tasks.ovavel.config import OVAVELConfig
from avplatform.tasks.ovavel.labels import odd_labels
from avplatform.tasks.ovavel.metrics import FIGURES, OVAVELMetrics
from avplatform.tasks.ovavel.stacking import Stacking, amounts

TOKENS = 25
"""Tokens of MGN's encoder, as many as published for the 25 classes of LLP."""
DECIDED_BY_LARGEST = (LabelHead, SoftmaxHead)
"""Heads that decide for the label with the largest score."""


class OVAVEL(AVEL):
    """Event localization among classes of which some have no training clip.

    Losses, heads and decisions are those of event localization. There are two lists of labels: the
    one of the data, with all classes and background, and the shorter one of training, without the
    unseen classes. A model that reads label texts is asked for the shorter list in training and for
    all texts elsewhere; any other model knows the shorter list only. Decisions, metrics and labels
    of the data are numbered by the whole list.

    Source: OV-AVEBench (CVPR 2025), released code; weak supervision is ours.

    Labels of a batch: "segment" [B, T] and "video" [B], class indices of the whole list, and
    perhaps "category" [B], the class for which the clip was collected.

    Raises:
        UsageError: background is among the classes, but is not the last one.
    """

    name = "ovavel"
    Config = OVAVELConfig
    selection_metric = "average"
    shown = ("average",)
    figures: ClassVar[tuple[str, ...]] = (
        *(f"{group}{name}" for group in ("", "seen_", "unseen_") for name in (*FIGURES, "average")),
        "harmonic_average",
    )
    paper = Temporal.paper
    title = "open-vocabulary audio-visual event localization"
    about = (
        "For each second of a clip it names the event that is both heard and seen, or background, "
        "also among classes that it was never trained on"
    )
    cells = CELLS
    odd_labels = staticmethod(odd_labels)
    config: OVAVELConfig

    def __init__(
        self,
        config: OVAVELConfig,
        *,
        classes: Sequence[str],
        texts: Mapping[str, Sequence[str]] | None = None,
        unseen: Sequence[str] = (),
    ) -> None:
        super().__init__(config, classes=classes, texts=texts)
        self._divide(unseen)

    def _divide(self, unseen: Sequence[str]) -> None:
        """Set the unseen classes, and the task of the shorter list."""
        self.unseen = tuple(unseen)
        kept = [n for n, name in enumerate(self.classes) if name not in set(unseen)]
        self._kept = torch.tensor(kept)
        """Positions of the shorter list in the whole one."""
        texts = {s: [found[n] for n in kept] for s, found in self.texts.items()}
        self._trained = AVEL(self.config, classes=[self.classes[n] for n in kept], texts=texts)

    def state(self) -> dict[str, Tensor]:
        """Return what the losses keep from step to step."""
        return self._trained.state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        self._trained.load_state(state)

    def train_splits(self) -> tuple[str, ...]:
        """Return the training split; its clips without event teach background."""
        return ("train",)

    def model_classes(
        self, decoder: str | None = None, encoder: str | None = None
    ) -> tuple[list[str], list[str]]:
        """Return all classes for decoders that read label texts, else those of the training."""
        if decoder is None or DECODERS[decoder].needs_labels:
            return super().model_classes(decoder, encoder)
        return self._trained.model_classes(decoder, encoder or self.default_encoder)

    def with_classes(self, names: Sequence[str], texts: Sequence[str] | None = None) -> Self:
        """Return a copy of the task for these events only, and background."""
        other = copy.copy(self)
        other.classes = (*names, BACKGROUND)
        other.texts = {self.config.label_texts: (*(texts or names), self.class_texts()[-1])}
        other.background = len(names)
        other._divide([name for name in names if name in self.unseen])
        return other

    def encoder_options(self, encoder: str) -> dict[str, Any]:
        """Return a number of tokens for MGN that does not depend on the list of classes."""
        options = super().encoder_options(encoder)
        return {**options, "tokens": TOKENS} if encoder == MGN.name else options

    def decoder_options(self, encoder: str, decoder: str) -> dict[str, Any]:
        """Leave out LEAP's table of classes for gated queries."""
        options = super().decoder_options(encoder, decoder)
        return {n: value for n, value in options.items() if n != "classify_queries"}

    def check(self, encoder: str, decoder: str, encoder_config: Any, decoder_config: Any) -> None:
        """Refuse options that depend on the list of classes, and an amount that nothing reads."""
        super().check(encoder, decoder, encoder_config, decoder_config)
        if self.config.gamma is not None and not DECODERS[decoder].needs_labels:
            raise UsageError(
                f"task_config.gamma is {self.config.gamma}, but {decoder} has no scores of unseen "
                "classes; leave it out"
            )
        if self.unseen and getattr(decoder_config, "classify_queries", False):
            raise UsageError(
                "decoder_config.classify_queries is on, but depends on the list of classes, "
                f"which is longer outside training on {self.name}; leave it off"
            )
        tokens = "tokens" in (ENCODERS[encoder].gives(encoder_config) or ())
        if self.unseen and tokens and DECODERS[decoder].needs_labels:
            raise UsageError(
                f"{encoder} has one token per class (encoder_config.tokens none), but the list of "
                f"classes is longer outside training on {self.name}; give a number of tokens"
            )

    def check_held_out(self, encoder: str) -> None:
        """Refuse classes held out of training, which this task does by itself."""
        if self.unseen:
            raise UsageError(
                f"held_out: {len(self.unseen)} classes of these data are unseen already; leave it "
                "out, and see the figures that begin with unseen"
            )

    def asked(self) -> Tensor | None:
        """Return the positions of the shorter list, for training; texts of events may be all."""
        if not self.unseen:
            return None
        return self._kept if self.config.label_set == "with_background" else self._kept[:-1]

    def prepare(self, model: nn.Module, batch: Batch, processes: Processes) -> Batch:
        """Prepare a batch by the labels of the shorter list."""
        found = self._trained.prepare(model, self._shorter(batch), processes)
        return dataclasses.replace(found, labels=found.labels | batch.labels)

    def loss(self, parse: Parse, encoding: Encoding, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of event localization on the shorter list of labels."""
        return self._trained.loss(parse, encoding, self._shorter(batch))

    def _shorter(self, batch: Batch) -> Batch:
        """Return the batch with segment and video labels of the shorter list.

        Raises:
            ValueError: a training clip has an unseen class.
        """
        to = torch.full((len(self.classes),), -1)
        to[self._kept] = torch.arange(len(self._kept))
        labels = dict(batch.labels)
        for name in ("segment", "video"):
            if name in labels:
                labels[name] = to.to(labels[name].device)[labels[name]]
                if (labels[name] < 0).any():
                    raise ValueError("a training clip has a class that is declared unseen")
        return dataclasses.replace(batch, labels=labels)

    def _knows_all(self, parse: Parse) -> bool:
        """Return whether a parse has scores of the whole list; a shorter one has fewer."""
        if not self.unseen or parse.queried_by_labels or self.config.label_set == "events":
            return True  # texts of events alone are those of all events
        prediction = parse.segment.av or parse.video.av
        return prediction is not None and prediction.values.shape[-1] == len(self.classes)

    def decide(self, parse: Parse) -> dict[str, Tensor]:
        """Return "segment" (int [B, T]), the label of each segment; the last is background.

        Where a model reads label texts, "unseen_only" holds the decisions among unseen classes and
        background alone. With `other_hole`, "unlabelled" (bool [B, T]) says where the F-scores
        see no label: where both streams agree in a clip whose first agreement is on background.
        Where a reference bank decides, "by_bank" (bool [B]) says so.
        """
        if not self._knows_all(parse):
            found = self._trained.decide(parse)["segment"]
            return {"segment": self._kept.to(found.device)[found]}
        decisions = super().decide(parse)
        if parse.by_bank:
            decisions["by_bank"] = torch.ones_like(decisions["segment"][:, 0], dtype=torch.bool)
        if self.config.other_hole:
            rule = dict(clip_class="first", equal_scores=self.config.equal_scores)
            both = agreement_of(parse.for_decisions, self.background, **rule)
            decisions["unlabelled"] = both.agree & (both.label == self.background)
        if (scores := self._scores(parse)) is not None:
            is_seen = torch.ones(scores.shape[-1], dtype=torch.bool, device=scores.device)
            is_seen[self._positions(self.unseen)] = False
            is_seen[self.background] = False
            decisions["unseen_only"] = scores.masked_fill(is_seen, -torch.inf).argmax(dim=-1)
        return decisions

    def evidence(self, parse: Parse, decisions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the evidence of event localization, and what calibrated stacking compares.

        The latter are the best scores "seen", "unseen" and "background", and the labels
        "seen_label" and "unseen_label" of the former two, [B, T]. They are left out where a
        reference bank decides, because the amount is chosen for the decoder's own logits.
        """
        if not self._knows_all(parse):
            kept = self._kept.to(decisions["segment"].device)
            back = torch.full((len(self.classes),), 0, device=kept.device)
            back[kept] = torch.arange(len(kept), device=kept.device)
            found = self._trained.evidence(parse, {"segment": back[decisions["segment"]]})
            return found | {"label": kept[found["label"]]}
        evidence = super().evidence(parse, decisions)
        if parse.by_bank or (scores := self._scores(parse)) is None:
            return evidence
        for name, classes in (("seen", self._trained.classes[:-1]), ("unseen", self.unseen)):
            places = self._positions(classes).to(scores.device)
            evidence[name], best = scores[..., places].max(dim=-1)
            evidence[f"{name}_label"] = places[best]
        return evidence | {"background": scores[..., self.background]}

    def _scores(self, parse: Parse) -> Tensor | None:
        """Return logits [B, T, K] whose largest is decided.

        None: there are none, or there are not both seen and unseen classes.
        """
        if not self.unseen or len(self._trained.classes) == 1:
            return None
        parse = parse.for_decisions
        plain = not self._weak and self.config.decision == "argmax"
        head, logits = self.head(parse), joint(parse, "segment").kind == "logit"
        if not (plain and logits and isinstance(head, DECIDED_BY_LARGEST)):
            return None
        return head.scores(parse)

    @property
    def _weak(self) -> bool:
        return self.config.supervision == "weak"

    def _positions(self, names: Sequence[str]) -> Tensor:
        """Return the positions of some classes in the whole list."""
        chosen = set(names)
        return torch.tensor([n for n, name in enumerate(self.classes) if name in chosen])

    def probabilities(self, parse: Parse) -> dict[str, Tensor]:
        """Return the probability of each event in each segment; 0 for those not known."""
        if self._knows_all(parse):
            return super().probabilities(parse)
        known = self._trained.probabilities(parse)["av"]
        out = known.new_zeros(*known.shape[:2], self.background)
        out[..., self._kept[:-1].to(out.device)] = known
        return {"av": out}

    def analysis(self) -> OVAVELAnalysis:
        """Return the analysis for intervals, comparisons, calibration and thresholds."""
        return OVAVELAnalysis(self.classes)

    def metrics(self) -> OVAVELMetrics:
        """Return a new accumulator."""
        gamma = self.config.gamma
        stacking = None if gamma is None else Stacking(gamma, self.background)
        return OVAVELMetrics(self.classes, self.unseen, stacking=stacking)

    def settle(self, validation: Metrics) -> Self:
        """Return the task with the amount of calibrated stacking that validation prefers.

        It changes no decision: its figures stand beside the plain ones.
        """
        evidence = validation.evidence
        if self.config.gamma is not None or evidence is None or "seen" not in evidence:
            return self
        assert isinstance(validation, OVAVELMetrics)
        if not validation.group("unseen").any() or not validation.timed:
            return self
        tried = amounts(evidence)
        scores = [
            validation.figures_of(Stacking(gamma, self.background).labels(evidence))["average"]
            for gamma in tried
        ]
        other = copy.copy(self)
        other.config = dataclasses.replace(self.config, gamma=tried[int(np.argmax(scores))])
        return other
