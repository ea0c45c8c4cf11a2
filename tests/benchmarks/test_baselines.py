"""The plain baselines of the benchmarks compute what ours computes."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from avplatform.tasks.avvp.metrics import averages, score
from benchmarks.speed import latency, metrics, scale
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


@pytest.mark.parametrize("name", ["han", "ave"])
def test_an_exported_network_gives_what_the_plain_model_gives(name):
    if reason := latency.left_out():
        pytest.skip(reason)
    (comparison,) = latency.one_clip(name)
    (side,) = comparison.sides
    assert side.difference() < side.tolerance
    assert (side.floor, side.aim) == latency.GOALS[name]


@pytest.mark.slow
def test_what_nodes_are_compared_with_has_every_video(tmp_path):
    if reason := scale.left_out():
        pytest.skip(reason)
    extraction = scale.Extraction(tmp_path, 2)
    assert len(extraction.run(tmp_path / "again")) == 2
    assert all(
        file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()
        for file in extraction.alone.iterdir()
    )


def test_a_benchmark_is_left_out_where_its_packages_are_missing(monkeypatch):
    missing = {"onnxscript", "ray"}
    find = lambda name: None if name in missing else find_spec("json")  # noqa: E731
    monkeypatch.setattr("importlib.util.find_spec", find)
    assert latency.left_out().startswith("onnxscript is not installed")
    assert scale.left_out().startswith("Ray is not installed")
