"""One event of a timeline, and the names of its stream."""

from __future__ import annotations

from dataclasses import dataclass

STREAM_NAMES = {"audio": "audio", "visual": "visual", "av": "audio-visual"}
"""Names of the streams in ELAN and WebVTT; an audio-visual event is heard and seen at once."""
NEVER_TRAINED = "never trained on"
"""What stands beside a label that the model was never trained on, whatever its score."""


@dataclass(kw_only=True, frozen=True)
class Event:
    """One event: stream, label, onset and offset in seconds, and mean probability.

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
    def stream_name(self) -> str:
        """The name of the stream for a reader."""
        return STREAM_NAMES.get(self.stream, self.stream)

    @property
    def score_text(self) -> str:
        """The score for a reader, never without the word about a label never trained on."""
        return f"{self.score:.2f}" + (f", {NEVER_TRAINED}" if self.never_trained_on else "")
