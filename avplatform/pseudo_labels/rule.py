"""The rule that turns a teacher's logits into segment pseudo-labels.

Source: VALOR (NeurIPS 2023), section 3: a class among the clip's weak labels is active in a segment
if its logit is above the threshold of the class.
"""

from __future__ import annotations

import numpy as np


def pseudo_labels(logits: np.ndarray, weak: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Return the segment labels: 1 for a weak label of the clip whose logit is above its threshold.

    A logit at the threshold is not above it. The comparison is exact: logits of any float type are
    converted to float64.

    Shape: logits [..., T, C], weak [..., C], threshold [C] -> int64 [..., T, C].
    """
    above = np.asarray(logits).astype(np.float64) > threshold
    return (above & (np.asarray(weak)[..., None, :] == 1)).astype(np.int64)


def video_labels(segments: np.ndarray) -> np.ndarray:
    """Return the classes that are active in any segment: [..., T, C] -> [..., C]."""
    return np.asarray(segments).max(axis=-2)
