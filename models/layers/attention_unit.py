"""The attention unit of MM-Pyr, which LEAP's blocks are too: the query is normalised, keys and values are raw."""

from __future__ import annotations

from torch import Tensor, nn

from models.layers.attention import FeedForward, SeparateAttention


class AttentionUnit(nn.Module):
    """Attend, add, feed forward, add; layer norm on the query and before the feed-forward only.

    Source: MM-Pyramid (ACM MM 2022), released code; LEAP (ECCV 2024), released code.

    Departs: keys and values are not normalised, also where the unit attends to itself, as in the code.

    Shape: query [B, Tq, D] or [Tq, D], memory [B, Tk, D], mask bool [Tq, Tk] (True: allowed) -> [B, Tq, D].
    """

    def __init__(
        self, *, width: int, heads: int, hidden: int, dropout: float, attention_dropout: float, official_init: bool
    ) -> None:
        super().__init__()
        self.attention = SeparateAttention(width=width, heads=heads, dropout=attention_dropout, official_init=official_init)
        self.feedforward = FeedForward(width=width, hidden=hidden, dropout=dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """Update the query."""
        return self.feed(self.attend(query, *self.attention.project_memory(memory), mask))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Add what the query finds among projected keys and values."""
        return query + self.dropout(self.attention(self.attention_norm(query), key, value, mask))

    def feed(self, query: Tensor) -> Tensor:
        """Add the feed-forward."""
        return query + self.dropout(self.feedforward(self.feedforward_norm(query)))
