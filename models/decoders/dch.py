"""DCH, the default classification heads: hidden features to classes, directly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from avplatform.models.checks import finite, one_of, sizes
from avplatform.models.contracts import (
    Decoder,
    Encoder,
    Encoding,
    Gives,
    Needs,
    Options,
    Parse,
    Prediction,
    Rule,
    StreamPredictions,
)
from avplatform.models.decoders.cmbs_head import CMBSHead
from avplatform.models.encoders.ave import AVE
from avplatform.models.errors import UsageError

WEIGHTED = ("psp", "cmbs")
"""Forms of which weak supervision has another model."""
BEHIND = {
    None: ("ave",),
    "dmrn": ("dmrn", "psp"),
    "psp": ("ave", "psp"),
    "cmbs": ("ave", "psp", "cmbs"),
}
"""Forms that can stand behind an encoder, by the form that its own paper defines."""


@dataclass(kw_only=True)
class DCHConfig:
    """Options of the direct classification head."""

    form: Literal["ave", "dmrn", "psp", "cmbs", "modalities"] = "ave"
    """ave: on both streams; dmrn, psp: on the fused stream; cmbs: relevance and one class; modalities: one a stream (AVVP)"""
    weighting: bool = False
    """psp and cmbs: the head of their weakly supervised model"""
    gamma: float | None = None
    """cmbs: strength of the class scores of the gated queries; none: as published"""
    hidden: int = 64
    """width between the two layers"""
    official_init: bool = True
    """Xavier weights, as published"""

    def __post_init__(self) -> None:
        one_of(self, "form", ("ave", "dmrn", "psp", "cmbs", "modalities"))
        sizes(self, "hidden")
        finite(self, "gamma")


class DCH(Decoder):
    """Classify segments directly.

    Source: AVE (ECCV 2018), section 4 ("ave" and "dmrn"); PSP (CVPR 2021), sections 3.4 and 3.5 ("psp"). "modalities"
    carries the head over to AVVP, where no paper defines one.

    Shape: "ave", "dmrn" and "psp": segment.av [B, T, C] and video.av [B, C] (maximum over time; "psp": mean), logits under
    a softmax; "psp" with weighting: aux raw_score [B, T, C] and temporal_weight [B, T, 1].
    "modalities": segment logits and video probabilities (mean over time) of audio and visual.
    """

    name = "dch"
    Config = DCHConfig
    about = "The decoder DCH classifies each segment directly from the encoded streams"
    closed = "DCH is a classifier with one output a class that it was trained on"
    paper = AVE.paper
    fixed = {"apart": {"form": "modalities"}}

    @classmethod
    def gives(cls, config: DCHConfig) -> Gives:
        """One distribution over all labels, or one class per clip; a pooled probability is their maximum or mean."""
        return frozenset(
            {"pooled", "label scores"} | ({"clip class"} if config.form == "cmbs" else set())
        )

    @classmethod
    def options_for(cls, needs: Needs, encoder: type[Encoder]) -> Options:
        """Streams apart have a head each; one joint stream has the head of the encoder's paper, if there is one."""
        if needs.streams == "apart":
            return super().options_for(needs, encoder)
        form = encoder.own_head(encoder.Config())
        return {"form": form, "weighting": needs.supervision == "weak"} if form else {}

    @classmethod
    def scores_background(cls, needs: Needs, encoder: type[Encoder]) -> bool:
        """Fully supervised, CMBS's head tells background by relevance alone."""
        return needs.supervision != "full" or cls.options_for(needs, encoder).get("form") != "cmbs"

    @classmethod
    def check(
        cls, config: DCHConfig, needs: Needs, encoder: type[Encoder], encoder_config: Any
    ) -> list[Rule]:
        """Refuse forms that do not fit what is wanted, or what the encoder gives."""
        own, form, full = encoder.own_head(encoder_config), config.form, needs.supervision == "full"
        super().check(config, needs, encoder, encoder_config)
        if needs.streams == "joint":
            fits = BEHIND[own] if cls.scores_background(needs, encoder) else (own,)
            if form not in fits:
                raise UsageError(
                    f"decoder_config.form is '{form}'; behind this encoder {needs.asker} takes {' or '.join(map(str, fits))}"
                )
            if form == "cmbs" and config.weighting == full:
                shown, supervision = ("on", "full") if full else ("off", "weak")
                raise UsageError(
                    f"decoder_config.weighting is {shown}; CMBS's head has {supervision} supervision here: leave it out"
                )
        return [
            ("weighting", form in WEIGHTED or own in WEIGHTED, "the forms psp and cmbs"),
            ("gamma", form == "cmbs", "the form cmbs"),
            ("official_init", form != "cmbs", "the other forms than cmbs"),
        ]

    def __init__(
        self, *, config: DCHConfig, width: int, num_classes: int, label_dim: int = 0
    ) -> None:
        super().__init__()
        self.config = config
        linears: list[nn.Linear] = []
        if config.form == "cmbs":
            self.head = CMBSHead(
                width=width, num_classes=num_classes, weak=config.weighting, gamma=config.gamma
            )
        elif config.form == "dmrn":
            self.classifier = nn.Linear(width, num_classes)
            linears = [self.classifier]
        elif config.form == "psp":
            self.hidden = nn.Linear(width, config.hidden, bias=False)
            self.classifier = nn.Linear(config.hidden, num_classes, bias=False)
            if config.weighting:
                self.weighting = nn.Linear(num_classes, 1, bias=False)
            linears = [self.hidden, self.classifier]
        elif config.form == "ave":
            self.hidden = nn.Linear(2 * width, config.hidden)
            self.classifier = nn.Linear(config.hidden, num_classes)
            linears = [self.hidden, self.classifier]
        else:
            self.audio = _head(width, config.hidden, num_classes)
            self.visual = _head(width, config.hidden, num_classes)
            linears += [
                m for head in (self.audio, self.visual) for m in head if isinstance(m, nn.Linear)
            ]
        if config.official_init:
            for linear in linears:
                nn.init.xavier_uniform_(linear.weight)

    def forward(self, encoding: Encoding, label_embeddings: Tensor | None = None) -> Parse:
        """Parse the encoded clip."""
        if self.config.form == "modalities":
            return self._modalities(encoding)
        if self.config.form == "cmbs":
            return self.head(encoding)
        if self.config.form in ("dmrn", "psp") and encoding.fused is None:
            raise ValueError(
                f"the {self.config.form} head reads a fused stream, which this encoder does not give; use form ave"
            )
        if self.config.form == "psp":
            return self._psp(encoding)
        if self.config.form == "dmrn":
            logits = self.classifier(encoding.fused)  # (B, T, C)
        else:
            both = torch.cat(
                [encoding.audio, encoding.visual], dim=-1
            ).relu()  # (B, T, 2D), audio first
            logits = self.classifier(self.hidden(both).relu())
        return Parse(
            segment=StreamPredictions(av=Prediction(logits, activation="softmax")),
            video=StreamPredictions(av=Prediction(logits.amax(dim=1), activation="softmax")),
        )

    def _psp(self, encoding: Encoding) -> Parse:
        score = self.classifier(self.hidden(encoding.fused).relu())  # (B, T, C)
        aux = {}
        if self.config.weighting:
            weight = self.weighting(score).relu().sigmoid()  # (B, T, 1), between 0.5 and 1
            aux = {"raw_score": score, "temporal_weight": weight}
            score = score * weight
        return Parse(
            segment=StreamPredictions(av=Prediction(score, activation="softmax")),
            video=StreamPredictions(av=Prediction(score.mean(dim=1), activation="softmax")),
            aux=aux,
        )

    def _modalities(self, encoding: Encoding) -> Parse:
        audio, visual = (
            Prediction(self.audio(encoding.audio)),
            Prediction(self.visual(encoding.visual)),
        )
        a, v = audio.probability.mean(dim=1), visual.probability.mean(dim=1)  # (B, C)
        return Parse(
            segment=StreamPredictions(audio=audio, visual=visual),
            video=StreamPredictions(
                audio=Prediction(a, "probability"), visual=Prediction(v, "probability")
            ),
        )


def _head(width: int, hidden: int, classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, classes))
