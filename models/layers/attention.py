"""Attention with packed projections (HAN, CMBS) and with separate maps (MM-Pyr, LEAP)."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class PackedAttention(nn.Module):
    """Multi-head attention whose query, key and value maps are packed in one matrix.

    Source: Vaswani et al. 2017; weights are initialised Xavier-uniform over the packed [3D, D]
    shape, biases with zeros.

    Shape: query [B, Tq, D], memory [B, Tk, D] -> [B, Tq, D].
    """

    def __init__(self, *, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, memory: Tensor | None = None) -> Tensor:
        """Attend from `query` to `memory`; None: to itself."""
        if memory is None:
            return self.mix(*self.project(query))
        width = query.shape[-1]
        # A split and not two slices: each slice would allocate a gradient of the full size.
        weights = self.in_proj_weight.split([width, 2 * width])
        biases = self.in_proj_bias.split([width, 2 * width])
        q = F.linear(query, weights[0], biases[0])
        k, v = F.linear(memory, weights[1], biases[1]).chunk(2, dim=-1)
        return self.mix(q, k, v)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of one tensor, by one matrix product."""
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        return q, k, v

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend with projected queries, keys and values, and project the result."""
        return self.out_proj(
            attend(q, k, v, heads=self.heads, dropout=self.dropout if self.training else 0.0)
        )


class SeparateAttention(nn.Module):
    """Multi-head attention with four D x D maps: query, key, value and output.

    Nothing is normalised here; a caller that wants a normalised query normalises it.

    Shape: query [B, Tq, D] or [Tq, D] (the same for every clip), memory [B, Tk, D] -> [B, Tq, D].
    """

    def __init__(
        self, *, width: int, heads: int, dropout: float, official_init: bool = True
    ) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        if official_init:  # the published code makes the four maps as copies of one draw
            for other in (self.key, self.value, self.output):
                other.load_state_dict(self.query.state_dict())

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Attend with a query that is not yet projected to the results of `project_memory`.

        Shape: query [B, Tq, D] or [Tq, D], key and value [B, Tk, D], mask bool [Tq, Tk], True where
        attention is allowed -> [B, Tq, D].
        """
        q = self.query(query)
        if q.ndim == 2:
            q = q.expand(key.shape[0], -1, -1)  # (B, Tq, D)
        dropout = self.dropout if self.training else 0.0
        return self.output(attend(q, key, value, heads=self.heads, dropout=dropout, mask=mask))

    def project_memory(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values of a memory; they can be used in several passes."""
        return self.key(memory), self.value(memory)


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, heads: int, dropout: float = 0.0, mask: Tensor | None = None
) -> Tensor:
    """Compute scaled dot-product attention over heads, on projected tensors.

    It is written out because this rounds as the published models do, and because torch's fused
    attention is not faster in training for ten segments: on a CPU it falls back to its own
    written-out form with dropout, and is up to five times slower in bfloat16.

    Shape: q [B, Tq, D], k and v [B, Tk, D], mask bool [Tq, Tk] -> [B, Tq, D].
    """
    q, k, v = (rearrange(x, "b t (h d) -> b h t d", h=heads) for x in (q, k, v))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5  # (B, H, Tq, Tk)
    if mask is not None:
        scores = scores.masked_fill(~mask, -1e9)
    weights = F.dropout(scores.softmax(dim=-1), dropout)
    return rearrange(weights @ v, "b h t d -> b t (h d)")


class FeedForward(nn.Module):
    """Two affine maps with ReLU, or GELU, and dropout between them.

    Shape: [..., D] -> [..., D].
    """

    def __init__(
        self,
        *,
        width: int,
        hidden: int,
        dropout: float = 0.0,
        activation: Literal["relu", "gelu"] = "relu",
    ) -> None:
        super().__init__()
        self.activation = activation
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Apply both maps."""
        x = self.inner(x)
        return self.outer(self.dropout(F.gelu(x) if self.activation == "gelu" else x.relu()))


class UnitOptions(Protocol):
    """The options of an `AttentionUnit`, which the configs of MM-Pyr and LEAP hold."""

    heads: int
    hidden: int
    dropout: float
    attention_dropout: float
    official_init: bool


class AttentionUnit(nn.Module):
    """Attention and feed-forward, each with a residual; a norm on the query and the feed-forward.

    Source: MM-Pyramid (ACM MM 2022), released code; LEAP (ECCV 2024), released code.

    Departs: keys and values are not normalised, even where the unit attends to itself, as in the
    code.

    Shape: query [B, Tq, D] or [Tq, D], memory [B, Tk, D], mask bool [Tq, Tk] (True: allowed) ->
    [B, Tq, D].
    """

    def __init__(self, config: UnitOptions, width: int) -> None:
        super().__init__()
        self.attention = SeparateAttention(
            width=width,
            heads=config.heads,
            dropout=config.attention_dropout,
            official_init=config.official_init,
        )
        self.feedforward = FeedForward(width=width, hidden=config.hidden, dropout=config.dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, query: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """Update the query."""
        return self.feed(self.attend(query, *self.attention.project_memory(memory), mask))

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Add what the query finds among projected keys and values."""
        return query + self.dropout(self.attention(self.attention_norm(query), key, value, mask))

    def feed(self, query: Tensor) -> Tensor:
        """Add the feed-forward."""
        return query + self.dropout(self.feedforward(self.feedforward_norm(query)))
