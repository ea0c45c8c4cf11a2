"""AVE's accuracy clip by clip and class by class, and the threshold between an event and background."""

from __future__ import annotations

import numpy as np

from avplatform.tasks.contracts import Analysis, Arrays


class AVELAnalysis(Analysis):
    """Terms of `AVELMetrics`.

    Labels exclude each other, so the one threshold there is lies between a segment's best event and background; it may differ
    with that event. 0.5 is the task's own decision.
    """

    streams = ("av",)

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes, self.background = classes, len(classes) - 1

    def contributions(self, state: Arrays) -> Arrays:
        """Return the share of right segments of each clip (all clips have the same number of segments)."""
        return {"accuracy": 100 * (state["predicted"] == state["true"]).mean(axis=1)}

    def class_terms(self, state: Arrays) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
        """Return, per clip and true label, the right segments and all segments."""
        true = state["true"][..., None] == np.arange(len(self.classes))  # (N, T, C)
        right = (state["predicted"] == state["true"])[..., None] & true
        return {"segment": {"av": (right.sum(axis=1).astype(float), true.sum(axis=1))}}

    def judged(self, state: Arrays, evidence: Arrays) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return the score of every segment's best event, and whether it is that segment's label."""
        right = evidence["label"] == state["true"]
        return {"av": (np.float64(evidence["event"]).reshape(-1), right.reshape(-1))}

    def objective(self, state: Arrays, evidence: Arrays, grid: np.ndarray) -> Arrays:
        """Return how many segments are right among those whose best event is a class; their sum is what accuracy counts."""
        label, true = evidence["label"], state["true"]
        of_class = label[..., None] == np.arange(self.background)  # (N, T, C - 1)
        values = np.empty((len(grid), self.background))
        for at, threshold in enumerate(grid):
            right = np.where(evidence["event"] >= threshold, label, self.background) == true
            values[at] = (right[..., None] & of_class).sum(axis=(0, 1))
        return {"av": np.where(of_class.any(axis=(0, 1)), values, np.nan)}

    def redecide(self, state: Arrays, evidence: Arrays, thresholds: Arrays) -> Arrays:
        """Give a segment its best event from that event's threshold on, else background."""
        label = evidence["label"].astype(np.int64)
        event = evidence["event"] >= np.asarray(thresholds["av"])[label]
        return state | {"predicted": np.where(event, label, self.background)}
