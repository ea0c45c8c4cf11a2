"""Calibration of scores: is a score of 0.7 right seven times in ten, and does rescaling help?

Source: Guo et al., On Calibration of Modern Neural Networks (ICML 2017), for the expected
calibration error; Platt (1999) for the rescaling.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from avplatform.models.errors import DataError

BINS = 15
SMALLEST = 2.0**-14  # probabilities are clipped to this distance from 0 and 1 before the logit


def calibration(
    fit_on: dict[str, tuple[np.ndarray, np.ndarray]],
    judged: dict[str, tuple[np.ndarray, np.ndarray]],
) -> dict[str, dict[str, Any]]:
    """Return, per stream, the reliability of scores before and after rescaling.

    Args:
        fit_on: per stream, the scores of the validation split and whether they came true; the
            rescaling is learnt on them.
        judged: the same of the split that is reported.
    """
    out = {}
    for stream, (scores, true) in judged.items():
        scale, offset = fit_platt(*fit_on[stream])
        out[stream] = {
            "before": reliability(scores, true),
            "after": reliability(rescale(scores, scale, offset), true),
            "rescaling": {"scale": scale, "offset": offset, "learnt_on": "validation"},
        }
    return out


def reliability(scores: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """Return the expected calibration error and the Brier score in percent, and the curve.

    The error is the mean, over all scores, of the distance between the mean score of the score's
    bin and the share of that bin's scores that came true. Bins are equally wide. "bins" lists the
    bins that hold scores, each with low, high, count, score and share.

    Shape: `scores` and `true` are [K].

    Raises:
        DataError: there is no score.
    """
    scores, true = (np.asarray(values, dtype=float).reshape(-1) for values in (scores, true))
    if not scores.size:
        raise DataError("there is no score to calibrate; the split is empty")
    at = np.minimum((scores * BINS).astype(int), BINS - 1)
    count, score, share = (
        np.bincount(at, weights=w, minlength=BINS) for w in (np.ones_like(scores), scores, true)
    )
    held = np.flatnonzero(count)
    curve = [
        {
            "low": b / BINS,
            "high": (b + 1) / BINS,
            "count": int(count[b]),
            "score": score[b] / count[b],
            "share": share[b] / count[b],
        }
        for b in held
    ]
    return {
        "error": 100 * float(np.abs(score - share).sum() / scores.size),
        "brier": 100 * float(((scores - true) ** 2).mean()),
        "count": int(scores.size),
        "bins": curve,
    }


def fit_platt(scores: np.ndarray, true: np.ndarray, *, steps: int = 50) -> tuple[float, float]:
    """Return the scale and offset of the logits with the highest likelihood, by Newton's method.

    If all scores or none came true, or all are equal, there is nothing to learn: (1, 0).
    """
    x, y = _logit(np.asarray(scores, dtype=float)), np.asarray(true, dtype=float)
    if not 0 < y.mean() < 1 or np.ptp(x) < 1e-9:
        return 1.0, 0.0
    design = np.stack([x, np.ones_like(x)], axis=1)
    w, loss = np.array([1.0, 0.0]), _loss(np.array([1.0, 0.0]), design, y)
    for _ in range(steps):
        p = 1 / (1 + np.exp(-(design @ w)))
        gradient = design.T @ (p - y) / len(y) + 1e-6 * (w - [1, 0])
        hessian = (design * (p * (1 - p))[:, None]).T @ design / len(y) + 1e-6 * np.eye(2)
        step, size = np.linalg.solve(hessian, gradient), 1.0
        while (new := _loss(w - size * step, design, y)) > loss and size > 1e-6:
            size /= 2
        if loss - new < 1e-12:
            break
        w, loss = w - size * step, new
    return float(w[0]), float(w[1])


def rescale(scores: np.ndarray, scale: float, offset: float) -> np.ndarray:
    """Return scores with their logits scaled and shifted."""
    return 1 / (1 + np.exp(-(scale * _logit(scores) + offset)))


def _loss(w: np.ndarray, design: np.ndarray, y: np.ndarray) -> float:
    z = design @ w
    return float((np.logaddexp(0, z) - y * z).mean() + 0.5e-6 * ((w - [1, 0]) ** 2).sum())


def _logit(scores: np.ndarray) -> np.ndarray:
    p = np.clip(scores, SMALLEST, 1 - SMALLEST)
    return np.log(p / (1 - p))
