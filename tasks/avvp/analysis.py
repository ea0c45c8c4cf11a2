"""Figures per clip and per class, for intervals, comparisons, calibration and thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np

from avplatform.tasks.avvp.metrics import COLUMNS, STREAMS, class_counts, class_f, figures, score
from avplatform.tasks.batch import later
from avplatform.tasks.metrics import Analysis, Arrays

LEVELS = ("segment", "event")


class AVVPAnalysis(Analysis):
    """Terms of `AVVPMetrics` per clip and per class.

    Thresholds apply to the probabilities of segments; each stream and class has its own.

    Args:
        classes: the names of the C classes.
        defaults: the thresholds at which the task decides the segments of each stream.
    """

    streams = STREAMS

    def __init__(self, classes: tuple[str, ...], *, defaults: dict[str, float]) -> None:
        self.classes, self.defaults = classes, defaults

    def default_of(self, stream: str) -> float:
        """Return the threshold at which the task decides the segments of a stream."""
        return self.defaults[stream]

    def contributions(self, state: Arrays) -> Arrays:
        """Return the ten figures of each clip."""
        table = 100 * score(*_maps(state))
        return figures({name: table[:, column] for column, name in enumerate(COLUMNS)})

    def class_terms(self, state: Arrays) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
        """Return the F of each clip and class, and where it counts, for segments and events."""
        return {
            name: {
                stream: class_f(counts)
                for stream, counts in class_counts(*_maps(state), level=level).items()
            }
            for level, name in enumerate(LEVELS)
        }

    def judged(self, state: Arrays, evidence: Arrays) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return all ungated probabilities of segments and classes, and where the event is true."""
        return {
            s: (np.float64(evidence[s]).reshape(-1), state[f"true_{s}"].reshape(-1))
            for s in STREAMS
        }

    def objective(self, state: Arrays, evidence: Arrays, grid: np.ndarray) -> Arrays:
        """Return the F over all segments of a class; NaN for a class that occurs in no clip."""
        out = {}
        for stream in STREAMS:
            true = state[f"true_{stream}"]
            found = np.where(evidence[f"gate_{stream}"][:, None, :], evidence[stream], -1.0)
            values = np.empty((len(grid), true.shape[2]))
            for at, threshold in enumerate(grid):
                predicted = found >= threshold
                both = (predicted & true).sum(axis=(0, 1))
                total = predicted.sum(axis=(0, 1)) + true.sum(axis=(0, 1))
                values[at] = 2 * both / np.maximum(total, 1)
            out[stream] = np.where(true.any(axis=(0, 1)), values, np.nan)
        return out

    def redecide(self, state: Arrays, evidence: Arrays, thresholds: Arrays) -> Arrays:
        """Decide the segments by other thresholds; the video decisions that gate them stay."""
        maps = {
            s: (evidence[s] >= thresholds[s]) & evidence[f"gate_{s}"][:, None, :] for s in STREAMS
        }
        return state | {f"predicted_{s}": found for s, found in maps.items()}

    def late(self, state: Arrays, segments: int) -> Arrays:
        """Shift truth and decisions of the audio stream; the visual stream stays."""
        return state | {
            name: later(state[name], segments) for name in ("predicted_audio", "true_audio")
        }

    def presence(self, state: Arrays) -> dict[str, Any]:
        """Return the scores of (clip, class) pairs that are only audible, only visible, or both.

        A pair is audible if the class is heard at any time of the clip. Each group has the number
        of pairs; the mean F of segments and events in the streams where the class is present; and
        the share of pairs for which it is decided in the stream where it is absent
        ("wrongly_heard", "wrongly_seen"), all in percent.
        """
        heard, seen = (np.asarray(state[f"true_{s}"].any(axis=1)) for s in STREAMS)  # (N, C)
        decided = {s: np.asarray(state[f"predicted_{s}"].any(axis=1)) for s in STREAMS}
        terms = self.class_terms(state)
        out: dict[str, Any] = {}
        groups = {
            "audible_only": heard & ~seen,
            "visible_only": seen & ~heard,
            "audible_and_visible": heard & seen,
        }
        for name, pairs in groups.items():
            streams = {"audible_only": ("audio",), "visible_only": ("visual",)}.get(name, STREAMS)
            out[name] = {"pairs": int(pairs.sum())}
            for level in LEVELS:
                for stream in streams:
                    out[name][f"{level}_{stream}"] = _percent(terms[level][stream][0][pairs])
            for stream, word in zip(STREAMS, ("heard", "seen"), strict=True):
                if stream not in streams:
                    out[name][f"wrongly_{word}"] = _percent(decided[stream][pairs])
        return out


def _maps(state: Arrays) -> tuple[np.ndarray, ...]:
    return tuple(state[f"{kind}_{stream}"] for kind in ("predicted", "true") for stream in STREAMS)


def _percent(values: np.ndarray) -> float | None:
    return 100 * float(values.mean()) if values.size else None
