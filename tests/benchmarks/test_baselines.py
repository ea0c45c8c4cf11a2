"""The plain baselines of the benchmarks compute what ours computes."""

from __future__ import annotations

import numpy as np
import pytest

from avplatform.tasks.avvp.metrics import averages, score
from benchmarks.speed import metrics
from benchmarks.speed.metrics import dense, furthest, loop, one_clip


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_the_loop_over_clips_gives_the_ten_metrics_to_the_last_bit(share):
    rng = np.random.default_rng(0)
    pa, pv, ta, tv = (rng.random((40, 10, 25)) < share for _ in range(4))
    plain = loop([pa, pv], [lambda i: ta[i], lambda i: tv[i]])
    assert furthest(plain, averages(score(pa, pv, ta, tv))) == 0.0


def test_looking_truth_up_gives_the_dense_truth(monkeypatch):
    monkeypatch.delenv("AVP_LLP_DIR", raising=False)
    metrics.annotations.cache_clear()
    tables, names, classes = metrics.annotations()
    metrics.annotations.cache_clear()
    maps = dense(tables[0], names[:20], classes)
    assert maps.any() and maps.shape == (20, 10, 25)
    assert all((one_clip(tables[0], n, classes) == maps[i]).all() for i, n in enumerate(names[:20]))
