"""One event of a timeline, and the events that a model's decisions make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avplatform.models.contracts import STREAMS
from avplatform.tasks.spans import runs

NEVER_TRAINED = "never trained on"
"""What stands beside a label that the model was never trained on, whatever its score."""


@dataclass(kw_only=True, frozen=True)
class Event:
    """One event: stream, label, onset and offset in seconds, and mean probability.

    The stream is "audio" (heard), "visual" (seen) or "av" (heard and seen at once).
    `never_trained_on` tells that the model was never trained on the label, so that the probability
    is a guess.
    """

    stream: str
    label: str
    onset: float
    offset: float
    score: float
    never_trained_on: bool = False

    @property
    def score_text(self) -> str:
        """The score for a reader, never without the word about a label never trained on."""
        return f"{self.score:.2f}" + (f", {NEVER_TRAINED}" if self.never_trained_on else "")


def events_of(
    found: dict[str, np.ndarray],
    scores: dict[str, np.ndarray],
    labels: Sequence[str],
    *,
    duration: float,
    segment_seconds: float = 1.0,
    never_trained_on: Sequence[str] = (),
) -> list[Event]:
    """Return each run of found segments as an event, sorted by onset, stream and class.

    The score of an event is the mean probability of its segments. The last segment ends where the
    video ends.

    Shape: found (bool) and scores are [N, C] per stream.
    """
    events = []
    for stream, maps in found.items():
        for number, label in enumerate(labels):
            for first, last in runs(maps[:, number]):
                score = float(scores[stream][first:last, number].mean())
                onset, offset = first * segment_seconds, last * segment_seconds
                if last == len(maps) and onset < duration:
                    offset = duration
                events.append(
                    Event(
                        stream=stream,
                        label=label,
                        onset=onset,
                        offset=offset,
                        score=score,
                        never_trained_on=label in never_trained_on,
                    )
                )
    return sorted(events, key=lambda e: (e.onset, STREAMS.index(e.stream), labels.index(e.label)))
