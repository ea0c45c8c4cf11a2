"""The labels of clips: from listed events, and the rules by which they agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from avplatform.tasks.avel.config import BACKGROUND
from avplatform.tasks.contracts import Odd, named_classes
from avplatform.tasks.events import FromEvents
from avplatform.tasks.metrics import Arrays


def labels_of_events(heard: np.ndarray, seen: np.ndarray) -> Arrays:
    """Return the class that is both heard and seen in each segment, or background.

    Of two events that share a segment, the one that covers more of it is taken, and of equal ones
    the one that began in an earlier segment. The label of the video is the class that covers most.

    Shape: [N, T, C] -> segment int64 [N, T]; video int64 [N].
    """
    both = np.minimum(heard, seen)  # (N, T, C)
    clips, segments, background = both.shape
    padded = np.concatenate([both, np.zeros((clips, segments, 1), both.dtype)], axis=2)
    segment = np.full((clips, segments), background)
    before = np.full(clips, background)
    for t in range(segments):
        best, share = both[:, t].argmax(axis=1), both[:, t].max(axis=1)
        kept = padded[np.arange(clips), t, before] == share
        before = segment[:, t] = np.where(share == 0, background, np.where(kept, before, best))
    whole = both.sum(axis=1)  # (N, C)
    video = np.where(whole.any(axis=1), whole.argmax(axis=1), background)
    return {"segment": segment.astype(np.int64), "video": video.astype(np.int64)}


FROM_EVENTS = FromEvents(
    labels={"segment": "timed", "video": "always"},
    make=labels_of_events,
    classes=lambda events: [*events, BACKGROUND],
    one_at_a_time=True,
)


def odd_labels(classes: Sequence[str], labels: Mapping[str, np.ndarray]) -> Iterator[Odd]:
    """Yield the clips whose video label is of none of their segments, or of some only."""
    if not {"segment", "video"} <= set(labels):
        return
    segment, video = labels["segment"], labels["video"]
    background = len(classes) - 1 if classes[-1] == BACKGROUND else len(classes)
    event = segment != background
    for i in np.flatnonzero((event & (segment != video[:, None])).any(axis=1)):
        found = named_classes(classes, np.unique(segment[i][event[i]]))
        text = f"segments say {found}, the video label {named_classes(classes, video[i : i + 1])}"
        if video[i] in segment[i]:  # of the clips of AVE, each has one class
            yield "warning", "clip with several classes", int(i), text
        else:
            yield "error", "segments contradict the video label", int(i), text
    for i in np.flatnonzero(~event.any(axis=1) & (video != background)):
        text = (
            f"the video label is {named_classes(classes, video[i : i + 1])}, and no segment has it"
        )
        yield "warning", "event of no length", int(i), text
