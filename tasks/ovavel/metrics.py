"""Accuracy, segment F and event F of open-vocabulary localization, by seen and unseen classes.

Axes: N clips, T segments, K labels, of which the last is background. Background is a label like any
other here: it is counted among the classes of both F-scores and has runs of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import harmonic_mean
from typing import Any

import numpy as np
from torch import Tensor

from avplatform.tasks.avel.metrics import AVELMetrics, clip_classes
from avplatform.tasks.batch import Batch
from avplatform.tasks.metrics import Arrays
from avplatform.tasks.ovavel.stacking import Stacking

FIGURES = ("accuracy", "segment_F", "event_F")
GROUPS = ("total", "seen", "unseen")
SELECTION = (
    "{} clips are of seen and {} of unseen classes. Figures without either word are of all clips: "
    "an epoch that they select is selected on unseen classes too, as in the published protocol; "
    "select_by seen_average is strict."
)
NOT_STACKED = (
    "Calibrated stacking with {:.3g} is left out: the labels are not decided by the largest of the "
    "logits of seen and unseen classes."
)
BANKED = (
    "Calibrated stacking with {:.3g} is left out: the model's bank decides the unseen classes, and "
    "the amount was chosen for the logits that the model itself gives them."
)
NO_LABEL = -1
"""A segment that has no label at all in the F-scores: the hole of the published agreement rule."""


class OVAVELMetrics(AVELMetrics):
    """Accumulator of decided and true labels of segments, by row.

    Clips are grouped by the label "category" [B], what they were collected for; without it, by
    their own label, and then a clip without event is in neither group. In each group all labels are
    candidates. `stacking` is what calibrated stacking subtracts, whose figures stand beside the
    others in `details`.

    Source: OV-AVEBench (CVPR 2025), released evaluation code.

    Departs: the released code averages the F-scores over batches, which weighs the last batch too
    much; here the mean is over clips.
    """

    def __init__(
        self, classes: Iterable[str], unseen: Iterable[str], *, stacking: Stacking | None = None
    ) -> None:
        super().__init__(classes)
        chosen = set(unseen)
        self.unseen = np.array([name in chosen for name in self.classes])
        self.stacking = stacking

    def columns(self, decisions: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Return the decided and true labels of a batch, and the groups of its clips."""
        columns = super().columns(decisions, batch)
        category = batch.labels.get("category", batch.labels["video"])
        more = {n: decisions[n] for n in ("unseen_only", "unlabelled", "by_bank") if n in decisions}
        return columns | {"category": category.long()} | more

    def compute(self) -> dict[str, float]:
        """Return accuracy, both F-scores and their mean, in percent: of all clips and by group.

        Without times, the only figure is the accuracy of the class of each clip.
        """
        s = self.scored()
        if not self.timed:
            return super().compute()
        found = self.figures_of(scored_labels(s))
        unseen = self.group("unseen")
        if "unseen_only" in s and unseen.any():
            right = (s["unseen_only"] == s["true"])[unseen]
            found["unseen_among_unseen_accuracy"] = 100 * float(right.mean())
        return found

    def details(self) -> dict[str, Any]:
        """Return further accuracies, the answers without training, and calibrated stacking."""
        details, s = super().details(), self.scored()
        if not self.timed:
            return details
        background = np.full_like(s["true"], self.background)
        collected = np.broadcast_to(s["category"][:, None], s["true"].shape)
        truth = clip_classes(s["true"], self.background)
        known = np.broadcast_to(truth[:, None], s["true"].shape)
        details["anchors"] = {
            "always_background": self.figures_of(background),
            "true_category_everywhere": self.figures_of(collected),
            "true_clip_class_everywhere": self.figures_of(known),
        }
        groups = {name: self.group(name) for name in GROUPS[1:]}
        unseen = groups["unseen"]
        details["groups"] = {name: int(clips.sum()) for name, clips in groups.items()}
        details["remarks"] = [SELECTION.format(*details["groups"].values())] * bool(unseen.any())
        if self.stacking is not None and self.evidence is not None and "seen" in self.evidence:
            stacked = self.figures_of(self.stacking.labels(self.evidence))
            details["stacking"] = {"gamma": self.stacking.gamma, **stacked}
            details["remarks"].append(self.stacking.remark(stacked))
        elif self.stacking is not None and unseen.any():
            why = BANKED if "by_bank" in s else NOT_STACKED
            details["remarks"].append(why.format(self.stacking.gamma))
        return details

    def group(self, name: str) -> np.ndarray:
        """Return which clips are of a group: bool [N]."""
        category = self.scored()["category"]
        chosen = {
            "total": np.ones(len(category), bool),
            "seen": ~self.unseen[category] & (category != self.background),
            "unseen": self.unseen[category],
        }
        return chosen[name]

    def figures_of(self, predicted: np.ndarray) -> dict[str, float]:
        """Return the figures that decisions [N, T] on the same clips would have, by group.

        A group without clips has none. "harmonic_average" is the harmonic mean of the averages of
        seen and unseen classes, where there are clips of both.
        """
        clips = clip_figures(predicted, self.scored()["true"], len(self.classes))
        out: dict[str, float] = {}
        for group in GROUPS:
            start, chosen = "" if group == "total" else f"{group}_", self.group(group)
            if chosen.any() and (group == "total" or self.unseen.any()):
                means = {n: 100 * float(v[chosen].mean()) for n, v in clips.items()}
                out |= {start + name: value for name, value in means.items()}
                out[f"{start}average"] = float(np.mean(list(means.values())))
        pair = [out[name] for group in GROUPS[1:] if (name := f"{group}_average") in out]
        return out | ({"harmonic_average": harmonic_mean(pair)} if len(pair) == 2 else {})


def scored_labels(state: Arrays) -> np.ndarray:
    """Return the decided labels [N, T], with NO_LABEL where the F-scores see none."""
    predicted = state["predicted"]
    return (
        np.where(state["unlabelled"], NO_LABEL, predicted) if "unlabelled" in state else predicted
    )


def clip_figures(predicted: np.ndarray, true: np.ndarray, labels: int) -> Arrays:
    """Return the figures of each clip, from 0 to 1; without a label, accuracy sees background.

    Shape: two int arrays [N, T] of `labels` labels -> "accuracy", "segment_F", "event_F" [N].

    Examples:
        >>> p, g = np.array([[0, 0, 2, 2]]), np.array([[0, 0, 0, 2]])
        >>> {name: round(float(x[0]), 3) for name, x in clip_figures(p, g, 3).items()}
        {'accuracy': 0.75, 'segment_F': 0.733, 'event_F': 1.0}
    """
    return {
        "accuracy": (np.where(predicted == NO_LABEL, labels - 1, predicted) == true).mean(axis=1),
        "segment_F": segment_f(predicted, true, labels),
        "event_F": event_f(predicted, true, labels),
    }


def segment_f(predicted: np.ndarray, true: np.ndarray, labels: int) -> np.ndarray:
    """Return the mean F of the labels that occur in the decisions or in the truth of a clip.

    Shape: two int arrays [N, T] -> [N].
    """
    p, g = _one_hot(predicted, labels), _one_hot(true, labels)  # (N, T, K)
    return _mean_f((p & g).sum(axis=1), p.sum(axis=1), g.sum(axis=1))


def event_f(predicted: np.ndarray, true: np.ndarray, labels: int) -> np.ndarray:
    """Return the mean F of runs: a run is right if it overlaps a true run of its label by half.

    Overlap is the intersection over the union, of which one half is enough; so no run can be right
    for two others.

    Shape: two int arrays [N, T] -> [N].
    """
    (p_start, p_end), (g_start, g_end) = _spans(predicted), _spans(true)
    shared = np.minimum(p_end, g_end) - np.maximum(p_start, g_start)
    whole = np.maximum(p_end, g_end) - np.minimum(p_start, g_start)
    matched = (predicted == true) & (2 * shared >= whole)  # (N, T), for the runs through segment t
    clips, segments = predicted.shape
    at = np.arange(segments)
    right = np.zeros((clips, segments), bool)
    rows = np.broadcast_to(np.arange(clips)[:, None], matched.shape)[matched]
    right[rows, p_start[matched]] = True
    p_runs = _one_hot(np.where(p_start == at, predicted, NO_LABEL), labels)
    g_runs = _one_hot(np.where(g_start == at, true, NO_LABEL), labels)
    hits = (p_runs & right[..., None]).sum(axis=1)
    return _mean_f(hits, p_runs.sum(axis=1), g_runs.sum(axis=1))


def _one_hot(values: np.ndarray, labels: int) -> np.ndarray:
    return np.asarray(values[..., None] == np.arange(labels))


def _mean_f(right: np.ndarray, found: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Return the mean of 2 TP / (2 TP + FP + FN) over the labels that occur; 1 if none does."""
    total = found + present  # (N, K)
    scores = np.divide(2 * right, total, out=np.zeros(total.shape), where=total > 0)
    count = (total > 0).sum(axis=1)
    return np.divide(scores.sum(axis=1), count, out=np.ones(len(total)), where=count > 0)


def _spans(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return first segment, and one past the last, of the run through each segment: [N, T]."""
    clips, segments = values.shape
    change = np.ones((clips, segments + 1), bool)
    change[:, 1:-1] = values[:, 1:] != values[:, :-1]
    at = np.arange(segments)
    start = np.maximum.accumulate(np.where(change[:, :-1], at, 0), axis=1)
    ends = np.where(change[:, 1:], at + 1, segments)
    end = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    return start, end
