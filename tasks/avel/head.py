"""What the heads of event localization have in common."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from avplatform.models.contracts import Parse, Prediction, at_least_single
from avplatform.tasks.avel import losses
from avplatform.tasks.avel.config import AVELConfig
from avplatform.tasks.avel.losses import joint


class Head:
    """Base class of heads; each one reads one kind of prediction.

    Axes: B clips, T segments, C events; the label C is background.

    Args:
        config: the options of the task.
        background: the index of background, which is the number of events.
    """

    has_gate_terms: ClassVar[bool] = False
    """Whether the loss already has the terms on the encoder's gate and gated queries."""

    def __init__(self, config: AVELConfig, background: int) -> None:
        self.config, self.background = config, background
        self.weak = config.supervision == "weak"

    @staticmethod
    def reads(parse: Parse, background: int) -> bool:
        """Return whether a parse holds this kind of prediction."""
        raise NotImplementedError

    def loss(self, parse: Parse, segment: Tensor, video: Tensor) -> losses.Terms:
        """Return the terms for segment labels [B, T] and video labels [B]."""
        raise NotImplementedError

    def decide(self, parse: Parse) -> Tensor:
        """Return the label of every segment, int [B, T]."""
        raise NotImplementedError

    def best_event(self, parse: Parse) -> tuple[Tensor, Tensor]:
        """Return the best event of each segment, background left out, and its score: [B, T]."""
        raise NotImplementedError

    def scores(self, parse: Parse) -> Tensor:
        """Return the joint scores of all labels, in at least single precision: [B, T, C + 1]."""
        return at_least_single(joint(parse, "segment").values)

    def probabilities(self, parse: Parse) -> Tensor:
        """Return the probability of each event in each segment: [B, T, C] or [B, T, C + 1]."""
        return joint(parse, "segment").probability

    def video_target(self, parse: Parse, segment: Tensor, video: Tensor) -> Tensor:
        """Return the target of weak training [B, C + 1]: the class, or PSP's shares of segments."""
        if self.config.weak_target == "prob":
            return losses.proportion_target(segment, self.dtype(parse), self.background + 1)
        return losses.mil_target(video, self.dtype(parse), self.background + 1)

    def clip_target(self, parse: Parse, segment: Tensor, video: Tensor) -> Tensor:
        """Return what the clip is known to hold, for the classes that the decoder predicts: [B, C].

        For weak supervision it is the video target, else every label of a segment.
        """
        classes = joint(parse, "video").values.shape[-1]
        if self.weak:
            return self.video_target(parse, segment, video)[:, :classes]
        labels = F.one_hot(segment, self.background + 1).amax(dim=1)
        return labels[:, :classes].to(self.dtype(parse))

    @staticmethod
    def dtype(parse: Parse) -> torch.dtype:
        """Return the precision of targets: that of the prediction, at least single."""
        return at_least_single((parse.segment.av or parse.video.av).values).dtype  # type: ignore[union-attr]

    def against_background(
        self, scores: Tensor, prediction: Prediction, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the best event (or `label`), and its score against background alone, in [0, 1]."""
        events, background = scores[..., : self.background], scores[..., self.background]
        if label is None:
            best, label = events.max(dim=-1)
        else:
            best = events.gather(-1, label[..., None]).squeeze(-1)
        if prediction.kind == "probability":
            return label, best / (best + background).clamp(min=1e-12)
        return label, (best - background).sigmoid()
