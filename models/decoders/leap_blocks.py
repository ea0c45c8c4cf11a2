"""The blocks of LEAP: how label texts and the segments of a stream give scores."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from avplatform.models.layers.attention import AttentionUnit, FeedForward, UnitOptions


class LEAPBlock(AttentionUnit):
    """One projection as released: labels attend to segments, are updated, and score the segments.

    Keys are computed once, for both the attention and the scores.

    Shape: labels [B, C, D] or [C, D], memory [B, T, D] -> labels [B, C, D], scores [B, C, T] (or
    [B, H, C, T]).
    """

    def forward(  # type: ignore[override]
        self, labels: Tensor, memory: Tensor, *, scored: bool = True, per_head: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the updated labels and, if asked for, the raw scores."""
        key, value = self.attention.project_memory(memory)
        labels = self.attend(labels, key, value)
        scores = None
        if scored:
            query = self.attention.query(labels)
            scores = head_scores(query, key, heads=self.attention.heads, per_head=per_head)
        return self.feed(labels), scores

    def start_in_joint_space(self) -> None:
        """Compare labels and segments as they are at first, and leave the labels unchanged."""
        as_they_are(self.attention.query, self.attention.key)
        for layer in (self.attention.output, self.feedforward.outer):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)


class PaperBlock(nn.Module):
    """One projection as printed: one head, norms inside the residual branches, attention scores.

    Source: LEAP (ECCV 2024), Eqs. 2 and 3.

    Shape: as `LEAPBlock`; per-head scores have one head.
    """

    def __init__(self, config: UnitOptions, width: int) -> None:
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


class TextScores(nn.Module):
    """Scores by the texts alone: no label is updated, so no score knows the rest of the clip.

    Source: ours; the query and key of `LEAPBlock`, without its attention and feed-forward. Segments
    are normalised, since encoders differ in the size of their outputs (HAN's are normalised,
    MM-Pyr's are not), and scores that grow with it would pool a clip by its single best segment.

    Shape: as `LEAPBlock`.
    """

    def __init__(self, config: UnitOptions, width: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        if config.official_init:
            self.key.load_state_dict(self.query.state_dict())

    def forward(
        self, labels: Tensor, memory: Tensor, *, scored: bool = True, per_head: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the labels as they are, and the raw scores."""
        query, key = (
            self.query(self.norm(labels)),
            self.key(F.layer_norm(memory, memory.shape[-1:])),
        )
        scores = head_scores(query, key, heads=self.heads, per_head=per_head)
        return labels, scores

    def start_in_joint_space(self) -> None:
        """Compare labels and segments as they are at first."""
        as_they_are(self.query, self.key)


def as_they_are(*layers: nn.Linear) -> None:
    """Start linear maps as the identity."""
    for layer in layers:
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)


def head_scores(query: Tensor, key: Tensor, *, heads: int, per_head: bool) -> Tensor:
    """Return the scaled products of queries and keys of each head, or their mean over heads.

    Shape: query [B, C, D] or [C, D], key [B, T, D] -> [B, C, T], or [B, H, C, T] per head.
    """
    if not per_head:
        # The mean over heads of q_h k_h / sqrt(D / H) is one product over the whole width.
        return query @ key.transpose(-1, -2) / (heads * query.shape[-1]) ** 0.5
    # (B, H, C | T, D / H); queries that all clips share get an axis for the clips.
    q, k = (x.unflatten(-1, (heads, -1)).transpose(-3, -2) for x in (query, key))
    return q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5


BLOCKS: dict[str, type[nn.Module]] = {
    "released": LEAPBlock,
    "paper": PaperBlock,
    "pooled": TextScores,
}
"""The block of each form."""
