"""CMBS, cross-modal background suppression: each stream tells the other which segments matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from avplatform.models.checks import DEPTH, check_choices, divides, finite, in_range, sizes
from avplatform.models.contracts import Encoder, Encoding, Gives, Publication
from avplatform.models.layers.attention import FeedForward, PackedAttention
from avplatform.models.layers.spatial_channel_attention import SpatialChannelAttention

# The options in which the published fully and weakly supervised models differ.
PUBLISHED = {
    "full": dict(alpha=0.1, beta=0.4, encoder_hidden=1024, interaction_heads=4, map_dropout=0.2),
    "weak": dict(alpha=0.2, beta=0.5, encoder_hidden=2048, interaction_heads=2, map_dropout=0.1),
}


@dataclass(kw_only=True)
class CMBSConfig:
    """Options of the CMBS encoder; an option that is none is as published with the variant."""

    variant: Literal["full", "weak"] = "full"
    """the published model: full has LSTMs and own gates, weak has no LSTMs and swapped gates"""
    width: int = 256
    """model width D"""
    heads: int = 4
    """heads of the transformer layers"""
    layers: int = 2
    """layers of each stream's transformer encoder"""
    encoder_hidden: int | None = None
    """feed-forward width of the encoders"""
    decoder_hidden: int = 1024
    """feed-forward width of the cross-modal decoders"""
    interaction_heads: int | None = None
    """heads of the last cross-modal interaction"""
    lstm_width: int = 128
    """width of each direction of the audio LSTM; the visual LSTM is twice as wide (full)"""
    alpha: float | None = None
    """strength of the segment gates"""
    beta: float | None = None
    """strength of the self-attended visual feature"""
    dropout: float = 0.1
    """dropout of the transformer layers"""
    map_dropout: float | None = None
    """dropout of the projected visual maps"""
    attended_dropout: float = 0.2
    """dropout of the self-attended visual feature"""
    interaction_attention_dropout: float = 0.2
    """dropout of the attention weights of the last cross-modal interaction"""
    interaction_dropout: float = 0.1
    """dropout of the output of that interaction"""
    official_init: bool = True
    """start the layers of an encoder as copies, as the released code does"""

    def __post_init__(self) -> None:
        check_choices(self)
        sizes(self, "width", "heads", "encoder_hidden", "decoder_hidden", "interaction_heads")
        sizes(self, "lstm_width")
        sizes(self, "layers", most=DEPTH)
        divides(self, "heads", self.width, "width")
        if self.interaction_heads is not None:
            divides(self, "interaction_heads", self.width, "width")
        finite(self, "alpha", "beta")
        for name, value in vars(self).items():
            if "dropout" in name and value is not None:
                in_range(self, name, 0, 0.999)

    def value(self, name: str) -> float:
        """Return an option, or the value that was published with the variant."""
        given = getattr(self, name)
        return PUBLISHED[self.variant][name] if given is None else given


def _recipe(lr: float, milestones: tuple[int, ...], seed: int) -> dict[str, Any]:
    return {
        "optim": {"lr": lr, "clip_norm": 0.5},
        "schedule": {"name": "milestones", "factor": 0.5, "milestones": milestones},
        "epochs": 200,
        "batch_size": 64,
        "seed": seed,
        "ties": "first",
    }


class CMBS(Encoder):
    """Spatial-channel attention, a transformer per stream, and gates that suppress background.

    Each stream computes a gate per segment, which suppresses the background of the other stream.

    Source: CMBS (CVPR 2022), section 3.

    Departs: the released code differs from the paper in the spatial-channel attention, in the weak
    gates (each computed from the other stream, averaged instead of multiplied) and in what the
    decoders read; we follow the code.

    Shape: audio [B, T, Da], visual [B, T, P, Dv] -> audio, visual and fused [B, T, D]; aux:
    audio_gate, visual_gate and av_gate [B, T] (probabilities), audio_query and visual_query
    [B, T, D] (gated).
    """

    name = "cmbs"
    Config = CMBSConfig
    wants = "maps"
    about = "The encoder CMBS lets each stream tell the other which segments matter"
    paper = Publication(
        paper="CMBS",
        venue="CVPR 2022",
        authors="Xia and Zhao",
        citation="""@inproceedings{xia2022cmbs,
  title = {Cross-Modal Background Suppression for Audio-Visual Event Localization},
  author = {Xia, Yan and Zhao, Zhou},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2022}
}""",
    )
    recipes = {
        "cmbs": _recipe(7e-4, (10, 20, 30), 43),
        "cmbs-weak": _recipe(6e-4, (10, 20, 40), 666),
    }
    settings = {"full": {"variant": "full"}, "weak": {"variant": "weak"}}
    pooling = "top4"

    @classmethod
    def gives(cls, config: CMBSConfig) -> Gives:
        """Return a fused stream, and the gates and gated queries that it was made from."""
        return frozenset({"fused", "gate", "queries"})

    @classmethod
    def own_head(cls, config: CMBSConfig) -> str | None:
        """Return CMBS's head: the relevance of each segment, and one class per clip."""
        return "cmbs"

    def __init__(
        self, *, config: CMBSConfig, audio_dim: int, visual_dim: int, positions: int
    ) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.alpha = config.value("alpha")
        self.map = nn.Linear(visual_dim, visual_dim)
        self.map_dropout = nn.Dropout(config.value("map_dropout"))
        self.attention = SpatialChannelAttention(
            audio_dim=audio_dim,
            visual_dim=visual_dim,
            beta=config.value("beta"),
            dropout=config.attended_dropout,
        )
        if config.variant == "full":
            each = config.lstm_width
            self.audio_lstm = nn.LSTM(audio_dim, each, batch_first=True, bidirectional=True)
            self.visual_lstm = nn.LSTM(visual_dim, 2 * each, batch_first=True, bidirectional=True)
            audio_dim, visual_dim = 2 * each, 4 * each
        hidden = int(config.value("encoder_hidden"))
        self.audio_encoder = StreamEncoder(config, audio_dim, hidden)
        self.visual_encoder = StreamEncoder(config, visual_dim, hidden)
        self.audio_decoder = StreamDecoder(config, audio_dim)
        self.visual_decoder = StreamDecoder(config, visual_dim)
        self.audio_gate = nn.Linear(config.width, 1)
        self.visual_gate = nn.Linear(config.width, 1)
        heads = int(config.value("interaction_heads"))
        self.visual_interaction = Interaction(config, heads)
        self.audio_interaction = Interaction(config, heads)

    def forward(self, audio: Tensor, visual: Tensor) -> Encoding:
        """Encode both streams."""
        visual = self.map_dropout(self.map(visual).relu())
        visual, aux = self.attention(audio, visual)
        aux["attended_visual"] = visual
        if self.config.variant == "full":
            audio, visual = self.audio_lstm(audio)[0], self.visual_lstm(visual)[0]
            aux |= {"lstm_audio": audio, "lstm_visual": visual}
        visual_kv, audio_kv = self.visual_encoder(visual), self.audio_encoder(audio)
        audio_query = self.audio_decoder(audio, visual_kv)
        visual_query = self.visual_decoder(visual, audio_kv)
        aux |= {"audio_kv": audio_kv, "visual_kv": visual_kv}
        aux |= {"audio_query_before": audio_query, "visual_query_before": visual_query}
        audio_query, visual_query, gates = self._gate(
            audio_query, visual_query, audio_kv, visual_kv
        )
        visual_out = self.visual_interaction(visual_query, audio_query)
        # The audio interaction reads the updated visual stream.
        audio_out = self.audio_interaction(audio_query, visual_out)
        aux |= {**gates, "audio_query": audio_query, "visual_query": visual_query}
        return Encoding(
            audio=audio_out, visual=visual_out, fused=(visual_out + audio_out) / 2, aux=aux
        )

    def _gate(
        self, aq: Tensor, vq: Tensor, akv: Tensor, vkv: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Multiply each query by a gate of the other stream."""
        full = self.config.variant == "full"
        read_audio, read_visual = (akv, vkv) if full else (vkv, akv)
        g_a = self.audio_gate(read_audio).sigmoid()  # (B, T, 1)
        g_v = self.visual_gate(read_visual).sigmoid()
        keep = 1.0 if full else 1.0 - self.alpha
        vq = keep * vq + self.alpha * g_a * vq
        aq = keep * aq + self.alpha * g_v * aq
        both = g_a * g_v if full else (g_a + g_v) / 2
        gates = {"audio_gate": g_a, "visual_gate": g_v, "av_gate": both}
        return aq, vq, {name: value.squeeze(-1) for name, value in gates.items()}


class StreamEncoder(nn.Module):
    """An affine map and post-norm transformer layers over time: [B, T, D'] -> [B, T, D]."""

    def __init__(self, config: CMBSConfig, read_dim: int, hidden: int) -> None:
        super().__init__()
        self.affine = nn.Linear(read_dim, config.width)
        self.layers = nn.ModuleList(TransformerLayer(config, hidden) for _ in range(config.layers))
        if config.official_init:
            for layer in self.layers[1:]:
                layer.load_state_dict(self.layers[0].state_dict())

    def forward(self, x: Tensor) -> Tensor:
        """Encode one stream."""
        x = self.affine(x)
        for layer in self.layers:
            x = layer(x, None)
        return x


class StreamDecoder(nn.Module):
    """The query of one stream reads the memory of the other stream and itself.

    Shape: query [B, T, D'], memory [B, T, D] -> [B, T, D].
    """

    def __init__(self, config: CMBSConfig, read_dim: int) -> None:
        super().__init__()
        self.affine = nn.Linear(read_dim, config.width)
        self.layer = TransformerLayer(config, config.decoder_hidden)

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        """Decode one stream."""
        query = self.affine(query)
        return self.layer(query, torch.cat([memory, query], dim=1))  # memory of 2T entries


class TransformerLayer(nn.Module):
    """Attention and feed-forward, each followed by a residual sum and a norm; no positions."""

    def __init__(self, config: CMBSConfig, hidden: int) -> None:
        super().__init__()
        self.attention = PackedAttention(
            width=config.width, heads=config.heads, dropout=config.dropout
        )
        self.feedforward = FeedForward(width=config.width, hidden=hidden, dropout=config.dropout)
        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, memory: Tensor | None) -> Tensor:
        """Attend to `memory`, or to itself."""
        x = self.norm1(x + self.dropout(self.attention(x, memory)))
        return self.norm2(x + self.dropout(self.feedforward(x)))


class Interaction(nn.Module):
    """The product of both streams reads both: own and other [B, T, D] -> [B, T, D]."""

    def __init__(self, config: CMBSConfig, heads: int) -> None:
        super().__init__()
        self.attention = PackedAttention(
            width=config.width, heads=heads, dropout=config.interaction_attention_dropout
        )
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.interaction_dropout)

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        """Update `own`."""
        product = own * other
        found = self.attention(product, torch.cat([other, own], dim=1))
        return self.norm(product + self.dropout(found))
