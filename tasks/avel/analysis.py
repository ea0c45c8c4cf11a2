"""Accuracy per clip and per class, and thresholds between an event and background."""

from __future__ import annotations

import numpy as np

from avplatform.tasks.metrics import Analysis, Arrays


class AVELAnalysis(Analysis):
    """Terms of `AVELMetrics` per clip and per class.

    Labels exclude each other, so a threshold only decides between the best event of a segment and
    background. Each event can have its own threshold; the task itself decides at 0.5.
    """

    streams = ("av",)

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes, self.background = classes, len(classes) - 1

    def contributions(self, state: Arrays) -> Arrays:
        """Return the share of right segments of each clip, in percent."""
        return {"accuracy": 100 * (state["predicted"] == state["true"]).mean(axis=1)}

    def class_terms(self, state: Arrays) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
        """Return the numbers of right segments and of all segments, per clip and true label."""
        true = state["true"][..., None] == np.arange(len(self.classes))  # (N, T, C)
        right = (state["predicted"] == state["true"])[..., None] & true
        return {"segment": {"av": (right.sum(axis=1).astype(float), true.sum(axis=1))}}

    def judged(self, state: Arrays, evidence: Arrays) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return the score of the best event of each segment, and whether it is the true label."""
        right = evidence["label"] == state["true"]
        return {"av": (np.float64(evidence["event"]).reshape(-1), right.reshape(-1))}

    def objective(self, state: Arrays, evidence: Arrays, grid: np.ndarray) -> Arrays:
        """Return the number of right segments among those whose best event is a class.

        The sum over classes is what accuracy counts.
        """
        label, true = evidence["label"], state["true"]
        of_class = label[..., None] == np.arange(self.background)  # (N, T, C - 1)
        values = np.empty((len(grid), self.background))
        for at, threshold in enumerate(grid):
            right = np.where(evidence["event"] >= threshold, label, self.background) == true
            values[at] = (right[..., None] & of_class).sum(axis=(0, 1))
        return {"av": np.where(of_class.any(axis=(0, 1)), values, np.nan)}

    def redecide(self, state: Arrays, evidence: Arrays, thresholds: Arrays) -> Arrays:
        """Give each segment its best event where it reaches the threshold, else background."""
        label = evidence["label"].astype(np.int64)
        event = evidence["event"] >= np.asarray(thresholds["av"])[label]
        return state | {"predicted": np.where(event, label, self.background)}
