"""The cosine decoder: segments and texts in one space, with no weights of its own."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avplatform.models.checks import check_choices, finite, in_range
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
    at_least_single,
)
from avplatform.models.decoders.leap import pooled_video
from avplatform.models.encoders.temporal import Temporal

SMALLEST_NORM, SMALLEST_RANGE = 1e-8, 1e-8


@dataclass(kw_only=True)
class CosineConfig:
    """Options of the cosine decoder; by default it has no parameters."""

    combine: Literal["product", "none"] = "product"
    """audio-visual stream: root of the product of both cosines, or none (AVVP)"""
    rectify: Literal["each", "product"] = "each"
    """what counts as 0 where negative: each cosine, or their product (released code)"""
    temperature: Literal["none", "fixed", "learned"] = "none"
    """factor of the scores: none, as published; fixed: `scale`; learned: starting from `scale`"""
    scale: float = 10.0
    """the fixed factor of the scores, or the initial one (1 / temperature)"""
    score_bias: float | None = None
    """initial learned bias on the scores of streams apart; none: off"""

    def __post_init__(self) -> None:
        check_choices(self)
        in_range(self, "scale", 1e-3, 1e4)
        finite(self, "score_bias")


class CosineDecoder(Decoder):
    """Score every segment by the cosines between its streams and the class texts.

    The texts and the encoded streams have one width and one space. The audio-visual score of a text
    is the root of the product of both cosines, stretched over all texts of the segment to [0, 1].

    Source: OV-AVEL (CVPR 2025): these scores are the logits of its fine-tuned baseline, and its
    baseline without training decides by the same cosines.

    Departs: "each" counts a negative cosine as 0; as released ("product"), two negative ones give a
    high score, so that a text from which both streams point away can win. The released scores are
    logits between 0 and 1, so that even the right ones leave a loss of ln(e + C - 1) - 1;
    `temperature` offers a factor. For streams apart (AVVP) nothing is published: there each cosine,
    times a learned factor and with a learned bias, is the logit of its class.

    Shape: encoding [B, T, D], label_embeddings [C, D] -> segment [B, T, C] for audio and visual
    (cosines times the factor), with the product also av; video [B, C]: of av, the maximum over
    time; of streams apart, the mean of probabilities weighted by the softmax of the scores.
    """

    name = "cosine"
    Config = CosineConfig
    needs_labels = True
    about = "The decoder cosine scores every segment by its cosines with the class texts"
    paper = Temporal.paper
    fixed = {"apart": {"combine": "none"}, "joint": {"combine": "product"}}

    @classmethod
    def texts_as_wide(cls, config: CosineConfig) -> bool:
        """Return True: segments are compared with texts as they are."""
        return True

    @classmethod
    def gives(cls, config: CosineConfig) -> Gives:
        """Return one distribution over the texts, or independent scores and pooled videos."""
        if config.combine == "product":
            return frozenset({"label scores", "text distribution"})
        return frozenset({"text scores", "pooled"})

    @classmethod
    def options_for(cls, needs: Needs, encoder: type[Encoder]) -> Options:
        """Return the options; cosines alone say no probability, so streams apart learn to."""
        options = dict(super().options_for(needs, encoder))
        if needs.streams == "apart":
            options |= {"temperature": "learned", "score_bias": -2.5}
        return options

    @classmethod
    def check(
        cls, config: CosineConfig, needs: Needs, encoder: type[Encoder], encoder_config: Any
    ) -> list[Rule]:
        """Return the rules of the options that only one kind of stream reads."""
        super().check(config, needs, encoder, encoder_config)
        product = config.combine == "product"
        return [
            ("rectify", product, "the product of both streams"),
            ("score_bias", not product, "streams apart (AVVP)"),
            ("scale", config.temperature != "none", "temperature fixed or learned"),
        ]

    def __init__(
        self, *, config: CosineConfig, width: int, num_classes: int = 0, label_dim: int = 0
    ) -> None:
        super().__init__()
        self.config = config
        if config.temperature == "learned":
            self.log_scale = nn.Parameter(torch.tensor(math.log(config.scale)))
        if config.score_bias is not None:
            self.score_bias = nn.Parameter(torch.full((2,), float(config.score_bias)))

    def forward(self, encoding: Encoding, label_embeddings: Tensor | None = None) -> Parse:
        """Parse the encoded clip with these labels."""
        if label_embeddings is None:
            raise ValueError("the cosine decoder needs label embeddings [C, D]")
        audio = cosines(encoding.audio, label_embeddings)
        visual = cosines(encoding.visual, label_embeddings)
        if self.config.combine == "none":
            return self._apart(audio, visual)
        scores = product_scores(audio, visual, rectify=self.config.rectify)
        streams = {
            name: Prediction(self._factor * x, activation="softmax")
            for name, x in (("audio", audio), ("visual", visual), ("av", scores))
        }
        whole = Prediction(streams["av"].values.amax(dim=1), activation="softmax")
        return Parse(segment=StreamPredictions(**streams), video=StreamPredictions(av=whole))

    @property
    def _factor(self) -> Tensor | float:
        """The factor of the scores."""
        if self.config.temperature == "learned":
            return self.log_scale.exp()
        return self.config.scale if self.config.temperature == "fixed" else 1.0

    def _apart(self, audio: Tensor, visual: Tensor) -> Parse:
        """Return logits of each stream, and pooled probabilities of the clip."""
        scores = torch.stack([audio, visual], dim=1).mT * self._factor  # (B, S, C, T)
        logits = scores
        if self.config.score_bias is not None:
            logits = logits + self.score_bias[:, None, None]
        segment = {
            name: Prediction(x.mT)
            for name, x in zip(("audio", "visual"), logits.unbind(dim=1), strict=True)
        }
        return Parse(
            segment=StreamPredictions(**segment),
            video=pooled_video(segment, scores),
            attention=scores.detach().softmax(dim=-1),
            queried_by_labels=True,
        )


def cosines(vectors: Tensor, texts: Tensor) -> Tensor:
    """Return the cosine of every vector with every text, in at least single precision.

    Norms below 1e-8 count as 1e-8, so a vector of zeros has the cosine 0 with every text.

    Shape: vectors [B, T, D], texts [C, D] -> [B, T, C].
    """
    # In half precision many scores would be equal. The meta device knows no autocast.
    kind = vectors.device.type
    with nullcontext() if vectors.is_meta else torch.autocast(kind, enabled=False):
        x, e = (
            F.normalize(at_least_single(y), dim=-1, eps=SMALLEST_NORM) for y in (vectors, texts)
        )
        return x @ e.to(x.dtype).T


def product_scores(
    audio: Tensor, visual: Tensor, *, rectify: Literal["each", "product"] = "each"
) -> Tensor:
    """Return the audio-visual scores of texts from both streams' cosines, in [0, 1].

    They are the roots of the products, less the smallest of the segment, over the range. A product
    that is not positive has gradient 0; that of a root there is infinite.

    Shape: two [B, T, C] -> [B, T, C].
    """
    if rectify == "each":
        audio, visual = audio.relu(), visual.relu()
    product = audio * visual
    some = product > 0
    roots = torch.where(some, product, torch.ones_like(product)).sqrt() * some
    low, high = roots.amin(dim=-1, keepdim=True), roots.amax(dim=-1, keepdim=True)
    return (roots - low) / (high - low + SMALLEST_RANGE)
