"""The label files of the published code: rebuilt from Annotations.txt, and compared with it.

The files: labels.h5 (segments), labels_closs.h5 (which segments have the event), mil_labels.h5
(video classes), labels_noisy.h5 (background clips), and PSP's right_labels.h5 and prob_label.h5,
for which no code is published.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from avplatform.data.adapters.ave.classes import BACKGROUND, CLASSES
from avplatform.data.adapters.ave.h5 import read_h5
from avplatform.data.adapters.official_files import Defect
from avplatform.models.errors import DataError, counted

DISAGREES = "label file disagrees with Annotations.txt"
UNREADABLE = "label file that could not be compared"
NOTE = "note on a label file whose making is not published"
TOLERANCE = 1e-4
EXAMPLES = 10


def segment_onehot(segment: np.ndarray) -> np.ndarray:
    """Return labels.h5: the one-hot label of every segment.

    Shape: [N, T] -> [N, T, 29].
    """
    return np.eye(len(CLASSES), dtype=np.float32)[segment]


def mil_labels(class_index: np.ndarray) -> np.ndarray:
    """Return mil_labels.h5: the one-hot class of each clip, even if its event has no length.

    Shape: [N] -> [N, 29].
    """
    return np.eye(len(CLASSES), dtype=np.float32)[class_index]


def event_mask(segment: np.ndarray) -> np.ndarray:
    """Return labels_closs.h5: 1 for segments that have the event, else 0.

    Shape: [N, T] -> [N, T].
    """
    return (segment != BACKGROUND).astype(np.float32)


def noisy_labels(count: int) -> np.ndarray:
    """Return labels_noisy.h5: the one-hot label of background for every clip.

    Shape: [count, 29].
    """
    return mil_labels(np.full(count, BACKGROUND))


def proportions(segment: np.ndarray) -> np.ndarray:
    """Return each label's share of the segments, which is how we understand prob_label.h5.

    Shape: [N, T] -> [N, 29].
    """
    return segment_onehot(segment).mean(axis=1)


def compare_labels(
    place: Callable[[str], Path], class_index: np.ndarray, segment: np.ndarray
) -> list[Defect]:
    """Return how the label files that exist differ from Annotations.txt.

    Args:
        place: returns the path of the label file of a given name, which need not exist.
        class_index: class of each clip, [N].
        segment: label of each segment, [N, T].
    """
    built = {
        "mil_labels.h5": mil_labels(class_index),
        "labels_closs.h5": event_mask(segment),
        "labels.h5": segment_onehot(segment),
        "right_labels.h5": segment_onehot(segment),
        "right_label.h5": segment_onehot(segment),
        "prob_label.h5": proportions(segment),
    }
    defects = []
    for name, expected in built.items():
        if not (file := place(name)).is_file():
            continue
        try:
            found = read_h5(file, shape=expected.shape)
        except DataError as error:
            defects.append(Defect(UNREADABLE, name, 0, str(error)))
            continue
        close = np.abs(found.astype(np.float32) - expected) <= TOLERANCE  # a NaN is never close
        rows = np.flatnonzero(~close.reshape(len(close), -1).all(axis=1))
        if name.startswith(("right", "prob")):
            text = f"{len(rows)} of {counted(len(expected), 'row')} differ from ours"
            text += f": {', '.join(map(str, rows[:EXAMPLES]))}" if len(rows) else ""
            text += ", ..." if len(rows) > EXAMPLES else ""
            defects.append(Defect(NOTE, name, 0, text))
        else:
            defects += [Defect(DISAGREES, name, int(row), f"row {row}") for row in rows]
    return defects
