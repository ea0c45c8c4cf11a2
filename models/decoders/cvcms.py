"""CVCMS's decoder: a token per segment, class and stream, and attention among the classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from avplatform.models.checks import divides, in_range, sizes
from avplatform.models.contracts import (
    Decoder,
    Encoder,
    Encoding,
    Gives,
    Needs,
    Parse,
    Publication,
    at_least_single,
)
from avplatform.models.decoders.mmil import pooled_parse
from avplatform.models.encoders.han import HANConfig, HANLayer


@dataclass(kw_only=True)
class ClassTokensConfig:
    """Options of the decoder of class tokens; the defaults are the published ones."""

    token_width: int = 128
    """width of a token"""
    heads: int = 1
    """attention heads among the classes"""
    hidden: int = 128
    """feed-forward width among the classes"""
    dropout: float = 0.25
    """dropout of the layer among the classes"""
    product: bool = False
    """also predict audio-visual segments, as the product of both streams' probabilities (AVEL)"""

    def __post_init__(self) -> None:
        sizes(self, "token_width", "heads", "hidden")
        in_range(self, "dropout", 0, 0.999)
        divides(self, "heads", self.token_width, "token_width")


class ClassTokens(Decoder):
    """Let the classes of each segment attend to each other, then pool as MMIL does.

    Source: CVCMS (NeurIPS 2021), released code: one HAN layer, shared by both streams, whose
    sequence is the classes of one segment; the tokens of a stream attend to each other and to those
    of the other stream. One map per stream, shared by all classes, gives the probability.

    Departs: the released checkpoints hold maps of a third, audio-visual stream, which nothing
    reads; they are left out.

    Shape: segment [B, T, C] logits per stream; video [B, C] probabilities for audio, visual and av;
    aux: segment_attention and modality_attention [B, T, 2, C].
    """

    name = "cvcms"
    Config = ClassTokensConfig
    about = (
        "The decoder of class tokens lets the classes of a segment attend to each other and pools "
        "over time and streams by attention"
    )
    closed = "it makes the tokens by maps of the classes that it was trained on"
    paper = Publication(
        paper="CVCMS",
        venue="NeurIPS 2021",
        authors="Lin et al.",
        citation="""@inproceedings{lin2021exploring,
  title = {Exploring Cross-Video and Cross-Modality Signals for Weakly-Supervised Audio-Visual
           Video Parsing},
  author = {Lin, Yan-Bo and Tseng, Hung-Yu and Lee, Hsin-Ying and Lin, Yen-Yu and
            Yang, Ming-Hsuan},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2021}
}""",
    )
    recipes = {
        "cvcms": {
            "optim": {"lr": 7e-5},
            "schedule": {"name": "epoch_decay", "factor": 0.5, "every": 7},
            "epochs": 40,
            "batch_size": 64,
            "seed": 0,
            "patience": 10,
        },
    }
    fixed = {"apart": {"product": False}, "joint": {"product": True}}

    @classmethod
    def gives(cls, config: ClassTokensConfig) -> Gives:
        """Return a pooled probability of the whole clip."""
        return frozenset({"pooled"})

    @classmethod
    def scores_background(cls, needs: Needs, encoder: type[Encoder]) -> bool:
        """Return False, because each class has a probability of its own."""
        return False

    def __init__(
        self, *, config: ClassTokensConfig, width: int, num_classes: int, label_dim: int = 0
    ) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.audio_tokens = nn.Linear(width, num_classes * config.token_width)
        self.visual_tokens = nn.Linear(width, num_classes * config.token_width)
        self.layer = HANLayer(
            HANConfig(
                width=config.token_width,
                heads=config.heads,
                hidden=config.hidden,
                dropout=config.dropout,
            )
        )
        self.audio_classifier = nn.Linear(config.token_width, 1)
        self.visual_classifier = nn.Linear(config.token_width, 1)
        self.segment_attention = nn.Linear(width, num_classes)
        self.modality_attention = nn.Linear(width, num_classes)

    def tokens(self, encoding: Encoding) -> Tensor:
        """Return the tokens before they attend: audio and then visual, [2 * B * T, C, O]."""
        streams = self.audio_tokens(encoding.audio), self.visual_tokens(encoding.visual)
        return rearrange(
            torch.stack(streams).relu(), "m b t (c o) -> (m b t) c o", c=self.num_classes
        )

    def forward(self, encoding: Encoding, label_embeddings: Tensor | None = None) -> Parse:
        """Parse the encoded clip; label embeddings are not read."""
        audio, visual = self.layer(self.tokens(encoding)).chunk(2)  # (B * T, C, O) each
        scores = self.audio_classifier(audio), self.visual_classifier(visual)
        segments = encoding.audio.shape[1]
        logits = rearrange(torch.stack(scores), "m (b t) c 1 -> b t m c", t=segments)
        x = torch.stack([encoding.audio, encoding.visual], dim=2)  # (B, T, 2, D)
        return pooled_parse(
            at_least_single(logits),
            at_least_single(self.segment_attention(x)),
            at_least_single(self.modality_attention(x)),
            product=self.config.product,
        )
