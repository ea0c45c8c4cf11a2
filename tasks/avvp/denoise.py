"""JoMoLD's denoising: within a batch, drop the labels that the two modalities contradict.

A class that is heard but not seen has a low audio loss and a high visual loss, so its visual label
is probably noise; the reverse holds for audio. How many labels of a class are dropped follows from
its noise ratio, the share of its labels that does not hold in this modality.

Source: JoMoLD (ECCV 2022), section 3, in the order and with the rounding of its released code.

Axes: M the modalities audio and visual, N clips of the global batch, C classes.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from avplatform.models.contracts import Publication, at_least_single
from avplatform.tasks.batch import Moment
from avplatform.tasks.losses import CLAMP

JOMOLD = Publication(
    paper="JoMoLD",
    venue="ECCV 2022",
    authors="Cheng et al.",
    citation="""@inproceedings{cheng2022joint,
  title = {Joint-Modal Label Denoising for Weakly-Supervised Audio-Visual Video Parsing},
  author = {Cheng, Haoyue and Liu, Zhaoyang and Zhou, Hang and Qian, Chen and Wu, Wayne and
            Wang, Limin},
  booktitle = {European Conference on Computer Vision},
  year = {2022}
}""",
)
"""The paper that introduced denoising in the batch, and dropout on the visual stream alone."""
WarmUp = Literal["official", "linear", "off"]
Rounding = Literal["truncate", "carry"]


class Denoiser:
    """Drops labels of batch after batch; with the rounding "carry" it remembers the fractions.

    Everything is computed on the CPU, where ratios have double precision and the order of equal
    losses is defined.

    Args:
        ratios: noise ratios of audio and visual, float64 [M, C].
        rounding: truncate: as published; carry: the next batch gets the fractions.
        warm_up: see `ratio_strength`.
        warm_up_epochs: the length of the warm-up.
    """

    def __init__(
        self,
        ratios: Tensor,
        *,
        rounding: Rounding = "truncate",
        warm_up: WarmUp = "official",
        warm_up_epochs: float = 0.9,
    ) -> None:
        self.ratios, self.rounding = ratios.double(), rounding
        self.warm_up, self.warm_up_epochs = warm_up, warm_up_epochs
        self.carried = torch.zeros_like(self.ratios)

    def strength(self, moment: Moment | None) -> float:
        """Return the factor of the ratios; without a moment the warm-up is over."""
        if moment is None:
            return 1.0
        return ratio_strength(moment, warm_up=self.warm_up, epochs=self.warm_up_epochs)

    def dropped(
        self,
        probabilities: Tensor,
        labels: Tensor,
        *,
        targets: tuple[float, float],
        strength: float = 1.0,
    ) -> Tensor:
        """Return which labels of the global batch are dropped.

        Shape: probabilities and labels (0 or 1) [M, N, C] -> bool [M, N, C] on the CPU.
        """
        losses, held = label_losses(probabilities.cpu(), targets), labels.cpu() > 0
        counts, rest = drop_counts(strength * self.ratios, held, self.carried)
        if self.rounding == "carry":
            self.carried = rest
        return dropped_labels(losses, held, counts)


def ratio_strength(moment: Moment, *, warm_up: WarmUp = "official", epochs: float = 0.9) -> float:
    """Return the factor of the noise ratios in a batch.

    * linear: the share of the warm-up that is over, at most 1;
    * official: the running product of these shares over the batches of the epoch. With a warm-up
      of less than one epoch it is 0 in the first epoch and 1 afterwards; with a longer one it falls
      within each epoch that begins before the end of the warm-up;
    * off: 1.

    Departs: "official" is what JoMoLD's released code computes, because it multiplies its own
    result in every batch; "linear" is what it intends.

    Args:
        moment: when in training the batch is used.
        warm_up: see above.
        epochs: the length of the warm-up.

    Examples:
        >>> ratio_strength(Moment(epoch=1, batch=50, batches=100), warm_up="linear", epochs=2.0)
        0.25
    """
    if warm_up == "off":
        return 1.0
    first = 0 if warm_up == "official" else moment.batch
    batches = (moment._replace(batch=batch) for batch in range(first, moment.batch + 1))
    return math.prod(min(1.0, each.epochs_before / epochs) for each in batches)


def label_losses(probabilities: Tensor, targets: tuple[float, float]) -> Tensor:
    """Return the binary cross entropy of each clip and class if the class is there.

    Args:
        probabilities: video probabilities of both modalities.
        targets: what a positive label counts in audio and in visual, after smoothing. With a target
            of 0.95 the loss is lowest at 0.95, and grows again for surer predictions.

    Shape: [M, N, C] -> [M, N, C].
    """
    p = at_least_single(probabilities).clamp(CLAMP, 1 - CLAMP)
    t = p.new_tensor(targets)[:, None, None]
    return -(t * p.log() + (1 - t) * torch.log1p(-p))


def drop_counts(
    ratios: Tensor, labels: Tensor, carried: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return how many labels of each class may be dropped, and the fractions that remain.

    The product of ratio and labels is truncated, so a class with fewer than 1 / ratio labels in a
    batch loses none. The remaining fractions may be given to the next batch (`carried`), which then
    drops as many over time as the ratios say. A ratio that is NaN drops nothing.

    Shape: ratios float64 [M, C]; labels bool [M, N, C]; carried float64 [M, C] -> counts int64
    [M, C] and fractions float64 [M, C].
    """
    amounts = ratios.nan_to_num(nan=0.0) * labels.sum(dim=1)
    if carried is not None:
        amounts = amounts + carried
    counts = amounts.trunc()
    return counts.long(), amounts - counts


def dropped_labels(losses: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Return which labels are dropped: those of high own loss and low loss of the other modality.

    Among the k clips with the highest own loss and the k clips with the lowest other loss, k the
    count of the class, those in both sets lose the label. Clips of equal loss rank in the order of
    the batch. Both modalities are decided from the labels before any is dropped, so a class may
    lose both.

    Shape: losses [M, N, C]; labels bool [M, N, C]; counts [M, C] -> bool [M, N, C].
    """
    most = counts[:, None, :]  # (M, 1, C)
    number = labels.sum(dim=1, keepdim=True)  # (M, 1, C)
    own, other = _ranks(losses, labels), _ranks(losses.flip(0), labels)
    return labels & (own >= number - most) & (other < most)


def _ranks(losses: Tensor, labels: Tensor) -> Tensor:
    """Return the place of each loss among those of the labelled clips, from the lowest (0)."""
    order = losses.masked_fill(~labels, math.inf).argsort(dim=1, stable=True)
    return order.argsort(dim=1)  # the inverse permutation
