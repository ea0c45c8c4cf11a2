"""Calibrated stacking: seen classes lose the same amount of their logits.

A model is surer of the classes that it was trained on. The amount is chosen on validation clips of
unseen classes, so the figures are tuned on these classes; they stand beside the plain ones.

Source: Chao et al. (ECCV 2016), section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avplatform.tasks.metrics import Arrays

STEPS = 21
"""Values of the amount that are tried, beside 0."""


@dataclass(frozen=True)
class Stacking:
    """Decisions with `gamma` subtracted from the logits of seen classes.

    Args:
        gamma: the amount.
        background: the index of background, which is neither seen nor unseen.
    """

    gamma: float
    background: int

    def labels(self, evidence: Arrays) -> np.ndarray:
        """Return the labels that are decided; the first one of equal scores, as without stacking.

        Shape: evidence "seen", "unseen", "background", the best scores [N, T], and "seen_label",
        "unseen_label" -> int [N, T].
        """
        seen, unseen = evidence["seen"] - self.gamma, evidence["unseen"]
        labels = evidence["seen_label"], evidence["unseen_label"]
        event = np.where(seen > unseen, *labels)
        event = np.where(seen == unseen, np.minimum(*labels), event)
        best = np.maximum(seen, unseen) >= evidence["background"]
        return np.where(best, event, self.background)

    def remark(self, figures: dict[str, float]) -> str:
        """Return the figures in a sentence that says how they came about."""
        shown = ", ".join(
            f"{name.replace('_', ' ')} {value:.1f}"
            for name, value in figures.items()
            if name.endswith("average")
        )
        return (
            f"Calibrated stacking, beside the figures above: with {self.gamma:.3g} subtracted from "
            f"the logits of the seen classes, {shown}. The amount was chosen with validation clips "
            "of unseen classes, so this is tuned on them."
        )


def amounts(evidence: Arrays) -> list[float]:
    """Return the amounts to try, the smallest first: 0 and quantiles of what seen classes lead by.

    They lead by the difference between the best seen and the best unseen score of a segment.
    """
    lead = evidence["seen"].astype(np.float64) - evidence["unseen"]
    values = {0.0, *np.quantile(lead, np.linspace(0, 1, STEPS)).tolist()}
    return sorted(values, key=abs)
