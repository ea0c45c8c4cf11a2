"""Calibration errors against a plain loop, and the rescaling against known distortions."""

import numpy as np
import pytest

from avplatform.evaluation.calibration import calibration, fit_platt, reliability, rescale
from avplatform.models.errors import DataError


def drawn(scale, offset, size=20000, seed=0):
    """Scores whose logits must be scaled and moved to come true as they say."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 2, size=size)
    true = rng.random(size) < 1 / (1 + np.exp(-(scale * logits + offset)))
    return 1 / (1 + np.exp(-logits)), true


def test_the_error_is_the_one_counted_by_hand():
    scores, true = drawn(0.5, 0.3, size=500)
    total = 0.0
    for b in range(15):
        held = [i for i in range(500) if b / 15 <= scores[i] < (b + 1) / 15]
        if held:
            total += len(held) / 500 * abs(np.mean(scores[held]) - np.mean(true[held]))
    found = reliability(scores, true)
    assert found["error"] == pytest.approx(100 * total)
    assert found["brier"] == pytest.approx(100 * np.mean((scores - true) ** 2))
    assert sum(b["count"] for b in found["bins"]) == found["count"] == 500


def test_honest_scores_have_no_error_and_sure_wrong_ones_all_of_it():
    scores, true = drawn(1, 0, size=50000)
    assert reliability(scores, true)["error"] < 0.7
    assert reliability(np.ones(10), np.zeros(10))["error"] == 100
    assert reliability(np.array([0.0, 1.0]), np.array([0, 1]))["error"] == 0


def test_the_rescaling_finds_the_distortion():
    scale, offset = fit_platt(*drawn(0.4, -0.7))
    assert (scale, offset) == (pytest.approx(0.4, abs=0.03), pytest.approx(-0.7, abs=0.05))
    assert fit_platt(np.array([0.2, 0.9]), np.array([1, 1])) == (1.0, 0.0)
    assert rescale(np.array([0.2, 0.9]), 1, 0) == pytest.approx([0.2, 0.9])


def test_separable_scores_give_finite_numbers():
    scale, offset = fit_platt(np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1]))
    assert np.isfinite([scale, offset]).all() and scale > 1


def test_what_is_learnt_on_validation_helps_on_test():
    found = calibration({"av": drawn(0.4, -0.7, seed=1)}, {"av": drawn(0.4, -0.7, seed=2)})["av"]
    assert found["after"]["error"] < 1 < 10 < found["before"]["error"]
    assert (
        found["after"]["brier"] < found["before"]["brier"]
        and found["rescaling"]["learnt_on"] == "validation"
    )


def test_no_score_is_said():
    with pytest.raises(DataError, match="no score"):
        reliability(np.array([]), np.array([]))


def test_the_reported_split_teaches_nothing():
    found = calibration({"av": drawn(1, 0, seed=1)}, {"av": drawn(0.4, -0.7, seed=2)})["av"]
    assert found["rescaling"]["scale"] == pytest.approx(1, abs=0.05)
    assert found["after"]["error"] == pytest.approx(found["before"]["error"], abs=1)
