"""The decision on labels of video parsing that the model was never trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from avplatform.models.contracts import Encoding, Parse
from avplatform.tasks.avvp.metrics import STREAMS, averages, score
from avplatform.tasks.batch import Batch
from avplatform.tasks.unseen import Choice, UnseenRule, with_columns

STEEPNESS = 1.7
"""With this factor, the sigmoid of a normal quantile is nearly its probability."""
SEGMENTS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
CLIPS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)


class AVVPUnseen(UnseenRule):
    """A label is heard or seen in a segment if segment and clip stand high enough in the bank.

    The choice is the quantile that a segment must reach in its stream, and the quantile that the
    clip must reach by the mean over its segments in the better stream. Labels do not exclude each
    other, so trained labels that are asked beside change no logit, only which choice serves best.
    """

    streams = STREAMS

    def encoded(self, encoding: Encoding) -> dict[str, Tensor]:
        """Return the two encoded streams."""
        return {name: getattr(encoding, name) for name in STREAMS}

    def known(self, parse: Parse, batch: Batch) -> dict[str, Tensor]:
        """Return the pseudo-labels, or the probabilities of the clip's labels (weak)."""
        if self.config.supervision == "pseudo":
            return {name: batch.labels[f"pseudo_{name}"].float() for name in STREAMS}
        clips = batch.labels["weak"][:, None].float()
        segments = parse.for_decisions.segment
        return {name: getattr(segments, name).probability * clips for name in STREAMS}

    def choices(self, *, alone: bool) -> Sequence[Choice]:
        """Return pairs of quantiles: of the segment and of the clip."""
        return list(product(SEGMENTS, CLIPS))

    def apply(
        self,
        parse: Parse,
        scores: dict[str, Tensor],
        columns: Sequence[int],
        choice: Choice,
        *,
        alone: bool,
    ) -> Parse:
        """Return a parse with the logits of unseen labels, 0 at both quantiles."""
        at = torch.special.ndtri(torch.tensor(choice, dtype=torch.float64)).tolist()
        segment, video = {}, {}
        for name in STREAMS:
            old = getattr(parse.segment, name), getattr(parse.video, name)
            segment[name] = with_columns(old[0], columns, STEEPNESS * (scores[name] - at[0]))
            clip = STEEPNESS * (scores["clip"] - at[1])
            video[name] = with_columns(old[1], columns, clip)
        if parse.video.av is not None:
            video["av"] = with_columns(parse.video.av, columns, clip)
        return dataclasses.replace(
            parse,
            segment=dataclasses.replace(parse.segment, **segment),
            video=dataclasses.replace(parse.video, **video),
        )

    def figure(self, found: dict[str, Tensor], truth: dict[str, Tensor]) -> float:
        """Return segment Type@AV."""
        maps = [group[name].cpu().numpy() for group in (found, truth) for name in STREAMS]
        return averages(score(*maps))["segment_Type@AV"]
