"""The rule that makes segment pseudo-labels of a teacher's logits.

Source: VALOR (NeurIPS 2023), section 3: within the clip's weak labels, a class is on where its logit is above the class's
threshold.
"""

from __future__ import annotations

import numpy as np


def pseudo_labels(logits: np.ndarray, weak: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Return segment labels: 1 where the clip's weak labels hold the class and its logit is above (never at) its threshold.

    The comparison is exact: logits of any float type are widened to float64.

    Shape: logits [..., T, C], weak [..., C], threshold [C] -> int64 [..., T, C].
    """
    above = np.asarray(logits).astype(np.float64) > threshold
    return (above & (np.asarray(weak)[..., None, :] == 1)).astype(np.int64)


def video_labels(segments: np.ndarray) -> np.ndarray:
    """Return the classes that are on in any segment: [..., T, C] -> [..., C]."""
    return np.asarray(segments).max(axis=-2)
