"""Events and the timeline that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from avplatform.tasks.spans import runs

STREAM_NAMES = {"audio": "audio", "visual": "visual", "av": "audio-visual"}
"""Streams as a reader meets them; "audio-visual" is what is heard and seen at the same time."""


@dataclass(kw_only=True, frozen=True)
class Event:
    """One event: which stream, what, from when to when in seconds, and its mean probability."""

    stream: str
    label: str
    onset: float
    offset: float
    score: float

    @property
    def stream_name(self) -> str:
        """The stream in words."""
        return STREAM_NAMES.get(self.stream, self.stream)


@dataclass(kw_only=True)
class Timeline:
    """What a model found in one video.

    Shape: scores and found, by stream, are [N, C] for N segments and C labels; attention, by stream, is [C, N] and adds up to
    1 in time.
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
    """whether the labels are others than those that the model was trained on"""
    events: list[Event] = field(default_factory=list)
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    found: dict[str, np.ndarray] = field(default_factory=dict)
    attention: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """what a reader must know, such as a stream that the file lacks"""
    about: dict[str, Any] = field(default_factory=dict)
    """of the file: frame rate, size, streams"""
    segment_seconds: float = 1.0

    @property
    def streams(self) -> list[str]:
        """Streams that were parsed, in the order audio, visual, audio-visual."""
        return [stream for stream in STREAM_NAMES if stream in self.found]

    @property
    def cell(self) -> str:
        """Encoder, decoder and task in words."""
        return (
            f"{self.encoder} + {self.decoder} on {self.task}"
            if self.encoder
            else f"{self.decoder} on {self.task}"
        )

    def shown_labels(self) -> list[str]:
        """Labels that occur in an event, in class order."""
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
    """Return the runs of found segments as events, ordered by onset, stream and class.

    An event's score is the mean of its segments' probabilities; the last segment ends where the video does.

    Shape: found bool [N, C] and scores [N, C] by stream.
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
