"""MMIL, multi-modal multiple-instance learning: one linear classifier and attentive pooling."""

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
    Options,
    Parse,
    Prediction,
    Rule,
    StreamPredictions,
    at_least_single,
)
from avplatform.models.encoders.han import HAN
from avplatform.models.errors import UsageError


@dataclass(kw_only=True)
class MMILConfig:
    """Options of the MMIL decoder."""

    levels: Literal["last", "mean"] = "last"
    """what is classified: the encoding, or each level of the encoder, with their mean (DHHN)"""
    product: bool = False
    """also predict audio-visual segments, as the product of both streams' probabilities (AVEL)"""
    visual_dropout: float = 0.0
    """dropout on the encoded visual features (JoMoLD: 0.5)"""

    def __post_init__(self) -> None:
        check_choices(self)
        in_range(self, "visual_dropout", 0, 0.999)


class MMIL(Decoder):
    """Classify each segment linearly; pool over time and modality by learned attention.

    Source: HAN (ECCV 2020), section 4.2; LEAP (ECCV 2024), Eq. 1; JoMoLD (ECCV 2022), released
    code, for dropout on the visual stream alone; DHHN (ACM MM 2022), released code, for levels.

    The pooled video probability of both streams together is not a convex average and can exceed 1,
    so the task clamps it.

    With `levels` "mean" each level of the encoder is classified by the same maps, and all
    probabilities are means over the levels.

    Shape: segment [B, T, C] logits per stream ("mean": probabilities); video [B, C] probabilities
    for audio, visual and av; aux: segment_attention and modality_attention [B, T, 2, C].
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
    def options_for(cls, needs: Needs, encoder: type[Encoder]) -> Options:
        """Return the mean over the levels of an encoder that gives them."""
        options = dict(super().options_for(needs, encoder))
        if "levels" in (encoder.gives(encoder.Config()) or ()):
            options["levels"] = "mean"
        return options

    @classmethod
    def check(
        cls, config: MMILConfig, needs: Needs, encoder: type[Encoder], encoder_config: Any
    ) -> list[Rule]:
        """Refuse levels that the encoder does not give."""
        super().check(config, needs, encoder, encoder_config)
        if config.levels == "mean" and "levels" not in (encoder.gives(encoder_config) or ()):
            raise UsageError(
                f"decoder_config.levels is 'mean', but {encoder.name} has no levels; use last"
            )
        return []

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
        (audio_rows, visual_rows), levels = self._streams(encoding)
        x = torch.stack([audio_rows, self.visual_dropout(visual_rows)], dim=2)  # (B L, T, 2, D)
        maps = (self.classifier, self.segment_attention, self.modality_attention)
        weight, bias = torch.cat([m.weight for m in maps]), torch.cat([m.bias for m in maps])
        # One product for the three maps: (B L, T, 2, 3C).
        joined = at_least_single(F.linear(x, weight, bias))
        logits, over_time, over_modality = joined.chunk(3, dim=-1)  # (B L, T, 2, C) each
        return pooled_parse(
            logits, over_time, over_modality, product=self.config.product, levels=levels
        )

    def _streams(self, encoding: Encoding) -> tuple[list[Tensor], int | None]:
        """Return what is classified, two [B L, T, D], and the number of levels L if not the last.

        Shape: L is 1 where only the encoding is read.
        """
        if self.config.levels == "last":
            return [encoding.audio, encoding.visual], None
        levels = [encoding.aux.get(f"levels_{stream}") for stream in ("audio", "visual")]
        if levels[0] is None or levels[1] is None:
            raise ValueError("MMIL is set to read all levels, which this encoder does not give")
        return [x.flatten(0, 1) for x in levels if x is not None], levels[0].shape[1]


def pooled_parse(
    logits: Tensor,
    over_time: Tensor,
    over_modality: Tensor,
    *,
    product: bool,
    levels: int | None = None,
) -> Parse:
    """Return the parse of segment logits that attention pools over time and modality.

    Args:
        logits: of the segments of audio and visual.
        over_time: attention logits, compared over time.
        over_modality: attention logits, compared over modalities.
        product: also give audio-visual segments, the product of both probabilities.
        levels: the number of consecutive rows that are levels of one clip; the probabilities are
            means over them. None: each row is a clip, and the segments have logits.

    Shape: three tensors [B, T, 2, C], or [B L, T, 2, C] for L levels.
    """
    probability = logits.sigmoid()
    over_time, over_modality = over_time.softmax(dim=1), over_modality.softmax(dim=2)
    audio, visual = (over_time * probability).sum(dim=1).unbind(dim=1)  # (B, C) each
    both = (over_time * over_modality * probability).sum(dim=(1, 2))  # (B, C)
    heard, seen = (Prediction(x) for x in logits.unbind(dim=2))  # (B, T, C) each
    if levels is not None:
        found = (probability, audio, visual, both, over_time, over_modality)
        probability, audio, visual, both, over_time, over_modality = (
            x.unflatten(0, (-1, levels)).mean(dim=1) for x in found
        )
        heard, seen = (Prediction(x, "probability") for x in probability.unbind(dim=2))
    segment = StreamPredictions(audio=heard, visual=seen)
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
