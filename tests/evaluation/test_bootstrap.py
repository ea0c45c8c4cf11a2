"""Intervals and paired tests, against analysis and plain loops."""

import numpy as np
import pytest

from avplatform.evaluation.bootstrap import confidence, p_value, paired_ratios, paired_test
from avplatform.models.errors import DataError


def test_the_standard_error_is_that_of_a_mean():
    values = np.random.default_rng(0).normal(50, 10, size=400)
    found = confidence({"x": values}, resamples=20000)["x"]
    error = values.std() / np.sqrt(len(values))  # of the resampled mean, exactly
    assert found["value"] == pytest.approx(values.mean())
    assert found["error"] == pytest.approx(error, rel=0.03)
    assert found["low"] == pytest.approx(values.mean() - 1.96 * error, abs=0.06 * error)
    assert found["high"] == pytest.approx(values.mean() + 1.96 * error, abs=0.06 * error)


def test_intervals_hold_the_true_mean_as_often_as_they_say():
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(300):
        found = confidence({"x": rng.exponential(1.0, size=200)}, resamples=300)["x"]
        inside += found["low"] <= 1.0 <= found["high"]
    assert 0.90 <= inside / 300 <= 0.98


def test_clips_of_one_video_count_as_one_draw():
    """Five equal clips of each video tell no more than one clip of each."""
    values = np.random.default_rng(0).normal(50, 10, size=120)
    many, videos = {"x": np.repeat(values, 5)}, np.repeat(np.arange(120), 5)
    one = confidence({"x": values}, resamples=2000)["x"]
    found = confidence(many, videos=videos, resamples=2000)["x"]
    assert found == pytest.approx(one)
    apart = confidence(many, resamples=2000)["x"]
    assert apart["error"] == pytest.approx(one["error"] / np.sqrt(5), rel=0.1)
    shifted = {"x": many["x"] + np.repeat(np.random.default_rng(1).normal(0, 5, 120), 5)}
    tests = [paired_test([many], [shifted], videos=v)["x"] for v in (videos, None)]
    widths = [test["high"] - test["low"] for test in tests]
    assert widths[0] == pytest.approx(widths[1] * np.sqrt(5), rel=0.15)


def test_the_seed_decides_the_resamples_and_nothing_else():
    values = {"x": np.random.default_rng(0).normal(size=50)}
    a, b, c = (confidence(values, resamples=300, seed=s) for s in (0, 0, 1))
    assert a == b and a["x"]["low"] != c["x"]["low"] and a["x"]["value"] == c["x"]["value"]


def test_pairs_on_the_same_clips_tell_more_than_their_own_spreads():
    rng = np.random.default_rng(2)
    clips = rng.normal(50, 20, size=300)
    first, other = {"x": clips}, {"x": clips + rng.normal(1.0, 2.0, size=300)}
    found = paired_test([first], [other], resamples=4000)["x"]
    difference = other["x"] - first["x"]
    error = difference.std() / np.sqrt(300)
    assert found["difference"] == pytest.approx(difference.mean())
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * error, rel=0.08)
    assert found["p"] < 0.001 and found["low"] > 0
    back = paired_test([other], [first], resamples=4000)["x"]
    assert back["difference"] == pytest.approx(-found["difference"]) and back["p"] == found["p"]


def test_p_is_even_where_nothing_differs():
    rng = np.random.default_rng(3)
    found = []
    for _ in range(200):
        a, b = rng.normal(size=(2, 100))
        found.append(paired_test([{"x": a}], [{"x": b}], resamples=400)["x"]["p"])
    assert (
        0.01 <= np.mean(np.array(found) < 0.05) <= 0.10
        and 0.4 <= np.mean(np.array(found) < 0.5) <= 0.6
    )


def test_p_counts_the_resamples_beyond_zero():
    assert p_value(np.array([[1.0], [2.0], [3.0]])) == [0.5]  # 2 * (0 + 1) / 4
    assert p_value(np.zeros((9, 1))) == [1.0]
    assert p_value(np.array([[-1.0]] + [[1.0]] * 98)) == [pytest.approx(2 * 2 / 100)]


def test_several_seeds_widen_the_interval():
    clips = np.random.default_rng(4).normal(50, 5, size=200)
    narrow = [{"x": clips}, {"x": clips}]
    wide = [{"x": clips - 3}, {"x": clips + 3}]
    quiet = paired_test(narrow, [{"x": clips + 1}], resamples=2000)["x"]
    loud = paired_test(wide, [{"x": clips + 1}], resamples=2000)["x"]
    assert quiet["difference"] == pytest.approx(1) and loud["difference"] == pytest.approx(1)
    assert quiet["high"] - quiet["low"] < 1e-9 and quiet["p"] < 0.01
    assert loud["high"] - loud["low"] == pytest.approx(6, abs=0.1) and loud["p"] > 0.3


def test_other_clips_and_figures_are_refused():
    with pytest.raises(DataError, match="same clips"):
        paired_test([{"x": np.zeros(3)}], [{"x": np.zeros(4)}])
    with pytest.raises(DataError, match="compare runs of the same task"):
        paired_test([{"x": np.zeros(3)}], [{"y": np.zeros(3)}])


def test_class_scores_are_ratios_of_sums_and_unknown_ones_are_none():
    rng = np.random.default_rng(5)
    below = (rng.random((60, 3)) < [0.5, 0.9, 0.0]).astype(float)
    first, other = below * rng.random((60, 3)), below * rng.random((60, 3))
    found = paired_ratios([(first, below)], [(other, below)], resamples=3000, seed=7)
    for c in range(2):
        scores = [100 * x[:, c].sum() / below[:, c].sum() for x in (first, other)]
        assert [found["first"][c], found["other"][c]] == pytest.approx(scores)
        picked = np.random.default_rng(8).integers(60, size=(3000, 60))
        plain = [100 * (other[p, c].sum() - first[p, c].sum()) / below[p, c].sum() for p in picked]
        ends = np.quantile(plain, [0.025, 0.975])
        assert [found["low"][c], found["high"][c]] == pytest.approx(
            ends.tolist(), abs=0.1 * (ends[1] - ends[0])
        )
    assert [found[name][2] for name in ("first", "other", "difference", "low", "high")] == [
        None
    ] * 5
