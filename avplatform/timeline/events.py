"""Events and the timeline that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from avplatform.tasks.spans import runs

STREAM_NAMES = {"audio": "audio", "visual": "visual", "av": "audio-visual"}
"""Names of the streams for a reader; an audio-visual event is heard and seen at the same time."""


@dataclass(kw_only=True, frozen=True)
class Event:
    """One event: stream, label, onset and offset in seconds, and mean probability."""

    stream: str
    label: str
    onset: float
    offset: float
    score: float

    @property
    def stream_name(self) -> str:
        """The name of the stream for a reader."""
        return STREAM_NAMES.get(self.stream, self.stream)


@dataclass(kw_only=True)
class Timeline:
    """What a model found in one video.

    Shape: scores and found are [N, C] per stream, for N segments and C labels; attention is [C, N]
    per stream, and sums to 1 over time.
    """

    video: str
    """the file, as it was given"""
    duration: float
    """seconds"""
    model: str
    task: str
    decoder: str
    encoder: str = ""
    labels: list[str]
    open_labels: bool = False
    """whether the user gave the labels, so that they are not those of the model's training"""
    events: list[Event] = field(default_factory=list)
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    found: dict[str, np.ndarray] = field(default_factory=dict)
    attention: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """sentences that a reader must know, such as that the file lacks a stream"""
    about: dict[str, Any] = field(default_factory=dict)
    """properties of the file: frame rate, size, streams"""
    segment_seconds: float = 1.0

    @property
    def streams(self) -> list[str]:
        """The streams that were parsed, in the order audio, visual, audio-visual."""
        return [stream for stream in STREAM_NAMES if stream in self.found]

    @property
    def cell(self) -> str:
        """The encoder, decoder and task for a reader."""
        encoder = f"{self.encoder} + " if self.encoder else ""
        return f"{encoder}{self.decoder} on {self.task}"

    def shown_labels(self) -> list[str]:
        """Return the labels that occur in an event, in class order."""
        present = {event.label for event in self.events}
        return [label for label in self.labels if label in present]


def events_of(
    found: dict[str, np.ndarray],
    scores: dict[str, np.ndarray],
    labels: Sequence[str],
    *,
    duration: float,
    segment_seconds: float = 1.0,
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
                    Event(stream=stream, label=label, onset=onset, offset=offset, score=score)
                )
    order = list(STREAM_NAMES)
    return sorted(events, key=lambda e: (e.onset, order.index(e.stream), labels.index(e.label)))
