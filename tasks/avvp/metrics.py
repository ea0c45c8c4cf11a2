"""The metrics of video parsing as the published code computes them, for all clips at once.

Source: HAN (ECCV 2020), section 5.1. The F of each clip is the mean over the classes that occur or
are predicted (1 if there are none); the figure is the mean over clips. Events are runs of ones,
matched at an intersection over union of 0.5.

The T segments of a class are encoded as a T-bit code. For T up to 10, the counts of a pair of
codes (true positives, false positives and misses of segments and of events) are read from a table.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
from torch import Tensor

from avplatform.models.errors import DataError
from avplatform.tasks.batch import Batch
from avplatform.tasks.metrics import Metrics

COLUMNS = (
    "segment_A",
    "segment_V",
    "segment_Event",
    "segment_AV",
    "event_A",
    "event_V",
    "event_Event",
    "event_AV",
)
"""Columns of the per-clip table."""
TABLE_SEGMENTS = 10  # longest clip for the table of counts: 2**20 pairs of codes
BLOCK = 4096  # clips that are scored at a time, which bounds the memory
LEVEL_BITS = 15  # three counts of five bits
LEVEL = 2**LEVEL_BITS - 1
STREAMS = ("audio", "visual")
EVERYTHING = 0.95
"""Share of all segments and classes that are decided, from which on a model says everything."""
PRIORS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Shares of the clips from which on a class is said in a second; the best of them is a rival."""
Maps = tuple[np.ndarray, np.ndarray]
"""The event maps of audio and visual, each bool [N, T, C]."""


class AVVPMetrics(Metrics):
    """Accumulator of decisions and truth by row, which scores all clips at the end.

    `columns` reads the decisions "audio" and "visual" (bool [B, T, C]) and "video" (bool [B, C]),
    and the labels "dense_audio" and "dense_visual" [B, T, C] and "weak" [B, C]. Clips whose events
    have no times lack the dense labels, and are scored by the classes of whole clips.
    """

    def __init__(self, classes: Iterable[str]) -> None:
        super().__init__()
        self.classes = tuple(classes)

    def columns(self, decisions: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Return the decisions and the truth of a batch."""
        columns = {f"predicted_{stream}": decisions[stream].bool() for stream in STREAMS}
        for stream in STREAMS if {f"dense_{s}" for s in STREAMS} & batch.labels.keys() else ():
            if f"dense_{stream}" not in batch.labels:
                raise DataError(
                    f"the split has no 'dense_{stream}' labels, so events cannot be scored; "
                    "score validation or test"
                )
            columns[f"true_{stream}"] = batch.labels[f"dense_{stream}"].bool()
        return columns | {"video": decisions["video"].bool(), "weak": batch.labels["weak"].bool()}

    def compute(self) -> dict[str, float]:
        """Return the ten headline figures in percent; without times, the F of whole videos."""
        return averages(self._table()) if self.timed else {"video_F": self._video_f()}

    def details(self) -> dict[str, Any]:
        """Return scores and counts per class, scores of subsets and of whole videos, and anchors.

        The anchors are the figures of trivial predictions, to compare a model with.
        """
        state = self.scored()
        if not self.timed:
            return {"clips": len(state["weak"]), "anchors": self._whole_anchors(state["weak"])}
        predicted = state["predicted_audio"], state["predicted_visual"]
        true = state["true_audio"], state["true_visual"]
        table = self._table()
        subsets = {}
        for name, chosen in overlap_subsets(*true).items():
            subsets[name] = {
                "overlapping": {"clips": int(chosen.sum()), **averages(table[chosen])},
                "non_overlapping": {"clips": int((~chosen).sum()), **averages(table[~chosen])},
            }
        return {
            "clips": len(table),
            "class_count": self._counts(*true),
            "class_segment": self._per_class(predicted, true, level=0),
            "class_event": self._per_class(predicted, true, level=1),
            "class_event_pooled": self._per_class(predicted, true, level=1, pooled=True),
            "subsets": subsets,
            "video_F": self._video_f(),
            "anchors": self._anchors(state["weak"], *true),
        }

    @property
    def timed(self) -> bool:
        """Whether the clips have events with times."""
        return f"true_{STREAMS[0]}" in self.scored()

    def _video_f(self) -> float:
        """Return the mean F of the classes of whole clips, in percent."""
        state = self.scored()
        return 100 * float(_f(*_segment_counts(state["video"], state["weak"])).mean())

    def _whole_anchors(self, weak: np.ndarray) -> dict[str, dict[str, float]]:
        """Return the F of whole clips for answers that need no model."""
        frequent = np.zeros_like(weak)
        frequent[:, weak.sum(axis=0).argmax()] = True
        answers = {"nothing_predicted": np.zeros_like(weak), "most_frequent_class": frequent}
        return {
            name: {"video_F": 100 * float(_f(*_segment_counts(answer, weak)).mean())}
            for name, answer in answers.items()
        }

    def constant(self) -> str | None:
        """Return "nothing" or "everything" if the decisions say so of all clips, else None."""
        state = self.scored()
        found = float(np.mean([state[f"predicted_{stream}"].mean() for stream in STREAMS]))
        return "nothing" if found == 0 else "everything" if found >= EVERYTHING else None

    def _anchors(
        self, weak: np.ndarray, audio: np.ndarray, visual: np.ndarray
    ) -> dict[str, dict[str, float]]:
        """Return the figures of answers that need no model, made from the labels of the split.

        They are nothing; the true labels of a clip in all its segments; the most frequent class in
        all segments; and in each segment the classes that occur there in a share of the clips.
        """
        everywhere, nothing = np.broadcast_to(weak[:, None, :], audio.shape), np.zeros_like(audio)
        frequent = np.zeros_like(audio)
        frequent[..., (audio.sum(axis=(0, 1)) + visual.sum(axis=(0, 1))).argmax()] = True
        by_second = [
            [np.broadcast_to(true.mean(axis=0) >= share, true.shape) for true in (audio, visual)]
            for share in PRIORS
        ]
        priors = [averages(score(heard, seen, audio, visual)) for heard, seen in by_second]
        return {
            "nothing_predicted": averages(score(nothing, nothing, audio, visual)),
            "video_labels_everywhere": averages(score(everywhere, everywhere, audio, visual)),
            "most_frequent_class": averages(score(frequent, frequent, audio, visual)),
            "class_priors_by_second": max(priors, key=lambda f: f.get("segment_Type@AV", 0.0)),
        }

    def _table(self) -> np.ndarray:
        """Return the scores of each clip, [N, 8] in the order of `COLUMNS`."""
        s = self.scored()
        return score(s["predicted_audio"], s["predicted_visual"], s["true_audio"], s["true_visual"])

    def _counts(self, audio: np.ndarray, visual: np.ndarray) -> dict[str, dict[str, int]]:
        """Return the number of true segments of each class by stream."""
        maps = {"audio": audio, "visual": visual, "av": audio & visual}
        return {
            stream: dict(zip(self.classes, true.sum(axis=(0, 1)).tolist(), strict=True))
            for stream, true in maps.items()
        }

    def _per_class(
        self, predicted: Maps, true: Maps, *, level: int, pooled: bool = False
    ) -> dict[str, dict[str, float | None]]:
        """Return what `classwise` returns by the names of the classes, with None for NaN."""
        rows = classwise(*predicted, *true, level=level, pooled=pooled)
        return {
            stream: {
                name: None if np.isnan(v) else float(v)
                for name, v in zip(self.classes, values, strict=True)
            }
            for stream, values in rows.items()
        }


def score(
    predicted_audio: np.ndarray, predicted_visual: np.ndarray, audio: np.ndarray, visual: np.ndarray
) -> np.ndarray:
    """Return the table of eight scores per clip, in the order of `COLUMNS`.

    Shape: four boolean maps [N, T, C] -> [N, 8], each score in [0, 1].
    """
    maps = [_bool(x) for x in (predicted_audio, predicted_visual, audio, visual)]
    if len(maps[0]) > BLOCK:
        starts = range(0, len(maps[0]), BLOCK)
        return np.concatenate([score(*(x[n : n + BLOCK] for x in maps)) for n in starts])
    if maps[0].shape[1] <= TABLE_SEGMENTS:
        packed = _packed_counts(*maps)
        levels = [packed & LEVEL, packed >> LEVEL_BITS]  # each int32 (4, C, N)
        scores = [_clip_mean(_level_f().take(level), level > 0) for level in levels]
    else:
        counts = _all_counts(*maps)
        scores = []
        for level in (0, 1):
            a, v, av = (counts[stream][level] for stream in ("audio", "visual", "av"))
            f, active = class_f(np.stack([a, v, a + v, av], axis=1))  # (4, N, C)
            scores.append(_clip_mean(f.transpose(0, 2, 1).copy(), active.transpose(0, 2, 1)))
    return np.concatenate(scores).T


def averages(table: np.ndarray) -> dict[str, float]:
    """Return the ten figures, in percent, of a table of scores per clip [N, 8]."""
    if len(table) == 0:
        return {}
    return figures(dict(zip(COLUMNS, (100 * table.mean(axis=0)).tolist(), strict=True)))


def figures(columns: dict[str, Any]) -> dict[str, Any]:
    """Return the ten figures of the eight scores in `COLUMNS`, which are numbers or arrays.

    Type@AV is the mean of A, V and AV; Event@AV is the score over both modalities together.
    """
    out: dict[str, Any] = {}
    for level in ("segment", "event"):
        a, v, av = (columns[f"{level}_{stream}"] for stream in ("A", "V", "AV"))
        out |= {f"{level}_A": a, f"{level}_V": v, f"{level}_AV": av}
        out[f"{level}_Type@AV"] = (a + v + av) / 3
        out[f"{level}_Event@AV"] = columns[f"{level}_Event"]
    return out


FIGURES = tuple(figures(dict.fromkeys(COLUMNS, 0.0)))
"""The names of the ten figures."""


def classwise(
    predicted_audio: np.ndarray,
    predicted_visual: np.ndarray,
    audio: np.ndarray,
    visual: np.ndarray,
    *,
    level: int = 0,
    pooled: bool = False,
) -> dict[str, np.ndarray]:
    """Return the mean F per class, in percent, over the clips where it occurs or is predicted.

    A class that neither occurs nor is predicted in any clip is NaN. `pooled` instead adds the
    counts of all clips and computes one F. No code is published for the per-class event scores of
    LEAP (ECCV 2024), Fig. 3, so both ways are offered.

    Shape: four boolean maps [N, T, C] -> streams audio, visual, event (both pooled) and av, each
    [C]. `level` 0: segments, 1: events.
    """
    counts = class_counts(predicted_audio, predicted_visual, audio, visual, level=level)
    out = {}
    for name, c in counts.items():
        f, active = class_f(c)
        if pooled:
            out[name] = np.where(active.any(axis=0), 100 * _f(*c.sum(axis=1)), np.nan)
            continue
        total = f.sum(axis=0)
        with np.errstate(invalid="ignore"):
            out[name] = 100 * total / np.where(active.any(axis=0), active.sum(axis=0), np.nan)
    return out


def class_counts(
    predicted_audio: np.ndarray,
    predicted_visual: np.ndarray,
    audio: np.ndarray,
    visual: np.ndarray,
    *,
    level: int = 0,
) -> dict[str, np.ndarray]:
    """Return true positives, false positives and misses of each clip and class.

    Shape: four boolean maps [N, T, C] -> streams as in `classwise`, each [3, N, C].
    """
    counts = _all_counts(predicted_audio, predicted_visual, audio, visual)
    a, v, av = (counts[stream][level] for stream in ("audio", "visual", "av"))
    return {"audio": a, "visual": v, "event": a + v, "av": av}


def class_f(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the F of each clip and class, and whether the class occurs or is predicted.

    F is 0 where the class neither occurs nor is predicted.

    Shape: counts [3, ...] -> two arrays [...]; usually [N, C].
    """
    active = counts.sum(axis=0) > 0
    return np.where(active, _f(*counts), 0.0), active


def overlap_subsets(audio: np.ndarray, visual: np.ndarray) -> dict[str, np.ndarray]:
    """Return which clips have a segment with two or more events, for four meanings of this.

    Source: LEAP (ECCV 2024), Table 3, whose text leaves the meaning open: events in the union of
    both modalities (our default), within either one, in audio alone, in visual alone.

    Shape: two boolean maps [N, T, C] -> name: bool [N].
    """

    def crowded(maps: np.ndarray) -> np.ndarray:
        return (maps.astype(bool).sum(axis=2) >= 2).any(axis=1)

    a, v, union = crowded(audio), crowded(visual), crowded(np.logical_or(audio, visual))
    return {"union": union, "either_modality": a | v, "audio": a, "visual": v}


def _all_counts(
    pa: np.ndarray, pv: np.ndarray, ta: np.ndarray, tv: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return {stream: (segment counts, event counts)}, each [3, N, C] as in `class_counts`."""
    pa, pv, ta, tv = (_bool(x) for x in (pa, pv, ta, tv))
    if pa.shape[1] > TABLE_SEGMENTS:
        pairs = {"audio": (pa, ta), "visual": (pv, tv), "av": (pa & pv, ta & tv)}
        return {name: (_segment_counts(p, t), event_counts(p, t)) for name, (p, t) in pairs.items()}
    packed = np.ascontiguousarray(_packed_counts(pa, pv, ta, tv).transpose(0, 2, 1))  # (4, N, C)
    fields = np.stack([(packed >> shift) & 31 for shift in range(0, 30, 5)])
    streams = {"audio": 0, "visual": 1, "av": 3}
    return {name: (fields[:3, place], fields[3:, place]) for name, place in streams.items()}


def _packed_counts(pa: np.ndarray, pv: np.ndarray, ta: np.ndarray, tv: np.ndarray) -> np.ndarray:
    """Return the six counts of audio, visual, both added, and av, five bits each: int32 [4, C, N].

    Two counts of at most `TABLE_SEGMENTS` add up to less than 32.
    """
    segments = pa.shape[1]
    table = _count_table(segments).reshape(-1)
    a, v, true_a, true_v = (_codes(maps) for maps in (pa, pv, ta, tv))
    packed = np.empty((4, *a.shape), dtype=np.int32)
    pairs = {0: (a, true_a), 1: (v, true_v), 3: (a & v, true_a & true_v)}
    for place, (p, t) in pairs.items():
        packed[place] = table.take((p.astype(np.intp) << segments) | t)
    np.add(packed[0], packed[1], out=packed[2])
    return packed


def _bool(maps: np.ndarray) -> np.ndarray:
    return np.asarray(maps).astype(bool, copy=False)


def _codes(maps: np.ndarray) -> np.ndarray:
    """Encode T segments as one integer: bool [N, T, C] -> uint16 [C, N]."""
    ones = maps.view(np.uint8)
    code = ones[:, 0].astype(np.uint16)  # (N, C)
    for t in range(1, maps.shape[1]):
        code |= np.left_shift(ones[:, t], t, dtype=np.uint16)
    return np.ascontiguousarray(code.T)


@cache
def _level_f() -> np.ndarray:
    """Return the F of every three counts of five bits, 0 for three zeros: float64 [2**15]."""
    counts = np.arange(LEVEL + 1)
    return class_f(np.stack([(counts >> shift) & 31 for shift in (0, 5, 10)]))[0]


@cache
def _count_table(segments: int) -> np.ndarray:
    """Return the six counts of every pair of codes, five bits each, as int32 [2**T, 2**T]."""
    codes = np.arange(2**segments)
    maps = ((codes >> np.arange(segments)[:, None]) & 1).astype(bool)  # (T, 2**T)
    table = np.zeros((len(codes), len(codes)), dtype=np.int32)
    rows = max(1, 2**13 // len(codes))
    for start in range(0, len(codes), rows):
        # The pairs are the classes of one clip, which is faster than clips of one class.
        p = np.repeat(maps[:, start : start + rows], len(codes), axis=1)[None]
        t = np.tile(maps, min(rows, len(codes) - start))[None]
        counts = np.concatenate([_segment_counts(p, t), event_counts(p, t)])[:, 0]
        packed = sum(counts[i].astype(np.int32) << (5 * i) for i in range(6))
        table[start : start + rows] = np.asarray(packed).reshape(-1, len(codes))
    return table


def _segment_counts(p: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Count over the second axis: two maps [N, T, C] -> [3, N, C], or [N, C] -> [3, N]."""
    return np.stack([(p & t).sum(axis=1), (p & ~t).sum(axis=1), (~p & t).sum(axis=1)])


def event_counts(p: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Count runs of ones, matched at IoU >= 0.5: two maps [N, T, C] -> [3, N, C].

    At that threshold each run matches at most one other, so greedy, optimal and many-to-one
    matching agree. A pair of runs is visited at the last segment of its intersection.
    """
    n, segments, c = p.shape
    start_p, start_t = _run_starts(p), _run_starts(t)
    length_p, length_t = _run_lengths(p), _run_lengths(t)
    hits = np.zeros((n, c), dtype=np.int64)
    for s in range(segments):
        both = p[:, s] & t[:, s]
        last = both if s == segments - 1 else both & ~(p[:, s + 1] & t[:, s + 1])
        shared = s + 1 - np.maximum(start_p[:, s], start_t[:, s])
        union = length_p[:, s] + length_t[:, s] - shared
        hits += last & (2 * shared >= union)
    runs_p, runs_t = _run_count(p), _run_count(t)
    return np.stack([hits, runs_p - hits, runs_t - hits])


def _run_starts(x: np.ndarray) -> np.ndarray:
    """Return the first segment of the run that each segment belongs to."""
    starts = np.zeros(x.shape, dtype=np.int64)
    for s in range(x.shape[1]):
        starts[:, s] = s if s == 0 else np.where(x[:, s - 1], starts[:, s - 1], s)
    return starts


def _run_lengths(x: np.ndarray) -> np.ndarray:
    """Return the length of the run that each segment belongs to."""
    starts, ends = _run_starts(x), np.zeros(x.shape, dtype=np.int64)
    for s in range(x.shape[1] - 1, -1, -1):
        ends[:, s] = s + 1 if s == x.shape[1] - 1 else np.where(x[:, s + 1], ends[:, s + 1], s + 1)
    return ends - starts


def _run_count(x: np.ndarray) -> np.ndarray:
    """Return the number of runs of ones: [N, T, C] -> [N, C]."""
    return x[:, 0].astype(np.int64) + (x[:, 1:] & ~x[:, :-1]).sum(axis=1)


def _f(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    """Return F = 2TP / (2TP + FP + FN); 1 where nothing occurs and nothing is predicted."""
    denominator = 2 * tp + fp + fn
    return np.where(denominator > 0, 2 * tp / np.maximum(denominator, 1), 1.0)


def _clip_mean(f: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Return the mean F over the active classes, or 1: two arrays [S, C, N] -> [S, N].

    The classes come before the clips so that they are added one after the other, as a loop does.
    """
    number = active.sum(axis=1)
    return np.where(number > 0, f.sum(axis=1) / np.maximum(number, 1), 1.0)
