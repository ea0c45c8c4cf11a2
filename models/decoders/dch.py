"""DCH, the direct classification heads: from encoded features to classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from avplatform.models.checks import check_choices, finite, sizes
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
"""Forms that have another model for weak supervision."""
BEHIND = {
    None: ("ave",),
    "dmrn": ("dmrn", "psp"),
    "psp": ("ave", "psp"),
    "cmbs": ("ave", "psp", "cmbs"),
}
"""Forms that can stand behind an encoder, by the form that its own paper defines."""


@dataclass(kw_only=True)
class DCHConfig:
    """Options of the direct classification heads."""

    form: Literal["ave", "dmrn", "psp", "cmbs", "modalities"] = "ave"
    """ave: both streams; dmrn, psp: fused stream; cmbs: relevance, one class; modalities: AVVP"""
    weighting: bool = False
    """psp and cmbs: the head of their weakly supervised model"""
    gamma: float | None = None
    """cmbs: strength of the class scores of the gated queries; none: as published"""
    hidden: int = 64
    """width between the two layers"""
    official_init: bool = True
    """Xavier weights, as published"""

    def __post_init__(self) -> None:
        check_choices(self)
        sizes(self, "hidden")
        finite(self, "gamma")


class DCH(Decoder):
    """Classify segments directly from the encoded streams.

    Source: AVE (ECCV 2018), section 4 ("ave" and "dmrn"); PSP (CVPR 2021), sections 3.4 and 3.5
    ("psp"); CMBS (CVPR 2022), section 3.4 ("cmbs"). "modalities" applies the head to each stream
    separately, for which no paper defines one.

    Shape: see the forms below; C is `num_classes`.
    """

    name = "dch"
    Config = DCHConfig
    about = "The decoder DCH classifies each segment directly from the encoded streams"
    closed = "DCH is a classifier with one output per class that it was trained on"
    paper = AVE.paper
    fixed = {"apart": {"form": "modalities"}}

    @classmethod
    def gives(cls, config: DCHConfig) -> Gives:
        """Return a pooled probability, one distribution over all labels, and a class per clip."""
        return frozenset(
            {"pooled", "label scores"} | ({"clip class"} if config.form == "cmbs" else set())
        )

    @classmethod
    def options_for(cls, needs: Needs, encoder: type[Encoder]) -> Options:
        """Return the form: a head per stream, or for a joint stream that of the encoder's paper."""
        if needs.streams == "apart":
            return super().options_for(needs, encoder)
        form = encoder.own_head(encoder.Config())
        return {"form": form, "weighting": needs.supervision == "weak"} if form else {}

    @classmethod
    def scores_background(cls, needs: Needs, encoder: type[Encoder]) -> bool:
        """Return False for CMBS's supervised head, which finds background by relevance alone."""
        return needs.supervision != "full" or cls.options_for(needs, encoder).get("form") != "cmbs"

    @classmethod
    def check(
        cls, config: DCHConfig, needs: Needs, encoder: type[Encoder], encoder_config: Any
    ) -> list[Rule]:
        """Refuse forms that do not fit the task or the outputs of the encoder."""
        own, form, full = encoder.own_head(encoder_config), config.form, needs.supervision == "full"
        super().check(config, needs, encoder, encoder_config)
        if needs.streams == "joint":
            fits = BEHIND[own] if cls.scores_background(needs, encoder) else (own,)
            if form not in fits:
                raise UsageError(
                    f"decoder_config.form is '{form}'; behind this encoder {needs.asker} takes "
                    f"{' or '.join(map(str, fits))}"
                )
            if form == "cmbs" and config.weighting == full:
                shown, supervision = ("on", "full") if full else ("off", "weak")
                raise UsageError(
                    f"decoder_config.weighting is {shown}; "
                    f"CMBS's head has {supervision} supervision here: leave it out"
                )
        return [
            ("weighting", form in WEIGHTED or own in WEIGHTED, "the forms psp and cmbs"),
            ("gamma", form == "cmbs", "the form cmbs"),
            ("official_init", form != "cmbs", "the forms other than cmbs"),
        ]

    def __init__(
        self, *, config: DCHConfig, width: int, num_classes: int, label_dim: int = 0
    ) -> None:
        super().__init__()
        self.config, self._form = config, FORMS[config.form]
        linears = self._form.build(self, width, num_classes)
        if config.official_init:
            for linear in linears:
                nn.init.xavier_uniform_(linear.weight)

    def forward(self, encoding: Encoding, label_embeddings: Tensor | None = None) -> Parse:
        """Parse the encoded clip."""
        return self._form.parse(self, encoding)


class Form:
    """One published form of the head: its layers, and how they parse a clip."""

    def build(self, head: Any, width: int, classes: int) -> list[nn.Linear]:
        """Add the layers to the head; return those that the published code initialises."""
        raise NotImplementedError

    def parse(self, head: Any, encoding: Encoding) -> Parse:
        """Parse the encoded clip with the head's layers."""
        raise NotImplementedError


class BothStreams(Form):
    """Two layers on the concatenation of both streams.

    Shape: segment.av [B, T, C], video.av [B, C] (maximum over time), logits under a softmax.
    """

    def build(self, head: Any, width: int, classes: int) -> list[nn.Linear]:
        """Add two layers."""
        head.hidden = nn.Linear(2 * width, head.config.hidden)
        head.classifier = nn.Linear(head.config.hidden, classes)
        return [head.hidden, head.classifier]

    def parse(self, head: Any, encoding: Encoding) -> Parse:
        """Classify [audio; visual]."""
        both = torch.cat([encoding.audio, encoding.visual], dim=-1).relu()  # (B, T, 2D)
        logits = head.classifier(head.hidden(both).relu())
        return _joint(logits, logits.amax(dim=1), {})


class FusedLinear(Form):
    """One layer on the fused stream.

    Shape: segment.av [B, T, C], video.av [B, C] (maximum over time), logits under a softmax.
    """

    def build(self, head: Any, width: int, classes: int) -> list[nn.Linear]:
        """Add one layer."""
        head.classifier = nn.Linear(width, classes)
        return [head.classifier]

    def parse(self, head: Any, encoding: Encoding) -> Parse:
        """Classify."""
        logits = head.classifier(_fused(head, encoding))
        return _joint(logits, logits.amax(dim=1), {})


class FusedPair(Form):
    """Two layers without bias on the fused stream; `weighting` weights segments by their scores.

    Shape: segment.av [B, T, C], video.av [B, C] (mean over time), logits under a softmax; with
    weighting: aux raw_score [B, T, C] and temporal_weight [B, T, 1].
    """

    def build(self, head: Any, width: int, classes: int) -> list[nn.Linear]:
        """Add the layers."""
        head.hidden = nn.Linear(width, head.config.hidden, bias=False)
        head.classifier = nn.Linear(head.config.hidden, classes, bias=False)
        if head.config.weighting:
            head.weighting = nn.Linear(classes, 1, bias=False)
        return [head.hidden, head.classifier]

    def parse(self, head: Any, encoding: Encoding) -> Parse:
        """Classify and weight."""
        score = head.classifier(head.hidden(_fused(head, encoding)).relu())  # (B, T, C)
        aux = {}
        if head.config.weighting:
            weight = head.weighting(score).relu().sigmoid()  # (B, T, 1), between 0.5 and 1
            aux = {"raw_score": score, "temporal_weight": weight}
            score = score * weight
        return _joint(score, score.mean(dim=1), aux)


class RelevanceForm(Form):
    """CMBS's own head; see `CMBSHead`."""

    def build(self, head: Any, width: int, classes: int) -> list[nn.Linear]:
        """Add the head; its layers keep PyTorch's initial weights."""
        config = head.config
        head.head = CMBSHead(
            width=width, num_classes=classes, weak=config.weighting, gamma=config.gamma
        )
        return []

    def parse(self, head: Any, encoding: Encoding) -> Parse:
        """Parse by relevance and one class."""
        return head.head(encoding)


class StreamsApart(Form):
    """Two layers per stream.

    Shape: segment logits [B, T, C] and video probabilities [B, C] (mean over time) of audio and
    visual.
    """

    def build(self, head: Any, width: int, classes: int) -> list[nn.Linear]:
        """Add two layers per stream."""
        hidden = head.config.hidden
        for name in ("audio", "visual"):
            layers = (nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, classes))
            setattr(head, name, nn.Sequential(*layers))
        return [m for part in (head.audio, head.visual) for m in part if isinstance(m, nn.Linear)]

    def parse(self, head: Any, encoding: Encoding) -> Parse:
        """Classify both streams."""
        audio = Prediction(head.audio(encoding.audio))
        visual = Prediction(head.visual(encoding.visual))
        whole = [p.probability.mean(dim=1) for p in (audio, visual)]  # (B, C) each
        return Parse(
            segment=StreamPredictions(audio=audio, visual=visual),
            video=StreamPredictions(
                audio=Prediction(whole[0], "probability"),
                visual=Prediction(whole[1], "probability"),
            ),
        )


FORMS: dict[str, Form] = {
    "ave": BothStreams(),
    "dmrn": FusedLinear(),
    "psp": FusedPair(),
    "cmbs": RelevanceForm(),
    "modalities": StreamsApart(),
}


def _joint(segment: Tensor, video: Tensor, aux: dict[str, Tensor]) -> Parse:
    """Return a parse of joint logits under a softmax."""
    return Parse(
        segment=StreamPredictions(av=Prediction(segment, activation="softmax")),
        video=StreamPredictions(av=Prediction(video, activation="softmax")),
        aux=aux,
    )


def _fused(head: Any, encoding: Encoding) -> Tensor:
    if encoding.fused is None:
        raise ValueError(
            f"the {head.config.form} head reads a fused stream, which this encoder does not give; "
            "use form ave"
        )
    return encoding.fused
