"""The decision on labels of event localization that the model was never trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from avplatform.models.contracts import Encoding, Parse, Prediction, at_least_single
from avplatform.tasks.avel.heads import one_hot_events
from avplatform.tasks.avel.losses import joint
from avplatform.tasks.batch import Batch
from avplatform.tasks.unseen import Choice, UnseenRule, with_columns

THRESHOLDS = tuple(-1.5 + 0.25 * n for n in range(18))
GAINS = (0.5, 1.0, 2.0, 3.0)
OFFSETS = tuple(-9.0 + 0.5 * n for n in range(25))
SHARES = (0.0, 0.5, 0.8)


class AVELUnseen(UnseenRule):
    """A label has the score of its segment, in part replaced by the mean over the clip.

    * Alone: the best label by this score is in the segment if its own score is above a threshold,
      whatever the logit of background, which never met these events. The choice is the threshold
      and the share of the mean.
    * Beside trained labels: the score times a gain, plus an offset, is the logit that competes with
      those of the trained labels and of background. The choice is gain, offset and share.
    """

    streams = ("av",)
    exclusive = True

    @property
    def background(self) -> int:
        """The index of background, which is the number of events."""
        return len(self.classes) - 1

    def encoded(self, encoding: Encoding) -> dict[str, Tensor]:
        """Return both encoded streams side by side, as the stream "av"."""
        return {"av": torch.cat([encoding.audio, encoding.visual], dim=-1)}

    def known(self, parse: Parse, batch: Batch) -> dict[str, Tensor]:
        """Return the events of segments, or the probabilities of the clip's event (weak)."""
        if self.config.supervision == "full":
            return {"av": one_hot_events(batch.labels["segment"], self.background).float()}
        clips = one_hot_events(batch.labels["video"][:, None], self.background)
        return {"av": joint(parse, "segment").probability[..., : self.background] * clips}

    def choices(self, *, alone: bool) -> Sequence[Choice]:
        """Return thresholds and shares, or gains, offsets and shares."""
        if alone:
            return list(product(THRESHOLDS, SHARES))
        return list(product(GAINS, OFFSETS, SHARES[:2]))

    def apply(
        self,
        parse: Parse,
        scores: dict[str, Tensor],
        columns: Sequence[int],
        choice: Choice,
        *,
        alone: bool,
    ) -> Parse:
        """Return a parse with the logits of unseen labels in the joint stream.

        The video logit of a label is that of its best segment.
        """
        own, share = scores["av"], choice[-1]
        mixed = (1 - share) * own + share * own.mean(dim=1, keepdim=True)
        segment, video = joint(parse, "segment"), joint(parse, "video")
        if alone:
            best = mixed.max(dim=-1, keepdim=True)
            logits = mixed - best.values + own.gather(-1, best.indices) - choice[0]
        else:
            logits = choice[0] * mixed + choice[1]
        of_clip = logits.amax(dim=1)
        if segment.values.shape[-1] > self.background:
            values = _logits(segment)[..., self.background, None]
            nothing = _logits(video)[..., self.background]
            logits = logits + values if alone else logits
            of_clip = (logits - values).amax(dim=1) + nothing.clamp(min=0)[..., None]
        new = {
            "segment": with_columns(segment, columns, logits),
            "video": with_columns(video, columns, of_clip),
        }
        return dataclasses.replace(
            parse,
            **{
                level: dataclasses.replace(getattr(parse, level), av=value)
                for level, value in new.items()
            },
        )

    def figure(self, found: dict[str, Tensor], truth: dict[str, Tensor]) -> float:
        """Return the accuracy of segments, where one without an event is background."""
        return 100 * float((found["av"] == truth["av"]).all(dim=-1).double().mean())


def _logits(prediction: Prediction) -> Tensor:
    """Return the logits of a prediction, also where it holds probabilities."""
    values = at_least_single(prediction.values)
    return values.logit(eps=1e-6) if prediction.kind == "probability" else values
