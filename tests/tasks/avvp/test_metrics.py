"""LLP's metrics: invariances for random clips, class-wise readings, anchors."""

import json
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avplatform.data.adapters.llp.annotations import read_annotations
from avplatform.models.errors import DataError
from avplatform.tasks.avvp.metrics import (
    AVVPMetrics,
    averages,
    classwise,
    overlap_subsets,
    score,
)
from avplatform.tasks.batch import Batch

real = pytest.mark.skipif(
    "AVP_LLP_DIR" not in os.environ,
    reason="AVP_LLP_DIR is not set: the real annotations are not here",
)
NAMES = ("dog", "car", "cat")


def clips_of(seed, clips, segments=10):
    """Random decisions and a batch with random truth."""
    rng = np.random.default_rng(seed)

    def maps(*shape):
        return torch.from_numpy(rng.random(shape) < 0.4)

    shape = (clips, segments, len(NAMES))
    labels = {
        "dense_audio": maps(*shape),
        "dense_visual": maps(*shape),
        "weak": maps(clips, len(NAMES)),
    }
    decisions = {"audio": maps(*shape), "visual": maps(*shape), "video": maps(clips, len(NAMES))}
    nothing = torch.zeros(clips, segments, 1)
    rows = torch.from_numpy(rng.permutation(1000)[:clips])
    names = [str(r) for r in rows.tolist()]
    return decisions, Batch(
        audio=nothing, visual=nothing, motion=None, row=rows, clip_id=names, labels=labels
    )


def scored(decisions, batch):
    metrics = AVVPMetrics(NAMES)
    metrics.update(decisions, batch)
    return metrics


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 6), min_size=1, max_size=5),
    st.integers(1, 3),
    st.integers(1, 12),
)
def test_figures_do_not_depend_on_batching_order_or_processes(seed, sizes, processes, segments):
    decisions, batch = clips_of(seed, sum(sizes), segments)
    parts = [AVVPMetrics(NAMES) for _ in range(processes)]
    bounds = np.cumsum([0, *sizes])
    for n in np.random.default_rng(seed).permutation(len(sizes)):
        clips = slice(int(bounds[n]), int(bounds[n + 1]))
        parts[n % processes].update(
            {k: v[clips] for k, v in decisions.items()}, batch.select(clips)
        )
    merged = AVVPMetrics(NAMES)
    merged.merge([part.state() for part in reversed(parts)])
    whole = scored(decisions, batch)
    assert merged.compute() == whole.compute() and merged.details() == whole.details()
    assert len(merged) == sum(sizes)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 10))
def test_segments_appended_without_events_change_nothing(seed, segments):
    """Up to 10 segments a table answers, beyond 10 the general code: both must agree."""
    maps = [np.random.default_rng([seed, n]).random((4, segments, 2)) < 0.5 for n in range(4)]
    longer = [np.pad(m, ((0, 0), (0, 11 - segments), (0, 0))) for m in maps]
    np.testing.assert_array_equal(score(*maps), score(*longer))


def test_a_batch_that_comes_again_is_refused():
    decisions, batch = clips_of(0, 3)
    metrics = scored(decisions, batch)
    metrics.update(decisions, batch)
    with pytest.raises(DataError, match="scored twice"):
        metrics.compute()


@pytest.mark.parametrize("figures", ["compute", "details"])
def test_no_clips_give_an_error_and_no_figures(figures):
    with pytest.raises(DataError, match="no clip was scored"):
        getattr(AVVPMetrics(NAMES), figures)()


@pytest.mark.parametrize("segments", [10, 12])
def test_many_clips_are_scored_in_blocks_to_the_last_bit(monkeypatch, segments):
    rng = np.random.default_rng(0)
    maps = [rng.random((50, segments, 3)) < 0.3 for _ in range(4)]
    whole = score(*maps)
    monkeypatch.setattr("avplatform.tasks.avvp.metrics.BLOCK", 7)
    np.testing.assert_array_equal(score(*maps), whole)
    np.testing.assert_array_equal(score(*(x[:7] for x in maps)), whole[:7])


def test_a_split_without_dense_labels_cannot_be_scored():
    decisions, batch = clips_of(0, 3)
    del batch.labels["dense_visual"]
    with pytest.raises(DataError, match="no 'dense_visual' labels"):
        scored(decisions, batch)


def test_an_overlap_of_exactly_half_counts_as_a_hit():
    truth, found, nothing = np.zeros((3, 1, 4, 1), dtype=bool)
    truth[0, :4], found[0, :2] = True, True
    assert averages(score(found, nothing, truth, nothing))["event_A"] == 100
    found[0, 1] = False
    assert averages(score(found, nothing, truth, nothing))["event_A"] == 0


def test_class_scores_are_means_over_clips_or_of_pooled_events():
    truth, found, nothing = np.zeros((3, 2, 10, 2), dtype=bool)
    truth[0, [0, 2, 4], 0] = True  # three events, all found
    found[0, [0, 2, 4], 0] = True
    found[1, 5, 0] = True  # one false alarm in another clip
    a_clip = classwise(found, nothing, truth, nothing, level=1)["audio"]
    pooled = classwise(found, nothing, truth, nothing, level=1, pooled=True)["audio"]
    assert a_clip[0] == pytest.approx(50) and pooled[0] == pytest.approx(100 * 6 / 7)
    assert np.isnan(a_clip[1]) and np.isnan(pooled[1])


def test_overlap_is_read_in_four_ways():
    audio, visual = np.zeros((2, 3, 10, 2), dtype=bool)
    audio[0, 0] = True  # two events heard at once
    visual[1, 0] = True  # two events seen at once
    audio[2, 0, 0] = visual[2, 0, 1] = True  # one heard, another seen at the same time
    found = {name: chosen.tolist() for name, chosen in overlap_subsets(audio, visual).items()}
    assert found == {
        "union": [True, True, True],
        "either_modality": [True, True, False],
        "audio": [True, False, False],
        "visual": [False, True, False],
    }


def test_details_survive_json_and_count_their_subsets():
    details = scored(*clips_of(5, 7)).details()
    assert json.loads(json.dumps(details)) == details
    for subset in details["subsets"].values():
        assert (
            subset["overlapping"]["clips"] + subset["non_overlapping"]["clips"]
            == details["clips"]
            == 7
        )


@real
def test_predicting_nothing_on_the_real_test_split_scores_its_empty_clips():
    data = read_annotations(os.environ["AVP_LLP_DIR"])
    rows = data.splits["test"]
    truth = data.dense_audio[rows], data.dense_visual[rows]
    found = averages(score(np.zeros_like(truth[0]), np.zeros_like(truth[1]), *truth))
    for level in ("segment", "event"):
        figures = [found[f"{level}_{kind}"] for kind in ("A", "V", "AV", "Type@AV", "Event@AV")]
        assert figures == pytest.approx([0.5, 10.083, 14.5, 8.361, 0], abs=1e-3)
