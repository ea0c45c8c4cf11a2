"""How a task decides labels that its model was never trained on.

The scores of such a label are standard scores: the quantile of a segment among the segments of
training clips that a model's reference bank holds, as a quantile of the normal distribution. A rule
turns them into logits beside those of the labels that the model was trained on. Its numbers are
picked on trained classes that are left out in turn, never on the labels that are asked for.

Axes: B clips, T segments, C columns of a parse, U unseen labels, D width of what is encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from avplatform.models.contracts import Encoding, Parse, Prediction
from avplatform.tasks.batch import Batch

Choice = tuple[float, ...]
"""The numbers of a rule."""


class UnseenRule:
    """Base class of the rules of tasks; a task returns its own from `Task.unseen_rule`.

    Args:
        config: the options of the task.
        classes: the classes that the task decides among.
    """

    streams: ClassVar[tuple[str, ...]]
    """the streams that are scored"""
    exclusive: ClassVar[bool] = False
    """Whether labels compete, so that it matters which trained labels are asked beside."""

    def __init__(self, config: Any, classes: Sequence[str]) -> None:
        self.config, self.classes = config, tuple(classes)

    def encoded(self, encoding: Encoding) -> dict[str, Tensor]:
        """Return what linear maps read of each stream: stream -> [B, T, D]."""
        raise NotImplementedError

    def known(self, parse: Parse, batch: Batch) -> dict[str, Tensor]:
        """Return the events that training knows: stream -> [B, T, C] in [0, 1], no background.

        Where it knows only the events of whole clips, these are the model's own probabilities.
        """
        raise NotImplementedError

    def choices(self, *, alone: bool) -> Sequence[Choice]:
        """Return the numbers to pick from; `alone`: no trained label is asked beside."""
        raise NotImplementedError

    def clip_score(self, scores: dict[str, Tensor]) -> Tensor:
        """Return one score per clip: stream -> [B, T, U] to [B, U]; the higher mean by default."""
        return torch.stack([values.mean(dim=1) for values in scores.values()]).amax(dim=0)

    def apply(
        self,
        parse: Parse,
        scores: dict[str, Tensor],
        columns: Sequence[int],
        choice: Choice,
        *,
        alone: bool,
    ) -> Parse:
        """Return a parse with logits by the rule in some columns; the others stay as they are.

        Args:
            parse: the predictions of the model.
            scores: standard scores by stream [B, T, U], and of the whole "clip" [B, U].
            columns: the columns of the U labels.
            choice: the numbers of the rule.
            alone: no trained label is asked beside these.
        """
        raise NotImplementedError

    def figure(self, found: dict[str, Tensor], truth: dict[str, Tensor]) -> float:
        """Return the task's own figure, in percent; both are stream -> bool [B, T, U]."""
        raise NotImplementedError


def with_columns(prediction: Prediction, columns: Sequence[int], logits: Tensor) -> Prediction:
    """Return a prediction whose columns hold other logits, or their sigmoid (probabilities)."""
    values = prediction.values.clone()
    new = logits.sigmoid() if prediction.kind == "probability" else logits
    values[..., list(columns)] = new.to(values.dtype)
    return replace(prediction, values=values)


def class_f(found: dict[str, Tensor], truth: dict[str, Tensor]) -> float:
    """Return the mean F0.5-score of classes over all segments, in percent, by stream and class.

    Precision counts twice as much as recall: a rare label that is wrongly found costs more than one
    that is missed. Classes that occur nowhere do not count. Shape: stream -> bool [B, T, U].
    """
    scores = []
    for stream, events in truth.items():
        right = (found[stream] & events).sum(dim=(0, 1))
        total = found[stream].sum(dim=(0, 1)) + 0.25 * events.sum(dim=(0, 1))
        scores.append((1.25 * right / total.clamp(min=0.25))[events.any(dim=0).any(dim=0)])
    joined = torch.cat(scores)
    return 100 * float(joined.mean()) if len(joined) else 0.0
