"""MMIL, multi-modal multiple-instance learning: one linear classifier and attentive pooling."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avplatform.models.checks import in_range
from avplatform.models.contracts import (
    Decoder,
    Encoder,
    Encoding,
    Gives,
    Needs,
    Parse,
    Prediction,
    StreamPredictions,
    at_least_single,
)
from avplatform.models.encoders.han import HAN


@dataclass(kw_only=True)
class MMILConfig:
    """Options of the MMIL decoder."""

    product: bool = False
    """also predict audio-visual segments, as the product of both streams' probabilities (AVEL)"""
    visual_dropout: float = 0.0
    """dropout on the encoded visual features (JoMoLD: 0.5)"""

    def __post_init__(self) -> None:
        in_range(self, "visual_dropout", 0, 0.999)


class MMIL(Decoder):
    """Classify each segment linearly; pool over time and modality by learned attention.

    Source: HAN (ECCV 2020), section 4.2; LEAP (ECCV 2024), Eq. 1; JoMoLD (ECCV 2022), released
    code, for dropout on the visual stream alone.

    The pooled video probability of both streams together is not a convex average and can exceed 1,
    so the task clamps it.

    Shape: segment [B, T, C] logits per stream; video [B, C] probabilities for audio, visual and av;
    aux: segment_attention and modality_attention [B, T, 2, C].
    """

    name = "mmil"
    Config = MMILConfig
    about = (
        "The decoder MMIL classifies each segment linearly and pools over time and streams by "
        "attention"
    )
    closed = "MMIL classifies with one weight vector per class that it was trained on"
    paper = HAN.paper
    fixed = {"apart": {"product": False}, "joint": {"product": True}}

    @classmethod
    def gives(cls, config: MMILConfig) -> Gives:
        """Return a pooled probability of the whole clip."""
        return frozenset({"pooled"})

    @classmethod
    def scores_background(cls, needs: Needs, encoder: type[Encoder]) -> bool:
        """Return False, because the classes are independent here."""
        return False

    def __init__(
        self, *, config: MMILConfig, width: int, num_classes: int, label_dim: int = 0
    ) -> None:
        super().__init__()
        self.config = config
        self.classifier = nn.Linear(width, num_classes)
        self.segment_attention = nn.Linear(width, num_classes)
        self.modality_attention = nn.Linear(width, num_classes)
        self.visual_dropout = nn.Dropout(config.visual_dropout)

    def forward(self, encoding: Encoding, label_embeddings: Tensor | None = None) -> Parse:
        """Parse the encoded clip; label embeddings are not read."""
        visual = self.visual_dropout(encoding.visual)
        x = torch.stack([encoding.audio, visual], dim=2)  # (B, T, 2, D)
        maps = (self.classifier, self.segment_attention, self.modality_attention)
        weight, bias = torch.cat([m.weight for m in maps]), torch.cat([m.bias for m in maps])
        # One product for the three maps: (B, T, 2, 3C).
        joined = at_least_single(F.linear(x, weight, bias))
        logits, over_time, over_modality = joined.chunk(3, dim=-1)  # (B, T, 2, C) each
        return pooled_parse(logits, over_time, over_modality, product=self.config.product)


def pooled_parse(
    logits: Tensor, over_time: Tensor, over_modality: Tensor, *, product: bool
) -> Parse:
    """Return the parse of segment logits that attention pools over time and modality.

    Args:
        logits: of the segments of audio and visual.
        over_time: attention logits, compared over time.
        over_modality: attention logits, compared over modalities.
        product: also give audio-visual segments, the product of both probabilities.

    Shape: three tensors [B, T, 2, C].
    """
    probability = logits.sigmoid()
    over_time, over_modality = over_time.softmax(dim=1), over_modality.softmax(dim=2)
    audio, visual = (over_time * probability).sum(dim=1).unbind(dim=1)  # (B, C) each
    both = (over_time * over_modality * probability).sum(dim=(1, 2))  # (B, C)
    audio_logits, visual_logits = Prediction(logits[:, :, 0]), Prediction(logits[:, :, 1])
    segment = StreamPredictions(audio=audio_logits, visual=visual_logits)
    if product:
        segment.av = Prediction(probability[:, :, 0] * probability[:, :, 1], "probability")
    return Parse(
        segment=segment,
        video=StreamPredictions(
            audio=Prediction(audio, "probability"),
            visual=Prediction(visual, "probability"),
            av=Prediction(both, "probability"),
        ),
        aux={"segment_attention": over_time, "modality_attention": over_modality},
    )
