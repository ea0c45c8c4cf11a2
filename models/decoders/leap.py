"""LEAP, label semantic-based projection: class texts query the segments and are enriched by what they find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.config import at_least, divides, in_range, one_of
from models.contracts import Decoder, Encoding, Parse, Prediction, StreamPredictions, at_least_single
from models.errors import UsageError
from models.layers.attention import FeedForward
from models.layers.attention_unit import AttentionUnit


@dataclass(kw_only=True)
class LEAPConfig:
    """Options of the LEAP decoder; the defaults are the authors' released code."""

    blocks: int = 2
    """projection blocks N a modality"""
    heads: int = 8
    """attention heads (the paper writes one)"""
    width: int | None = None
    """decoder width; none: the encoder's, otherwise one linear map a stream adapts it"""
    hidden: int = 512
    """feed-forward width"""
    dropout: float = 0.2
    """dropout on both residual branches and inside the feed-forward"""
    attention_dropout: float = 0.1
    """dropout on attention weights"""
    form: Literal["released", "paper"] = "released"
    """released: pre-norm, scores from the updated query; paper: as Eqs. 2 to 7 are printed"""
    score_gain: float | None = None
    """start of a learned gain on segment scores, which ends LEAP's slow start; none: off, as published"""
    score_bias: float | None = None
    """start of a learned bias on segment scores; none: off, as published"""
    shared_video_classifier: bool = False
    """one video classifier for both modalities (the paper's W)"""
    combine: Literal["none", "mean", "product", "or"] = "none"
    """how the audio-visual stream is made: not at all (AVVP), mean of logits, product of probabilities, or OR"""
    official_init: bool = True
    """start the maps of an attention, and all blocks, as copies, as the released code does"""

    def __post_init__(self) -> None:
        for name in ("blocks", "heads", "hidden"):
            at_least(self, name, 1)
        if self.width is not None:
            at_least(self, "width", 1)
            divides(self, "heads", self.width, "width")
        for name in ("dropout", "attention_dropout"):
            in_range(self, name, 0, 0.999)
        one_of(self, "form", ("released", "paper"))
        one_of(self, "combine", ("none", "mean", "product", "or"))
        if self.form == "paper" and self.heads != 1:
            raise UsageError(f"LEAPConfig.heads is {self.heads}; the form 'paper' has one head")


class LEAP(Decoder):
    """Project encoded segments onto label embeddings; read segments off the scores, the video off the labels.

    Source: LEAP (ECCV 2024), Eqs. 2 to 8.

    Departs: the released code differs from Eqs. 2 to 7 in heads, norms, and in scoring with the updated query; "released"
    follows the code and "paper" the equations.

    The weights do not depend on the number of classes: any list of label texts can be parsed.

    Shape: encoding [B, T, D'], label_embeddings [C, E] -> segment logits [B, T, C] and video logits [B, C] a stream;
    attention [B, 2, C, T], the softmax over time of the last block's scores.
    """

    Config = LEAPConfig
    needs_labels = True

    def __init__(self, *, config: LEAPConfig, width: int, num_classes: int = 0, label_dim: int = 300) -> None:
        super().__init__()
        self.config = config
        inner = config.width or width
        divides(config, "heads", inner, "width")
        self.labels = nn.Linear(label_dim, inner)
        if inner != width:
            self.adapt_audio = nn.Linear(width, inner)
            self.adapt_visual = nn.Linear(width, inner)
        block = LEAPBlock if config.form == "released" else PaperBlock
        self.audio_blocks = nn.ModuleList(block(config, inner) for _ in range(config.blocks))
        self.visual_blocks = nn.ModuleList(block(config, inner) for _ in range(config.blocks))
        if config.official_init:
            for other in (*self.audio_blocks, *self.visual_blocks):
                other.load_state_dict(self.audio_blocks[0].state_dict())
        self.audio_video = nn.Linear(inner, 1)
        if not config.shared_video_classifier:
            self.visual_video = nn.Linear(inner, 1)
        if config.score_gain is not None:
            self.score_gain = nn.Parameter(torch.full((2,), float(config.score_gain)))
        if config.score_bias is not None:
            self.score_bias = nn.Parameter(torch.full((2,), float(config.score_bias)))

    def forward(self, encoding: Encoding, label_embeddings: Tensor | None = None) -> Parse:
        """Parse the encoded clip with these labels."""
        if label_embeddings is None:
            raise ValueError("LEAP needs label embeddings [C, E]")
        return self.project(self.labels(label_embeddings), encoding)

    def project(self, queries: Tensor, encoding: Encoding) -> Parse:
        """Parse with label queries that already have the decoder's width: [C, D], or [B, C, D] for a set a clip."""
        streams, scores = {}, []
        for index, (name, blocks, memory) in enumerate(self._modalities(encoding)):
            state, raw = queries, queries
            for block in blocks:
                state, raw = block(state, memory, scored=block is blocks[-1])
            raw = at_least_single(raw)  # (B, C, T)
            scores.append(raw.detach())
            if self.config.score_gain is not None:
                raw = raw * self.score_gain[index]
            if self.config.score_bias is not None:
                raw = raw + self.score_bias[index]
            classify = self.audio_video if name == "audio" or self.config.shared_video_classifier else self.visual_video
            streams[name] = raw.transpose(1, 2), at_least_single(classify(state).squeeze(-1))  # (B, T, C), (B, C)
        segment = StreamPredictions(audio=Prediction(streams["audio"][0]), visual=Prediction(streams["visual"][0]))
        video = StreamPredictions(audio=Prediction(streams["audio"][1]), visual=Prediction(streams["visual"][1]))
        segment.av, video.av = self._combined(segment), self._combined(video)
        attention = torch.stack(scores, dim=1).softmax(dim=-1)
        return Parse(segment=segment, video=video, attention=attention, queried_by_labels=True)

    def trace(self, queries: Tensor, encoding: Encoding) -> dict[str, list[dict[str, Tensor]]]:
        """Return, a modality and block, "labels" [B, C, D] after the block and raw "scores" [B, H, C, T] a head."""
        found: dict[str, list[dict[str, Tensor]]] = {}
        for name, blocks, memory in self._modalities(encoding):
            state, found[name] = queries, []
            for block in blocks:
                state, scores = block(state, memory, scored=True, per_head=True)
                found[name].append({"labels": state, "scores": scores})
        return found

    def _modalities(self, encoding: Encoding) -> list[tuple[str, nn.ModuleList, Tensor]]:
        audio, visual = encoding.audio, encoding.visual
        if hasattr(self, "adapt_audio"):
            audio, visual = self.adapt_audio(audio), self.adapt_visual(visual)
        return [("audio", self.audio_blocks, audio), ("visual", self.visual_blocks, visual)]

    def _combined(self, streams: StreamPredictions) -> Prediction | None:
        a, v = streams.audio, streams.visual
        if a is None or v is None or self.config.combine == "none":
            return None
        if self.config.combine == "mean":
            return Prediction((a.values + v.values) / 2)
        if self.config.combine == "product":
            return Prediction(a.probability * v.probability, "probability")
        return Prediction(1 - (1 - a.probability) * (1 - v.probability), "probability")


class LEAPBlock(AttentionUnit):
    """One projection as released: labels attend to segments, are updated, and score the segments.

    Keys are computed once and serve both the attention and the score pass.

    Shape: labels [B, C, D] or [C, D], memory [B, T, D] -> labels [B, C, D], scores [B, C, T] (or [B, H, C, T]).
    """

    def __init__(self, config: LEAPConfig, width: int) -> None:
        super().__init__(
            width=width,
            heads=config.heads,
            hidden=config.hidden,
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
            official_init=config.official_init,
        )

    def forward(  # type: ignore[override]
        self, labels: Tensor, memory: Tensor, *, scored: bool = True, per_head: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the updated labels and, if asked for, the raw scores."""
        key, value = self.attention.project_memory(memory)
        labels = self.attend(labels, key, value)
        scores = self._scores(self.attention.query(labels), key, per_head) if scored else None
        return self.feed(labels), scores

    def _scores(self, query: Tensor, key: Tensor, per_head: bool) -> Tensor:
        heads = self.attention.heads
        if not per_head:  # the mean over heads of q_h k_h / sqrt(D / H) is one product over the whole width
            return query @ key.transpose(-1, -2) / (heads * query.shape[-1]) ** 0.5
        q, k = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key))  # (B, H, C | T, D / H)
        return q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5


class PaperBlock(nn.Module):
    """One projection as printed: one head, norms inside the residual branches, scores of the attention itself.

    Source: LEAP (ECCV 2024), Eqs. 2 and 3.

    Shape: as `LEAPBlock`; per-head scores have one head.
    """

    def __init__(self, config: LEAPConfig, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.feedforward = FeedForward(width=width, hidden=config.hidden, dropout=config.dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, labels: Tensor, memory: Tensor, *, scored: bool = True, per_head: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the updated labels and the raw scores."""
        query = self.query(labels)
        scores = query @ self.key(memory).transpose(-1, -2) * query.shape[-1] ** -0.5  # (B, C, T)
        found = scores.softmax(dim=-1) @ self.value(memory)  # (B, C, D)
        labels = labels + self.dropout(self.attention_norm(found))
        labels = labels + self.dropout(self.feedforward_norm(self.feedforward(labels)))
        return labels, scores.unsqueeze(1) if per_head else scores
