"""Layers of MGN: transformer blocks over segments and tokens, and grouping by tokens."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avplatform.models.layers.attention import FeedForward, PackedAttention, SeparateAttention


class BlockOptions(Protocol):
    """The options of a `Block`, which the configs of MGN's encoder and decoder hold."""

    heads: int
    hidden: int
    stochastic_depth: float


class GroupingOptions(BlockOptions, Protocol):
    """The options of a `Grouping`."""

    token_hidden: int
    gumbel_noise: bool


class Block(nn.Module):
    """A pre-norm transformer block with stochastic depth and without positional encoding.

    Source: MGN (NeurIPS 2022), released code.

    Shape: [B, S, D] -> [B, S, D]; the rows are a set.
    """

    def __init__(self, config: BlockOptions, width: int) -> None:
        super().__init__()
        self.rate = config.stochastic_depth
        self.attention_norm, self.feedforward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = PackedAttention(width=width, heads=config.heads, dropout=0.0)
        self.feedforward = FeedForward(width=width, hidden=config.hidden, activation="gelu")

    def forward(self, x: Tensor) -> Tensor:
        """Update all rows."""
        x = x + self._sometimes(self.attention(self.attention_norm(x)))
        return x + self._sometimes(self.feedforward(self.feedforward_norm(x)))

    def _sometimes(self, branch: Tensor) -> Tensor:
        """Leave a branch out at random, clip by clip, and scale it up where it stays."""
        if not self.training or self.rate == 0:
            return branch
        kept = branch.new_empty(len(branch), 1, 1).bernoulli_(1 - self.rate)
        return branch * kept / (1 - self.rate)


class Grouped(NamedTuple):
    """The result of a `Grouping`.

    Shape: groups and tokens (which the rows were assigned to) [B, N, D]; assignment [B, N, S], each
    column sums to 1; soft [B, N, S], the assignment without noise and hard choices.
    """

    groups: Tensor
    tokens: Tensor
    assignment: Tensor
    soft: Tensor


class Grouping(nn.Module):
    """Assign each of S rows to N tokens, and sum up what each token was assigned.

    The tokens are mixed among each other and read the rows before they are compared with them, so
    their number N is a constant of the weights. The softmax runs over the tokens: a row spreads
    over all of them, or with `hard` goes to the nearest one, with the gradient of the softmax.

    Source: MGN (NeurIPS 2022), the class-aware grouping; released code for its layers.

    Departs: as in the released code, the sum is divided by the sum of the assignments plus 1, and a
    hard assignment in training adds Gumbel noise of temperature 1.

    Args:
        config: widths, heads and noise.
        width: D.
        tokens: N.
        hard: assign each row to one token.

    Shape: rows [B, S, D], tokens [B, N, D] or [N, D] -> `Grouped`.
    """

    def __init__(self, config: GroupingOptions, width: int, *, tokens: int, hard: bool) -> None:
        super().__init__()
        self.hard, self.noisy = hard, hard and config.gumbel_noise
        self.tokens_norm, self.mixed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix = FeedForward(width=tokens, hidden=config.token_hidden, activation="gelu")
        self.rows_norm = nn.LayerNorm(width)
        self.attention = SeparateAttention(
            width=width, heads=config.heads, dropout=0.0, official_init=False
        )
        self.feedforward_norm, self.read_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feedforward = FeedForward(width=width, hidden=config.hidden, activation="gelu")
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)
        self.group_norm = nn.LayerNorm(width)
        self.group_feedforward = FeedForward(width=width, hidden=config.hidden, activation="gelu")

    def forward(self, rows: Tensor, tokens: Tensor, noise: Tensor | None = None) -> Grouped:
        """Group the rows.

        Args:
            rows: what is assigned.
            tokens: what it is assigned to.
            noise: [B, N, S], added to the scores of the assignment; None: Gumbel noise in training
                for a hard assignment, else none.
        """
        rows = self.rows_norm(rows)
        tokens = self._read(rows, tokens)
        scores = self.query(tokens) @ self.key(rows).mT / rows.shape[-1] ** 0.5  # (B, N, S)
        soft = assignment = scores.softmax(dim=1)
        if noise is None and self.noisy and self.training:
            drawn = torch.empty_like(scores, dtype=torch.float32).exponential_()
            noise = -drawn.log().to(scores.dtype)  # in single precision, where none is infinite
        if noise is not None:
            assignment = (scores + noise).softmax(dim=1)
        if self.hard:
            chosen = F.one_hot(assignment.argmax(dim=1), scores.shape[1]).mT  # (B, N, S)
            assignment = chosen.to(scores.dtype) - assignment.detach() + assignment
        shares = assignment / (assignment.sum(dim=-1, keepdim=True) + 1)
        groups = tokens + self.output(shares @ self.value(rows))
        groups = groups + self.group_feedforward(self.group_norm(groups))
        return Grouped(groups, tokens, assignment, soft)

    def _read(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """Mix the tokens among each other, and let them read the normalised rows: [B, N, D]."""
        mixed = self.mixed_norm(self.mix(self.tokens_norm(tokens).mT).mT)
        if mixed.ndim == 2:
            mixed = mixed.expand(rows.shape[0], -1, -1)
        read = mixed + self.attention(mixed, *self.attention.project_memory(rows))
        return self.read_norm(read + self.feedforward(self.feedforward_norm(read)))


def published_start(module: nn.Module) -> None:
    """Draw all weights as MGN does: a truncated normal of deviation 0.02, and biases of 0."""
    for part in module.modules():
        if isinstance(part, PackedAttention):
            nn.init.trunc_normal_(part.in_proj_weight, std=0.02)
        elif isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
