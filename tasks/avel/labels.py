"""Consistency rules for the labels of a clip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from avplatform.tasks.avel.config import BACKGROUND
from avplatform.tasks.contracts import Odd, named_classes


def odd_labels(classes: Sequence[str], labels: Mapping[str, np.ndarray]) -> Iterator[Odd]:
    """Yield the clips whose segments are neither of the video's class nor background."""
    if not {"segment", "video"} <= set(labels):
        return
    segment, video = labels["segment"], labels["video"]
    background = len(classes) - 1 if classes[-1] == BACKGROUND else len(classes)
    event = segment != background
    for i in np.flatnonzero((event & (segment != video[:, None])).any(axis=1)):
        found = named_classes(classes, np.unique(segment[i][event[i]]))
        text = f"segments say {found}, the video label {named_classes(classes, video[i : i + 1])}"
        yield "error", "segments contradict the video label", int(i), text
    for i in np.flatnonzero(~event.any(axis=1) & (video != background)):
        text = (
            f"the video label is {named_classes(classes, video[i : i + 1])}, and no segment has it"
        )
        yield "warning", "event of no length", int(i), text
