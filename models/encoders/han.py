"""HAN, the hybrid attention network, with the variants of VALOR."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from avplatform.models.checks import DEPTH, check_choices, divides, in_range, sizes
from avplatform.models.contracts import Encoder, Encoding, Gives, Publication
from avplatform.models.errors import UsageError
from avplatform.models.layers.attention import FeedForward, PackedAttention


@dataclass(kw_only=True)
class HANConfig:
    """Options of the HAN encoder; the defaults are the published HAN."""

    width: int = 512
    """model width D"""
    heads: int = 1
    """attention heads (VALOR: 8)"""
    hidden: int = 512
    """feed-forward width (VALOR: 1024)"""
    layers: int = 1
    """layers (VALOR+: 4)"""
    dropout: float = 0.1
    """dropout on attention weights, attention outputs and feed-forward"""
    norm: Literal["post", "pre"] = "post"
    """layer norm after each residual sum, or before each sub-layer"""
    update: Literal["parallel", "sequential"] = "parallel"
    """parallel: streams read each other before the update; sequential: visual reads new audio"""
    stacked: bool = True
    """feed each layer the output of the one before it; off: the original inputs (published HAN)"""
    cross: bool = True
    """attend to the other stream; off: each stream reads itself alone (JoMoLD's noise estimator)"""
    mixture: float = 1.0
    """share of the pass with cross attention; the rest is a pass without it (CMPAE: 0.8)"""
    map_reduction: Literal["mean", "attention"] = "mean"
    """how a visual map becomes a vector: mean over positions, or AVE's audio-guided attention"""
    stem_activation: Literal["none", "elu"] = "none"
    """what follows each affine map of the stem; elu: as in CMPAE, before frames are averaged"""

    def __post_init__(self) -> None:
        check_choices(self)
        sizes(self, "width", "heads", "hidden")
        sizes(self, "layers", most=DEPTH)
        in_range(self, "dropout", 0, 0.999)
        in_range(self, "mixture", 0, 1)
        if not self.cross and self.mixture != 1:
            raise UsageError(
                f"HANConfig.mixture is {self.mixture}, but without cross attention (cross) there "
                "is only one pass to take; leave it at 1"
            )
        divides(self, "heads", self.width, "width")


VALOR = Publication(
    paper="VALOR",
    venue="NeurIPS 2023",
    authors="Lai et al.",
    citation="""@inproceedings{lai2023modality,
  title = {Modality-Independent Teachers Meet Weakly-Supervised Audio-Visual Event Parser},
  author = {Lai, Yung-Hsuan and Chen, Yen-Chun and Wang, Yu-Chiang Frank},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2023}
}""",
)
"""The paper that introduced the options `update`, `stacked` and `norm`, and the pseudo-labels."""


def _valor(lr: float, seed: int) -> dict[str, Any]:
    """Return the training options that all variants of VALOR share, with those that differ."""
    optim = dict(name="adamw", lr=lr, betas=(0.5, 0.999), weight_decay=1e-3, clip_norm=1.0)
    return {
        "optim": optim,
        "schedule": {"name": "warmup_cosine", "warmup_epochs": 10, "min_ratio": 0.01},
        "epochs": 60,
        "batch_size": 64,
        "seed": seed,
        "ties": "first",
    }


class HAN(Encoder):
    """Self and cross-modal attention in one residual sum, with weights that both streams share.

    Source: HAN (ECCV 2020), section 4.1; VALOR (NeurIPS 2023), section 4, for stacking, order and
    pre-norm; JoMoLD (ECCV 2022) for passes without cross attention; CMPAE (CVPR 2023) for their
    mixture.

    Shape: audio and visual [B, T, D] -> audio and visual [B, T, D]; with a mixture also aux
    "self_audio" and "self_visual" [B, T, D], the streams of the pass without cross attention.
    """

    name = "han"
    Config = HANConfig
    wants = "vectors"
    about = "The encoder HAN lets every segment attend to its own stream and to the other one"
    paper = Publication(
        paper="HAN",
        venue="ECCV 2020",
        authors="Tian et al.",
        citation="""@inproceedings{tian2020avvp,
  title = {Unified Multisensory Perception: Weakly-Supervised Audio-Visual Video Parsing},
  author = {Tian, Yapeng and Li, Dingzeyu and Xu, Chenliang},
  booktitle = {European Conference on Computer Vision},
  year = {2020}
}""",
    )
    recipes = {
        "han": {
            "optim": {"lr": 3e-4},
            "schedule": {"name": "epoch_decay", "factor": 0.1, "every": 10},
            "epochs": 40,
            "batch_size": 16,
        },
        "ma": {
            "optim": {"lr": 3e-4},
            "schedule": {"name": "epoch_decay", "factor": 0.1, "every": 10},
            "epochs": 12,
            "batch_size": 16,
        },
        "jomold": {
            "optim": {"lr": 5e-4},
            "schedule": {"name": "epoch_decay", "factor": 0.25, "every": 6},
            "epochs": 25,
            "batch_size": 128,
            "seed": 6,
        },
        "valor": _valor(1e-4, 1000),
        "valor-plus": _valor(3e-4, 64),
        "valor-plusplus": _valor(3e-4, 87),
    }

    @classmethod
    def gives(cls, config: HANConfig) -> Gives:
        """Return "self" where both passes are mixed."""
        return frozenset({"self"} if config.mixture != 1 else ())

    def __init__(
        self, *, config: HANConfig, audio_dim: int, visual_dim: int, positions: int = 1
    ) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self._crosses = config.cross
        self.layers = nn.ModuleList(HANLayer(config) for _ in range(config.layers))
        if config.norm == "pre":
            self.final_norm_audio = nn.LayerNorm(config.width)
            self.final_norm_visual = nn.LayerNorm(config.width)

    def forward(self, audio: Tensor, visual: Tensor) -> Encoding:
        """Encode both streams; see the class docstring for shapes."""
        share = self.config.mixture
        if share == 1 or not self._crosses:
            return Encoding(*self._pass(audio, visual, cross=self._crosses))
        crossed = self._pass(audio, visual, cross=True)
        alone = self._pass(audio, visual, cross=False)
        audio, visual = (share * x + (1 - share) * s for x, s in zip(crossed, alone, strict=True))
        return Encoding(audio, visual, aux={"self_audio": alone[0], "self_visual": alone[1]})

    @contextmanager
    def self_only(self) -> Iterator[None]:
        """Leave cross attention out of all forward passes within the context."""
        before, self._crosses = self._crosses, False
        try:
            yield
        finally:
            self._crosses = before

    def _pass(self, audio: Tensor, visual: Tensor, *, cross: bool) -> tuple[Tensor, Tensor]:
        """Pass both streams through all layers, with or without cross attention."""
        inputs = audio, visual
        for layer in self.layers:
            read = (audio, visual) if self.config.stacked else inputs
            if not cross or self.config.update == "parallel":
                # One pass for both streams: (2B, T, D).
                audio, visual = layer(torch.cat(read), cross=cross).chunk(2)
            else:
                audio = layer(*read)
                visual = layer(read[1], audio)
        if self.config.norm == "pre":
            audio, visual = self.final_norm_audio(audio), self.final_norm_visual(visual)
        return audio, visual


class HANLayer(nn.Module):
    """One layer: a stream attends to the other and to itself; both results enter one residual sum.

    Shape: stream and other [B, T, D] -> [B, T, D].
    """

    def __init__(self, config: HANConfig) -> None:
        super().__init__()
        self.pre = config.norm == "pre"
        width, heads, dropout = config.width, config.heads, config.dropout
        self.self_attention = PackedAttention(width=width, heads=heads, dropout=dropout)
        if config.cross:
            self.cross_attention = PackedAttention(width=width, heads=heads, dropout=dropout)
        self.feedforward = FeedForward(width=width, hidden=config.hidden, dropout=dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, stream: Tensor, other: Tensor | None = None, *, cross: bool = True) -> Tensor:
        """Update `stream`, which reads itself and `other`; `other` is never normalised.

        Without `other`, `stream` holds both streams, one after the other in the batch [2B, T, D],
        and each half reads the other half, or itself alone without `cross`.
        """
        if not cross:
            query = self.norm1(stream) if self.pre else stream
            return self._finish(stream + self.dropout(self.self_attention(query)))
        if other is None:
            if not self.pre:
                return self._exchange(stream)
            other = _swapped(stream)
        query = self.norm1(stream) if self.pre else stream
        x = stream + self.dropout(self.cross_attention(query, other))
        return self._finish(x + self.dropout(self.self_attention(query)))

    def _exchange(self, streams: Tensor) -> Tensor:
        """Update both post-norm streams; query, key and value maps share one matrix product."""
        q, k, v = self.cross_attention.project(streams)
        x = streams + self.dropout(self.cross_attention.mix(q, _swapped(k), _swapped(v)))
        return self._finish(x + self.dropout(self.self_attention(streams)))

    def _finish(self, x: Tensor) -> Tensor:
        """Apply norms and feed-forward after both attentions."""
        if self.pre:
            return x + self.dropout(self.feedforward(self.norm2(x)))
        x = self.norm1(x)
        return self.norm2(x + self.dropout(self.feedforward(x)))


def _swapped(streams: Tensor) -> Tensor:
    """Exchange the halves of the batch."""
    first, second = streams.chunk(2)
    return torch.cat([second, first])
