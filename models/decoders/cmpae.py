"""The evidence head of CMPAE: evidence for and against each class, and how uncertain it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avplatform.models.checks import check_choices, in_range
from avplatform.models.contracts import (
    Decoder,
    Encoder,
    Encoding,
    Gives,
    Needs,
    Parse,
    Prediction,
    Publication,
    Rule,
    StreamPredictions,
    at_least_single,
    may_give,
)

CLAMP = 10.0
"""Logits are clamped to [-10, 10] before they become evidence."""
TEMPERATURE = 0.8
"""Clamped logits are divided by this."""
SLOPE = 0.2
"""Negative slope of the leaky rectifiers."""


@dataclass(kw_only=True)
class EvidenceConfig:
    """Options of the evidence decoder; the defaults are the released CMPAE."""

    fusion: float = 0.7
    """share of the mixed streams in decisions; the rest is the pass without cross attention"""
    absence: Literal["add", "multiply"] = "add"
    """features against a class: x + h as released, or x + x h as in the paper's figure"""
    dropout: float = 0.2
    """dropout on the features against a class"""
    visual_dropout: float = 0.5
    """dropout on the encoded visual stream"""
    product: bool = False
    """also predict audio-visual segments, as the product of both streams' probabilities (AVEL)"""

    def __post_init__(self) -> None:
        check_choices(self)
        in_range(self, "fusion", 0, 1)
        in_range(self, ("dropout", "visual_dropout"), 0, 0.999)


class Evidence(Decoder):
    """Weigh evidence for a class against evidence against it, for segments and for videos.

    A logit l becomes the parameter exp(l / 0.8) + 1 of a Beta distribution, whose mean is the
    probability of the class and whose width is the uncertainty. A second branch reads both streams
    of the stem and predicts the classes of the whole clip.

    Source: CMPAE (CVPR 2023), released code.

    Departs: the released code runs the model twice for a decision, with and without cross
    attention; here the encoder hands on both passes (HAN with a mixture). Behind encoders without
    the second pass, decisions read the first alone; where the stem's streams are absent or of
    another width, the joint branch reads the encoded ones.

    Shape: segment [B, T, C] logits per stream; video logits [B, C] for audio and visual,
    probabilities [B, C] for av; aux: uncertainty_audio and uncertainty_visual [B, C],
    uncertainty_av [B], segment_uncertainty [B, T, 2, C], segment_logits and evidence_attention
    [B, T, 2, C, 2] (for, against), video_logits [B, 2, C, 2].
    """

    name = "cmpae"
    Config = EvidenceConfig
    about = (
        "The evidence decoder weighs evidence for each class against evidence against it, which "
        "also tells how uncertain a prediction is"
    )
    closed = (
        "the evidence decoder classifies with one weight vector per class that it was trained on"
    )
    paper = Publication(
        paper="CMPAE",
        venue="CVPR 2023",
        authors="Gao et al.",
        citation="""@inproceedings{gao2023cmpae,
  title = {Collecting Cross-Modal Presence-Absence Evidence for Weakly-Supervised
           Audio-Visual Event Perception},
  author = {Gao, Junyu and Chen, Mengyuan and Xu, Changsheng},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2023}
}""",
    )
    recipes = {
        "cmpae": {
            "optim": {"lr": 5e-4},
            "schedule": {"name": "epoch_decay", "factor": 0.25, "every": 6},
            "epochs": 20,
            "batch_size": 128,
            "seed": 0,
        }
    }
    fixed = {"apart": {"product": False}, "joint": {"product": True}}

    @classmethod
    def gives(cls, config: EvidenceConfig) -> Gives:
        """Return a pooled probability of the whole clip, and uncertainties."""
        return frozenset({"pooled", "uncertainty"})

    @classmethod
    def scores_background(cls, needs: Needs, encoder: type[Encoder]) -> bool:
        """Return False, because the classes are independent here."""
        return False

    @classmethod
    def check(
        cls, config: EvidenceConfig, needs: Needs, encoder: type[Encoder], encoder_config: Any
    ) -> list[Rule]:
        """Say that `fusion` is read behind an encoder of two passes."""
        twice = may_give(encoder.gives(encoder_config), "self")
        rules = super().check(config, needs, encoder, encoder_config)
        return [*rules, ("fusion", twice, "an encoder of two passes (han with a mixture below 1)")]

    def __init__(
        self, *, config: EvidenceConfig, width: int, num_classes: int, label_dim: int = 0
    ) -> None:
        super().__init__()
        self.config, self.width = config, width
        self.visual_dropout = nn.Dropout(config.visual_dropout)
        self.presence = nn.Linear(width, num_classes)
        self.absence = nn.Linear(width, num_classes)
        self.attention = nn.Linear(width, 2 * num_classes)
        self.audio_selector = nn.Linear(width, width)
        self.visual_selector = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.dropout)
        self.joint_hidden = nn.Linear(width, width)
        self.joint_classifier = nn.Linear(width, num_classes)

    def forward(self, encoding: Encoding, label_embeddings: Tensor | None = None) -> Parse:
        """Parse the encoded clip; label embeddings are not read."""
        aux = encoding.aux
        parse = self._parse(encoding.audio, encoding.visual)
        audio, visual = aux.get("stem_audio"), aux.get("stem_visual")
        if audio is None or visual is None or {audio.shape[-1], visual.shape[-1]} != {self.width}:
            audio, visual = encoding.audio, encoding.visual
        whole, uncertainty = self._joint(audio, visual)
        parse.video.av, parse.aux["uncertainty_av"] = Prediction(whole, "probability"), uncertainty
        if "self_audio" in aux and not self.training:  # losses never read the second pass
            alone = self._parse(aux["self_audio"], aux["self_visual"])
            segment = self._fused(parse.segment, alone.segment)
            video = self._fused(parse.video, alone.video)
            parse.decided = Parse(segment=segment, video=video, aux=parse.aux)
            video.av = parse.video.av
            self._multiply(segment)
        self._multiply(parse.segment)
        return parse

    def absent(self, x: Tensor) -> Tensor:
        """Return the features that speak against classes: [B, T, 2, D] -> [B, T, 2, D]."""
        both = x.sum(dim=2)  # (B, T, D)
        chosen = [self.dropout(m(both)) for m in (self.audio_selector, self.visual_selector)]
        selected = F.leaky_relu(torch.stack(chosen, dim=2), SLOPE)
        return x + (x * selected if self.config.absence == "multiply" else selected)

    def _parse(self, audio: Tensor, visual: Tensor) -> Parse:
        """Predict both streams: two [B, T, D] -> segments and videos with their uncertainties."""
        x = torch.stack([audio, self.visual_dropout(visual)], dim=2)  # (B, T, 2, D)
        logits = torch.stack([self.presence(x), self.absence(self.absent(x))], dim=-1)
        logits = at_least_single(logits)  # (B, T, 2, C, 2)
        weights = at_least_single(self.attention(x)).unflatten(-1, (-1, 2)).softmax(dim=1)
        pooled = (weights * logits).sum(dim=1)  # (B, 2, C, 2)
        audio_logits, visual_logits = beta_logit(logits).unbind(dim=2)  # (B, T, C) each
        heard, seen = beta_logit(pooled).unbind(dim=1)  # (B, C) each
        unsure = beta_uncertainty(pooled)  # (B, 2, C)
        return Parse(
            segment=StreamPredictions(Prediction(audio_logits), Prediction(visual_logits)),
            video=StreamPredictions(Prediction(heard), Prediction(seen)),
            aux={
                "uncertainty_audio": unsure[:, 0],
                "uncertainty_visual": unsure[:, 1],
                "segment_uncertainty": beta_uncertainty(logits),
                "segment_logits": logits,
                "evidence_attention": weights,
                "video_logits": pooled,
            },
        )

    def _joint(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities [B, C] of the whole clip, and one uncertainty per clip [B]."""
        hidden = [F.leaky_relu(self.joint_hidden(x), SLOPE) for x in (audio, visual)]
        logits = at_least_single(self.joint_classifier(hidden[0] + hidden[1]))  # (B, T, C)
        total = beta_evidence(logits.mean(dim=1)).sum(dim=-1)
        return logits.sigmoid().mean(dim=1), logits.shape[-1] / total

    def _fused(self, mixed: StreamPredictions, alone: StreamPredictions) -> StreamPredictions:
        """Return the weighted mean of the probabilities of two passes."""
        share, found = self.config.fusion, {}
        for name in ("audio", "visual"):
            first, second = getattr(mixed, name).probability, getattr(alone, name).probability
            found[name] = Prediction(share * first + (1 - share) * second, "probability")
        return StreamPredictions(**found)

    def _multiply(self, segment: StreamPredictions) -> None:
        """Add the product of both streams, if it is wanted."""
        if self.config.product:
            both = segment.audio.probability * segment.visual.probability  # type: ignore[union-attr]
            segment.av = Prediction(both, "probability")


def beta_evidence(logits: Tensor) -> Tensor:
    """Return the parameters of Beta or Dirichlet distributions, which are above 1."""
    return (logits.clamp(-CLAMP, CLAMP) / TEMPERATURE).exp() + 1


def beta_logit(logits: Tensor) -> Tensor:
    """Return the logit of the mean of a Beta distribution, log(alpha / beta).

    Shape: logits for and against a class [..., 2] -> [...].
    """
    scaled = F.softplus(logits.clamp(-CLAMP, CLAMP) / TEMPERATURE)  # log(exp(x) + 1)
    return scaled[..., 0] - scaled[..., 1]


def beta_uncertainty(logits: Tensor) -> Tensor:
    """Return the uncertainty 2 / (alpha + beta), between 0 and 1: [..., 2] -> [...]."""
    return 2 / beta_evidence(logits).sum(dim=-1)
