"""Segment accuracy of event localization, and figures that explain it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor

from avplatform.tasks.batch import Batch
from avplatform.tasks.metrics import Metrics


class AVELMetrics(Metrics):
    """Accumulator of decided and true labels of segments, by row; the last class is background.

    `columns` reads the decision "segment" (int [B, T]) and the labels "segment" [B, T] and "video"
    [B]. Clips whose events have no times lack the former, and are scored by the class of the clip.
    """

    def __init__(self, classes: Iterable[str]) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.background = len(self.classes) - 1

    def columns(self, decisions: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Return the decided and true labels of a batch."""
        columns = {
            "predicted": decisions["segment"].long(),
            "video": batch.labels["video"].long(),
        }
        known = "segment" in batch.labels
        return columns | ({"true": batch.labels["segment"].long()} if known else {})

    def compute(self) -> dict[str, float]:
        """Return the accuracy over all labels, background included, in percent.

        Without times, it is that of the class of each clip.
        """
        s = self.scored()
        if not self.timed:
            right = clip_classes(s["predicted"], self.background) == s["video"]
            return {"video_accuracy": 100 * float(right.mean())}
        return {"accuracy": 100 * segment_accuracy(s["predicted"], s["true"])}

    def details(self) -> dict[str, Any]:
        """Return the accuracies of events, background, classes and clips, and the anchors."""
        s = self.scored()
        if not self.timed:
            most = float(np.bincount(s["video"]).max() / len(s["video"]))
            return {"clips": len(s["video"]), "anchors": {"most_frequent_class": 100 * most}}
        predicted, true, video = s["predicted"], s["true"], s["video"]
        event, right = true != self.background, predicted == true
        everywhere = np.broadcast_to(video[:, None], true.shape)
        of_clip = clip_classes(predicted, self.background) == video
        nothing, labels = np.full_like(true, self.background), np.arange(len(self.classes))
        counts = (true[:, :, None] == labels).sum(axis=0)  # (T, C)
        frequent = np.full_like(true, counts.sum(axis=0)[: self.background].argmax())
        by_second = np.broadcast_to(counts.argmax(axis=1), true.shape)
        per_class = {}
        for index, name in enumerate(self.classes):
            chosen = true == index
            accuracy = 100 * float(right[chosen].mean()) if chosen.any() else None
            per_class[name] = {"accuracy": accuracy, "count": int(chosen.sum())}
        return {
            "clips": len(true),
            "event_accuracy": _percent(right[event]),
            "background_accuracy": _percent(right[~event]),
            "video_accuracy": _percent(of_clip[video != self.background]),
            "per_class": per_class,
            "anchors": {
                "always_background": 100 * segment_accuracy(nothing, true),
                "perfect_class_everywhere": 100 * segment_accuracy(everywhere, true),
                "most_frequent_class": 100 * segment_accuracy(frequent, true),
                "class_priors_by_second": 100 * segment_accuracy(by_second, true),
            },
        }

    @property
    def timed(self) -> bool:
        """Whether the clips have events with times."""
        return "true" in self.scored()

    def constant(self) -> str | None:
        """Return "nothing" or "everything" if all segments are background or one class."""
        predicted = self.scored()["predicted"]
        if (predicted != predicted.flat[0]).any():
            return None
        return "nothing" if predicted.flat[0] == self.background else "everything"


def segment_accuracy(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return the share of segments whose label is right.

    Source: AVE (ECCV 2018), section 5: over all segments of all clips and all labels.

    Shape: two arrays [N, T] -> a number.
    """
    return float((np.asarray(predicted) == np.asarray(true)).mean())


def clip_classes(labels: np.ndarray, background: int) -> np.ndarray:
    """Return the most frequent event of each clip, or background if it has none: [N, T] -> [N]."""
    counts = (labels[:, :, None] == np.arange(background)).sum(axis=1)  # (N, C - 1)
    return np.where(counts.any(axis=1), counts.argmax(axis=1), background)


def _percent(values: np.ndarray) -> float | None:
    return 100 * float(values.mean()) if values.size else None
