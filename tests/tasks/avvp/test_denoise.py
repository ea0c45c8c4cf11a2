"""Labels that both modalities contradict are dropped, as many as the noise ratios say."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avplatform.tasks.avvp.denoise import (
    drop_counts,
    dropped_labels,
    label_losses,
    ratio_strength,
)
from avplatform.tasks.batch import Moment


def by_hand(losses, labels, counts):
    """Sort the clips of each class with Python, and take the ends of both lists."""
    dropped = torch.zeros_like(labels)
    for m in range(2):
        for c in range(labels.shape[2]):
            clips, k = labels[m, :, c].nonzero().flatten().tolist(), int(counts[m, c])
            own = sorted(clips, key=lambda n: losses[m, n, c])
            other = sorted(clips, key=lambda n: losses[1 - m, n, c])
            for n in set(own[len(own) - k :]) & set(other[:k]):
                dropped[m, n, c] = True
    return dropped


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 12), st.booleans())
def test_the_clips_are_those_that_sorting_each_class_by_hand_gives(seed, clips, ties):
    rng = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(2, clips, 6, generator=rng)
    if ties:
        probabilities = (probabilities * 4).round() / 4
    labels = torch.rand(2, clips, 6, generator=rng) > 0.4
    losses = label_losses(probabilities, (1.0, 0.95))
    counts, rest = drop_counts(torch.rand(2, 6, generator=rng).double(), labels)
    assert (counts <= labels.sum(dim=1)).all() and ((rest >= 0) & (rest < 1)).all()
    assert torch.equal(dropped_labels(losses, labels, counts), by_hand(losses, labels, counts))


def test_a_class_with_few_labels_is_only_denoised_if_fractions_are_carried_on():
    labels, ratios = torch.ones(2, 4, 1, dtype=torch.bool), torch.full((2, 1), 0.3).double()
    alone, _ = drop_counts(ratios, labels)
    carried, total = None, torch.zeros(2, 1)
    for _ in range(10):
        counts, carried = drop_counts(ratios, labels, carried)
        total += counts
    assert alone.eq(1).all() and total.eq(12).all()  # 10 batches of 4 clips hold 40 labels
    few = labels[:, :3]
    assert drop_counts(ratios, few)[0].eq(0).all()


@pytest.mark.parametrize("ratio", [math.nan, 0.0])
def test_an_unknown_ratio_drops_nothing(ratio):
    labels = torch.ones(2, 5, 3, dtype=torch.bool)
    counts, rest = drop_counts(torch.full((2, 3), ratio).double(), labels)
    assert not counts.any() and not rest.any()


def test_a_label_that_only_audio_has_is_judged_among_the_audio_labels():
    """The label sets may differ, if refined labels or pseudo-labels already dropped some."""
    labels = torch.tensor([[[True], [True], [True]], [[True], [False], [True]]])
    losses = torch.tensor([[[3.0], [2.0], [1.0]], [[1.0], [2.0], [3.0]]])
    dropped = dropped_labels(losses, labels, torch.ones(2, 1))
    assert dropped.flatten(1).tolist() == [[True, False, False], [False, False, True]]


def test_a_visual_prediction_that_is_surer_than_its_target_counts_as_worse():
    losses = label_losses(torch.tensor([[[0.95, 0.99]], [[0.95, 0.99]]]), (1.0, 0.95))
    assert losses[0, 0, 1] < losses[0, 0, 0] and losses[1, 0, 1] > losses[1, 0, 0]


def test_the_official_warm_up_of_several_epochs_falls_within_an_epoch():
    official = [ratio_strength(Moment(2, batch, 5), epochs=2.5) for batch in range(5)]
    linear = [ratio_strength(Moment(2, b, 5), warm_up="linear", epochs=2.5) for b in range(5)]
    assert official == sorted(official, reverse=True) and linear == sorted(linear)
    assert official[0] == linear[0] == 0.4
    assert ratio_strength(Moment(1, 4, 5)) == 0 and ratio_strength(Moment(2, 0, 5)) == 1
    assert ratio_strength(Moment(1, 0, 5), warm_up="off") == 1
