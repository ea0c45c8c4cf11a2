"""VALOR's rule: prompts, thresholds, frames and segments.

Labels from logits are compared with a plain second implementation.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avplatform.data.adapters.llp.classes import CLASSES
from avplatform.data.adapters.llp.prompts import (
    MODALITIES,
    PROMPTS,
    prompts,
    thresholds,
)
from avplatform.features.sampling import frame_indices, split_waveform
from avplatform.models.errors import DataError, UsageError
from avplatform.pseudo_labels.rule import pseudo_labels, video_labels

# Typed in again from the description of the procedure, by class number; not taken from the table
# under test.
PLAIN_THRESHOLDS = {
    "visual": [
        20,
        15,
        18,
        14,
        15,
        18,
        18,
        15,
        15,
        15,
        15,
        18,
        15,
        15,
        15,
        15,
        15,
        15,
        15,
        16,
        14,
        15,
        15,
        15,
        18,
    ],
    "audio": [0, 0, 1, 4, 6, -2, 4, 4, 2, 2, 2, 1, 2, 3, 0, 2, 2, 2, 0, 2, -1, 2, 3, 3, 0],
}


def plain_labels(logits, weak, modality):
    """The rule once more, one number at a time."""
    limits = PLAIN_THRESHOLDS[modality]
    labels = [[0] * 25 for _ in range(10)]
    for t in range(10):
        for c in range(25):
            if weak[c] == 1 and float(logits[t][c]) > limits[c]:
                labels[t][c] = 1
    return labels


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_planted_logits_give_the_labels_of_a_second_implementation(modality, dtype):
    """Every class, in and outside the weak labels, below, at and just above its threshold."""
    generator = np.random.default_rng(0)
    limits = np.array(PLAIN_THRESHOLDS[modality], dtype=dtype)
    inf = dtype(np.inf)
    for c in range(25):
        for weak_value in (0, 1):
            weak = generator.integers(0, 2, 25)
            weak[c] = weak_value
            logits = (limits + generator.normal(0, 3, (10, 25))).astype(dtype)
            below, at, above = (
                np.nextafter(limits[c], -inf),
                limits[c],
                np.nextafter(limits[c], inf),
            )
            logits[:3, c] = below, at, above
            made = pseudo_labels(logits, weak, thresholds(modality))
            assert made.dtype == np.int64
            assert made.tolist() == plain_labels(logits.tolist(), weak.tolist(), modality)
            assert made[:3, c].tolist() == [0, 0, weak_value]
            assert not made[:, weak == 0].any()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(MODALITIES))
def test_random_logits_agree_with_the_second_implementation(seed, modality):
    generator = np.random.default_rng(seed)
    logits = (
        np.round(generator.normal(0, 1, (10, 25)) * 2) + PLAIN_THRESHOLDS[modality]
    )  # often exactly at the threshold
    weak = generator.integers(0, 2, 25)
    assert pseudo_labels(logits, weak, thresholds(modality)).tolist() == plain_labels(
        logits, weak, modality
    )


def test_many_clips_at_once_are_the_clips_one_by_one():
    generator = np.random.default_rng(1)
    logits, weak = generator.normal(15, 3, (6, 10, 25)), generator.integers(0, 2, (6, 25))
    together = pseudo_labels(logits, weak, thresholds("visual"))
    assert all(
        (together[n] == pseudo_labels(logits[n], weak[n], thresholds("visual"))).all()
        for n in range(6)
    )
    assert (video_labels(together) == together.any(axis=1)).all() and video_labels(
        together
    ).shape == (6, 25)


def test_the_table_covers_the_classes_in_order_and_keeps_the_published_spelling():
    assert tuple(PROMPTS) == CLASSES
    official, corrected = prompts("visual"), prompts("visual", "corrected")
    assert (
        official[14] == "A photo of a vaccum cleaner."
        and corrected[14] == "A photo of a vacuum cleaner."
    )
    assert (
        official[20] == "A photo of a acoustic guiter."
        and corrected[20] == "A photo of an acoustic guitar."
    )
    assert [c for c in range(25) if official[c] != corrected[c]] == [14, 20]
    assert prompts("audio") == prompts("audio", "corrected")
    assert (
        prompts("audio")[12] == "This is a sound of chicken, rooster"
        and len(set(prompts("audio"))) == 25
    )
    for modality in MODALITIES:
        assert thresholds(modality).tolist() == PLAIN_THRESHOLDS[modality]


def test_unknown_modalities_and_spellings_are_refused():
    with pytest.raises(UsageError, match="unknown modality 'sound'"):
        thresholds("sound")
    with pytest.raises(UsageError, match="unknown spelling 'oficial'; did you mean 'official'"):
        prompts("visual", "oficial")


@pytest.mark.parametrize("frames", [10, 79, 80, 81, 82])
def test_frames_are_spread_from_the_first_to_the_last(frames):
    plain = [round(k * (frames - 1) / 9) for k in range(10)]
    assert frame_indices(frames, 10).tolist() == plain and plain[-1] == frames - 1


@given(st.integers(10, 10_000))
def test_segments_start_at_the_rounded_tenths(samples):
    waveform = np.arange(samples)
    segments = split_waveform(waveform, 10)
    for i in range(10):
        start = round(i * samples / 10)
        assert segments[i].tolist() == list(range(start, start + samples // 10))


def test_a_waveform_of_fewer_samples_than_segments_is_refused():
    with pytest.raises(DataError, match="9 samples"):
        split_waveform(np.zeros(9), 10)
