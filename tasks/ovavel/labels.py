"""The rules by which the labels of a clip agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from avplatform.tasks.avel import labels as avel
from avplatform.tasks.contracts import Odd, named_classes


def odd_labels(classes: Sequence[str], labels: Mapping[str, np.ndarray]) -> Iterator[Odd]:
    """Yield the clips whose labels disagree: segments, clip, and what it was collected for."""
    yield from avel.odd_labels(classes, labels)
    if not {"video", "category"} <= set(labels):
        return
    video, category, background = labels["video"], labels["category"], len(classes) - 1
    for i in np.flatnonzero(category == background):
        yield "error", "clip that was collected for background", int(i), "its category is no event"
    for i in np.flatnonzero((video != background) & (video != category)):
        text = (
            f"the video label is {named_classes(classes, video[i : i + 1])}, but the clip was "
            f"collected for {named_classes(classes, category[i : i + 1])}"
        )
        yield "error", "video label contradicts the category", int(i), text
