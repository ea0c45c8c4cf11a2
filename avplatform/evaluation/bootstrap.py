"""Bootstrap over clips: intervals of figures, and paired tests of two models on the same clips.

Clips of one video are not independent of each other, so a resample draws whole videos: every clip
of a video as often as the video. Where every clip is a video of its own, it draws clips.

All headline figures are means over clips, and the score of a class is a ratio of two sums over
clips. So a resample is a vector of counts, all resamples are one matrix product, and nothing is
scored again.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 (percentile
interval) and 16; Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8
(hierarchical data).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from avplatform.data.adapters.table.features import source_video
from avplatform.data.reading.arrays import SplitArrays
from avplatform.models.errors import DataError, UsageError
from avplatform.tasks.metrics import Arrays

LEVEL = 0.95
"""Share of resamples inside an interval."""
ENDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
FEWEST = 40  # resamples: with fewer, not even one lies beyond each end of a 95 % interval
MOST = 20_000  # resamples: more would not change a printed figure
CHUNK = 250  # resamples at a time: 250 of 10,000 clips take 20 MB


def videos_of(split: SplitArrays) -> np.ndarray | None:
    """Return the number of each clip's video, in the order of `Metrics.state` (by row): [N].

    None where every clip is a video of its own.
    """
    order = np.argsort(split.rows, kind="stable")
    names = [source_video(split.clip_ids[i]) for i in order.tolist()]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    if len(numbers) == len(names):
        return None
    return np.array([numbers[name] for name in names], dtype=np.int64)


def confidence(
    contributions: Arrays,
    *,
    videos: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Return, per figure, its percentile interval and standard error over resampled clips.

    Args:
        contributions: per figure, the contribution of each clip, [N]; the figure is their mean.
        videos: the number of each clip's video, [N]; None: each clip is a video of its own.
        resamples: number of resamples; with 1,000 an end of the interval is accurate to about a
            tenth of the interval's width.
        seed: seed of the resamples; the same clips are drawn for every figure.
    """
    names, table = _table(contributions)
    counts = _counts(len(table), resamples, np.random.default_rng(seed), videos)
    means = np.concatenate([shares @ table for shares in counts])
    low, high = _ends(means)
    return {
        name: {
            "value": float(table[:, i].mean()),
            "low": low[i],
            "high": high[i],
            "error": float(means[:, i].std(ddof=1)),
        }
        for i, name in enumerate(names)
    }


def intervals(
    contributions: Arrays, split: SplitArrays, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Return the intervals of a split's figures, and how they were made, for results.json.

    Args:
        contributions: per figure, the contribution of each clip of the split; see `confidence`.
        split: the split, which tells the clips of one video.
        resamples: number of resamples.
        seed: seed of the resamples.
    """
    videos = videos_of(split)
    found = confidence(contributions, videos=videos, resamples=resamples, seed=seed)
    return {
        "level": LEVEL,
        "resamples": resamples,
        "seed": seed,
        "videos": len(split) if videos is None else int(videos.max()) + 1,
        split.name: found,
    }


def check_resamples(resamples: int) -> None:
    """Raise UsageError if there are too few resamples for an interval, or needlessly many."""
    if resamples < FEWEST:
        raise UsageError(
            f"--bootstrap is {resamples}; a 95 % interval needs at least {FEWEST} resamples, "
            "better 1000"
        )
    if resamples > MOST:
        raise UsageError(
            f"--bootstrap is {resamples}; more than {MOST} resamples change no figure and take "
            "much memory; 1000 are enough"
        )


def paired_test(
    first: Sequence[Arrays],
    other: Sequence[Arrays],
    *,
    videos: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Return, per figure, the difference other - first, its interval, and a two-sided p.

    A resample draws the same clips (or the same `videos`, see `confidence`) for both sides. Each
    side is one run, or several that differ in their seed. With several, a resample also draws runs:
    it compares means over the drawn runs and the drawn clips. A few runs show too little of their
    spread, and with one run per side the interval covers the choice of clips, but not of the seed.
    p is twice the share of resamples beyond zero, with one more resample counted on either side, so
    it is never 0.

    Raises:
        DataError: the sides have different clips or figures.
    """
    names = list(first[0])
    tables = [[_table(run, names)[1] for run in side] for side in (first, other)]
    if len({len(table) for side in tables for table in side}) != 1:
        raise DataError(
            "the runs were scored on different numbers of clips; a paired test needs the same clips"
        )
    a, b = (np.stack(side) for side in tables)  # (runs, N, M) each
    rng = np.random.default_rng(seed)
    differences = []
    for counts in _counts(a.shape[1], resamples, rng, videos):
        side = []
        for runs in (a, b):
            drawn = _draw_runs(len(runs), len(counts), rng)
            scores = np.stack([counts @ run for run in runs])  # (runs, R, M)
            side.append(np.einsum("rs,srm->rm", drawn, scores))
        differences.append(side[1] - side[0])
    resampled = np.concatenate(differences)
    low, high = _ends(resampled)
    observed = b.mean(axis=(0, 1)) - a.mean(axis=(0, 1))
    p = p_value(resampled)
    return {
        name: {"difference": float(observed[i]), "low": low[i], "high": high[i], "p": float(p[i])}
        for i, name in enumerate(names)
    }


def p_value(differences: np.ndarray) -> np.ndarray:
    """Return the two-sided p that the resampled differences differ from zero: [R, M] -> [M]."""
    below, above = ((side).sum(axis=0) + 1 for side in (differences <= 0, differences >= 0))
    return np.minimum(1.0, 2 * np.minimum(below, above) / (len(differences) + 1))


def paired_ratios(
    first: Sequence[tuple[np.ndarray, np.ndarray]],
    other: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    videos: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return, per class, both sides' scores, the difference other - first, and its interval.

    All values are lists over classes, in percent. Each run is two arrays [N, C]; its score of a
    class is the sum of the first divided by the sum of the second. Several runs per side are
    averaged and resampled as in `paired_test`. The value is None where a class has no score on one
    side; resamples in which the class has no score are left out.
    """
    rng, clips = np.random.default_rng(seed), len(first[0][0])
    counts = np.concatenate(list(_counts(clips, resamples, rng, videos)))  # (R, N)
    whole, scores, drawn = np.ones((1, clips)), [], []
    for side in (first, other):
        equal = np.full((1, len(side)), 1 / len(side))
        scores.append(_mean_of_known(equal, np.stack([_ratio(whole, *run) for run in side]))[0])
        shares = _draw_runs(len(side), resamples, rng)
        drawn.append(_mean_of_known(shares, np.stack([_ratio(counts, *run) for run in side])))
    resampled, difference = drawn[1] - drawn[0], scores[1] - scores[0]
    low, high = np.full((2, resampled.shape[1]), np.nan)
    known = ~np.isnan(resampled).all(axis=0) & ~np.isnan(difference)
    low[known], high[known] = np.nanquantile(resampled[:, known], ENDS, axis=0)
    table = dict(first=scores[0], other=scores[1], difference=difference, low=low, high=high)
    return {
        name: [None if np.isnan(v) else float(v) for v in values] for name, values in table.items()
    }


def _ratio(counts: np.ndarray, numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    below = counts @ denominator.astype(float)
    return np.where(below > 0, 100 * (counts @ numerator) / np.where(below > 0, below, 1), np.nan)


def _mean_of_known(shares: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Average runs by the shares in which they were drawn, leaving out NaN.

    Shape: shares [R, runs], scores [runs, R, C] -> [R, C].
    """
    known = ~np.isnan(scores)
    total = np.einsum("rs,src->rc", shares, np.where(known, scores, 0.0))
    weight = np.einsum("rs,src->rc", shares, known.astype(float))
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1), np.nan)


def _draw_runs(runs: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each resample draws each run, as shares: [R, runs]."""
    return rng.multinomial(runs, np.full(runs, 1 / runs), size=resamples) / runs


def _table(
    contributions: Arrays, names: Sequence[str] | None = None
) -> tuple[list[str], np.ndarray]:
    names = list(contributions) if names is None else list(names)
    if set(names) != set(contributions):
        raise DataError(
            f"one run has the figures {', '.join(names)}, another {', '.join(contributions)}; "
            "compare runs of the same task"
        )
    return names, np.stack([np.asarray(contributions[name], dtype=float) for name in names], axis=1)


def _counts(
    clips: int, resamples: int, rng: np.random.Generator, videos: np.ndarray | None = None
) -> Any:
    """Yield how often each resample draws each clip, as shares of all draws: [up to CHUNK, N]."""
    units = clips if videos is None else int(videos.max()) + 1
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        drawn = rng.multinomial(units, np.full(units, 1 / units), size=size)
        counts = drawn if videos is None else drawn[:, videos]
        yield counts / counts.sum(axis=1, keepdims=True)


def _ends(values: np.ndarray) -> tuple[list[float], list[float]]:
    low, high = np.quantile(values, ENDS, axis=0)
    return low.tolist(), high.tolist()
