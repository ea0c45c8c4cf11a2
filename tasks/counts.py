"""The likelihood of how many segments of a clip have a class.

A weak label says that at least one segment has the class. If the segments are independent, their
number K has a Poisson-binomial distribution, and the label becomes K >= k for a count k that may
grow while the model trains.

Source: our own design after the idea of BPS (ICCV 2023), of which neither text nor code was at
hand. It has no published reference, and nothing here is compared with one.

Axes: B clips, S segments that are counted together, C classes, M groups of segments.
"""

from __future__ import annotations

import torch
from torch import Tensor

from avplatform.models.contracts import at_least_single
from avplatform.tasks.batch import Processes
from avplatform.tasks.losses import CLAMP

NEVER = -1e4
"""Logarithm of a probability that is 0; its exponential is 0, and it has a finite gradient."""


def log_counts(probability: Tensor) -> Tensor:
    """Return the logarithms of the probabilities that 0 to S segments have a class.

    Probabilities are clamped to [1e-7, 1 - 1e-7] first.

    Shape: [B, S, C] -> [B, C, S + 1].

    Examples:
        >>> log_counts(torch.tensor([[[0.9], [0.5], [0.1]]])).exp().round(decimals=3)
        tensor([[[0.0450, 0.4550, 0.4550, 0.0450]]])
    """
    p = at_least_single(probability).clamp(CLAMP, 1 - CLAMP)
    has, has_not = p.log(), torch.log1p(-p)
    clips, segments, classes = p.shape
    counts = p.new_full((clips, classes, segments + 1), NEVER)
    counts[..., 0] = 0
    for t in range(segments):
        more = torch.cat([counts.new_full((clips, classes, 1), NEVER), counts[..., :-1]], dim=-1)
        counts = torch.logaddexp(counts + has_not[:, t, :, None], more + has[:, t, :, None])
    return counts


def count_loss(probability: Tensor, labels: Tensor, least: Tensor | None = None) -> Tensor:
    """Return minus the log likelihood that the segments have each class as often as labels say.

    A clip with the class has it in at least `least` segments, a clip without it in none. In the
    logit of a segment the gradient is p - r, r the probability that the segment has the class
    given the label.

    Shape: probability [B, S, C]; labels [B, C] in {0, 1}; least int [B, C], 1 if None -> scalar,
    the mean over clips and classes.
    """
    counts = log_counts(probability)
    least = torch.ones_like(labels) if least is None else least
    numbers = torch.arange(counts.shape[-1], device=counts.device)
    too_few = numbers < least[..., None]  # (B, C, S + 1)
    enough = counts.masked_fill(too_few, NEVER).logsumexp(dim=-1)
    enough = torch.where(least > 0, enough, torch.zeros_like(enough))
    return -torch.where(labels > 0, enough, counts[..., 0]).mean()


class LeastCounts:
    """How many segments of each clip have a class at least; a count never falls.

    The counts are kept by row, the same on every process, so they do not depend on how many there
    are.
    """

    def __init__(self) -> None:
        self._kept: dict[int, Tensor] = {}

    def update(self, row: Tensor, groups: list[Tensor], processes: Processes) -> Tensor:
        """Raise the counts of a batch to the sums of its probabilities, rounded down.

        Args:
            row: the keys of this process's clips.
            groups: the probabilities of the segments that are counted together, M times [B, S, C].
            processes: those that share the batch.

        Returns:
            The counts of this process's clips, int64 [B, M, C], from 1 to the number of segments.
        """
        sums = torch.stack([at_least_single(p).sum(dim=1) for p in groups], dim=1)  # (B, M, C)
        most = sums.new_tensor([p.shape[1] for p in groups])[:, None]
        found = processes.gather(torch.minimum(sums.floor(), most).clamp(min=1).long())
        rows = processes.gather(row).tolist()
        for at, key in enumerate(rows):
            before = self._kept.get(key)
            counts = found[at].to("cpu", torch.int16)
            self._kept[key] = counts if before is None else torch.maximum(before, counts)
        kept = torch.stack([self._kept[key] for key in rows]).to(row.device, torch.int64)
        return processes.own(kept)

    def state(self) -> dict[str, Tensor]:
        """Return the rows [N] and their counts [N, M, C], for checkpoints."""
        if not self._kept:
            return {}
        rows = torch.tensor(list(self._kept))
        return {"count_rows": rows, "counts": torch.stack(list(self._kept.values()))}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        rows = state["count_rows"].tolist() if "count_rows" in state else []
        self._kept = dict(zip(rows, state["counts"].cpu(), strict=True)) if rows else {}
