"""The temporal layers of OV-AVEL's baseline: each stream attends to its own segments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from avplatform.models.checks import DEPTH, check_choices, divides, in_range, sizes
from avplatform.models.contracts import Encoder, Encoding, Gives, Publication, Rule
from avplatform.models.errors import UsageError
from avplatform.models.layers.attention import FeedForward

LARGEST_SCALE = 1e6


@dataclass(kw_only=True)
class TemporalConfig:
    """Options of the temporal encoder; the defaults are the published layers."""

    width: int | None = None
    """project both streams to this width D; none: take the features as they are, as published"""
    space: Literal["auto", "shared", "apart"] = "auto"
    """features as they are: one space; apart: side by side; auto: by whether the widths agree"""
    input_scale: tuple[float, float] | None = None
    """norms that audio and visual vectors get (ImageBind: 20 and 1); none: as they are"""
    layers: int = 1
    """layers of each stream"""
    form: Literal["attention", "linear"] = "attention"
    """linear: a layer is one affine map, which sees no other segment"""
    heads: int = 1
    """attention heads; the scores are divided by the root of attention_width, not of a head's"""
    attention_width: int = 256
    """width of queries, keys and values"""
    hidden: int = 512
    """feed-forward width"""
    dropout: float = 0.1
    """dropout inside the feed-forward"""
    adjacency: bool = False
    """add to the scores a learned function of the distance of two segments"""
    window: int | None = None
    """also attend within windows of so many segments, mixed with the rest by a learned share"""
    power_norm: bool = False
    """what a segment reads by attention: each channel's signed roots, with norm 1 over time"""
    official_init: bool = True
    """start all layers of both streams as copies of one layer, as the released code does"""

    def __post_init__(self) -> None:
        check_choices(self)
        sizes(self, "width", "heads", "attention_width", "hidden", "window")
        sizes(self, "layers", most=DEPTH)
        in_range(self, "dropout", 0, 0.999)
        check_scale(self)
        divides(self, "heads", self.attention_width, "attention_width")


class Temporal(Encoder):
    """Let the segments of a stream attend to each other; the streams do not meet.

    The layers do not know the order of the segments, unless `adjacency` or `window` tells it.

    Source: OV-AVEL (CVPR 2025), the fine-tuned baseline, and the options of its released code.

    Departs: the released module also holds cross-attention layers and shares of windows and
    adjacencies that its forward pass never reads. What never acts is not created here.

    Shape: audio and visual [B, T, D] -> audio and visual [B, T, D]; with attention also aux
    audio_attention and visual_attention [B, H, T, T] of the last layer, rows are queries.
    """

    name = "temporal"
    Config = TemporalConfig
    wants = "vectors"
    about = "The encoder temporal lets the segments of each stream attend to each other"
    paper = Publication(
        paper="OV-AVEL",
        venue="CVPR 2025",
        authors="Zhou et al.",
        citation="""@inproceedings{zhou2025ovavel,
  title = {Towards Open-Vocabulary Audio-Visual Event Localization},
  author = {Zhou, Jinxing and Guo, Dan and Guo, Ruohao and Mao, Yuxin and Hu, Jingjing and \
Zhong, Yiran and Chang, Xiaojun and Wang, Meng},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2025}
}""",
    )
    recipes = {
        "temporal": {
            "optim": {"lr": 5e-5, "clip_norm": 0.8},
            "epochs": 10,
            "batch_size": 32,
            "seed": 123,
        }
    }

    @classmethod
    def gives(cls, config: TemporalConfig) -> Gives:
        """Return nothing beside both streams."""
        return frozenset()

    @classmethod
    def unread(cls, config: TemporalConfig) -> list[Rule]:
        """Return the rules of the options of attention, and of the space of the features."""
        attends = config.form == "attention"
        names = ("heads", "attention_width", "hidden", "dropout", "adjacency", "window")
        return [
            *((name, attends, "the form attention") for name in (*names, "power_norm")),
            space_rule(config),
        ]

    def __init__(
        self, *, config: TemporalConfig, audio_dim: int, visual_dim: int, positions: int = 1
    ) -> None:
        super().__init__()
        self.config, self.width = config, audio_dim
        self.audio_layers, self.visual_layers = (
            nn.ModuleList(_layer(config, audio_dim) for _ in range(config.layers)) for _ in range(2)
        )
        if config.official_init:
            first, *others = (*self.audio_layers, *self.visual_layers)
            for other in others:
                other.load_state_dict(first.state_dict())

    def forward(self, audio: Tensor, visual: Tensor) -> Encoding:
        """Encode both streams; see the class docstring for shapes."""
        streams = dict(
            zip(("audio", "visual"), scaled(audio, visual, self.config.input_scale), strict=True)
        )
        aux: dict[str, Tensor] = {}
        for name, x in streams.items():
            for layer in getattr(self, f"{name}_layers"):
                if isinstance(layer, TemporalLayer):
                    x, aux[f"{name}_attention"] = layer(x)
                else:
                    x = layer(x)
            streams[name] = x
        return Encoding(**streams, aux=aux)


def _layer(config: TemporalConfig, width: int) -> nn.Module:
    return nn.Linear(width, width) if config.form == "linear" else TemporalLayer(config, width)


class TemporalLayer(nn.Module):
    """Self attention over time and a feed-forward, each with a residual and a norm after it.

    With an adjacency, exp(-|w d^2 - b|) is added to the scores of two segments at distance d, with
    w and b learned from 0.6 and 0.2. With a window of w segments, a second attention of segment t
    sees the segments from t - floor(w / 2) to w - 1 after that, those beyond the clip replaced by
    its first or last one; the weights of both are mixed by sigmoid(alpha), learned from 0.5. The
    power norm turns what is read, before its last map, into signed roots of norm 1 over time.

    Source: OV-AVEL (CVPR 2025), released code.

    Shape: [B, T, D] -> [B, T, D] and the attention weights [B, H, T, T].
    """

    def __init__(self, config: TemporalConfig, width: int) -> None:
        super().__init__()
        self.config, inner = config, config.attention_width
        self.query, self.key, self.value = (nn.Linear(width, inner) for _ in range(3))
        self.output = nn.Linear(inner, width)
        self.feedforward = FeedForward(width=width, hidden=config.hidden, dropout=config.dropout)
        self.attention_norm, self.feedforward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        if config.adjacency:
            self.adjacency_scale = nn.Parameter(torch.tensor([0.6]))
            self.adjacency_shift = nn.Parameter(torch.tensor([0.2]))
        if config.window is not None:
            self.global_share = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Update the segments."""
        parts = (layer(x) for layer in (self.query, self.key, self.value))
        q, k, v = (rearrange(y, "b t (h d) -> b h t d", h=self.config.heads) for y in parts)
        weights = self._weights(q @ k.mT / self.config.attention_width**0.5)
        read = rearrange(weights @ v, "b h t d -> b t (h d)")
        if self.config.power_norm:
            read = power_normed(read)
        x = self.attention_norm(x + self.output(read))
        return self.feedforward_norm(x + self.feedforward(x)), weights

    def _weights(self, scores: Tensor) -> Tensor:
        """Turn scores into weights: [B, H, T, T]."""
        segments = scores.shape[-1]
        steps = torch.arange(segments, device=scores.device)
        if self.config.adjacency:
            squared = (steps[:, None] - steps).square().to(scores.dtype)
            near = self.adjacency_scale * squared - self.adjacency_shift
            scores = scores + (-near.abs()).exp()
        weights = scores.softmax(dim=-1)
        if self.config.window is not None:
            seen = window_mask(segments, self.config.window, device=scores.device)
            local = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1)
            share = self.global_share.sigmoid()
            weights = share * weights + (1 - share) * local
        return weights


def window_mask(segments: int, window: int, *, device: torch.device | None = None) -> Tensor:
    """Return which segments each segment sees within its window, bool [T, T]; rows are queries.

    Examples:
        >>> window_mask(4, 2).int().tolist()
        [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    """
    steps = torch.arange(segments, device=device)
    first = steps[:, None] - window // 2
    at = first + torch.arange(window, device=device)  # (T, w)
    mask = torch.zeros(segments, segments, dtype=torch.bool, device=device)
    return mask.scatter(1, at.clamp(0, segments - 1), True)


def power_normed(x: Tensor) -> Tensor:
    """Return the signed roots of values, scaled to norm 1 over time: [B, T, D] -> [B, T, D].

    A value of 0 has gradient 0; that of a root there is infinite.
    """
    some = x != 0
    roots = torch.where(some, x, torch.ones_like(x)).abs().sqrt() * x.sign()
    return F.normalize(roots, dim=1)


def scaled(
    audio: Tensor, visual: Tensor, norms: tuple[float, float] | None
) -> tuple[Tensor, Tensor]:
    """Return both streams with these norms; None: as they are. A vector of zeros stays zero."""
    if norms is None:
        return audio, visual
    return norms[0] * F.normalize(audio, dim=-1), norms[1] * F.normalize(visual, dim=-1)


def space_rule(config: Any) -> Rule:
    """Return the rule of the option `space`."""
    return "space", config.width is None, "features as they are, without a width"


def check_scale(config: Any) -> None:
    """Check that the norms of `input_scale` are positive.

    Raises:
        UsageError: one is not; names the field and both values.
    """
    norms = config.input_scale
    if norms is not None and not all(0 < norm <= LARGEST_SCALE for norm in norms):
        raise UsageError(
            f"{type(config).__name__}.input_scale is {norms!r}; "
            f"both must be positive, and at most {LARGEST_SCALE:g}"
        )
