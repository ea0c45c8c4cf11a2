"""The labels of clips: from listed events, and the rules by which they agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from avplatform.tasks.contracts import Odd, named_classes
from avplatform.tasks.events import FromEvents
from avplatform.tasks.metrics import Arrays


def labels_of_events(heard: np.ndarray, seen: np.ndarray) -> Arrays:
    """Return weak and dense labels of listed events, and the dense ones again for training.

    Supervision by segments reads the names of the pseudo-labels; here no teacher made them.

    Shape: [N, T, C] -> weak [N, C], the others [N, T, C], uint8.
    """
    audio, visual = ((share > 0).astype(np.uint8) for share in (heard, seen))
    return {
        "weak": np.maximum(audio, visual).max(axis=1),
        "dense_audio": audio,
        "dense_visual": visual,
        "pseudo_audio": audio,
        "pseudo_visual": visual,
    }


FROM_EVENTS = FromEvents(
    labels={
        "weak": "always",
        "dense_audio": "timed",
        "dense_visual": "timed",
        "pseudo_audio": "training",
        "pseudo_visual": "training",
    },
    make=labels_of_events,
)


def odd_labels(classes: Sequence[str], labels: Mapping[str, np.ndarray]) -> Iterator[Odd]:
    """Yield the clips whose segment labels do not lie inside the weak label.

    This happens in real data too, so each one is a warning and not an error.
    """
    if "weak" not in labels:
        return
    weak = labels["weak"].astype(bool)
    for i in np.flatnonzero(~weak.any(axis=1)):
        yield "warning", "clip without a class", int(i), "its weak label is empty"
    for name in ("pseudo_audio", "pseudo_visual"):
        if name in labels:
            outside = np.asarray(labels[name].any(axis=1)) & ~weak  # [N, C]
            for i in np.flatnonzero(outside.any(axis=1)):
                text = f"{name} has {named_classes(classes, np.flatnonzero(outside[i]))}"
                yield "warning", "pseudo-label outside the weak label", int(i), text
    dense = [labels[name] for name in ("dense_audio", "dense_visual") if name in labels]
    if len(dense) == 2:
        union = np.asarray(np.concatenate(dense, axis=1).any(axis=1))  # [N, C]
        for i in np.flatnonzero((union != weak).any(axis=1)):
            parts = [("only dense", union[i] > weak[i]), ("only weak", weak[i] > union[i])]
            text = "; ".join(
                f"{what}: {named_classes(classes, np.flatnonzero(part))}"
                for what, part in parts
                if part.any()
            )
            yield "warning", "weak label is not the union of the dense labels", int(i), text
