"""Trivial answers stand beside a model's scores, and it is said where they are not beaten."""

import numpy as np
import pytest
import torch

from avplatform.hub.cards import render_model_card
from avplatform.runs.results import not_beaten, reference_scores
from avplatform.tasks.avel.metrics import AVELMetrics
from avplatform.tasks.avvp.metrics import AVVPMetrics
from avplatform.tasks.batch import Batch


def batch(**labels):
    n = len(next(iter(labels.values())))
    labels = {name: torch.as_tensor(value) for name, value in labels.items()}
    empty = torch.zeros(n, 1, 1)
    return Batch(
        audio=empty, visual=empty, motion=None, row=torch.arange(n), clip_id=[""] * n, labels=labels
    )


def avvp(audio, visual, *, found=None):
    weak = (audio.any(1) | visual.any(1)).astype(np.uint8)
    metrics = AVVPMetrics(("a", "b", "c"))
    answer = torch.as_tensor(np.zeros_like(audio) if found is None else found)
    decisions = {"audio": answer, "visual": answer, "video": answer.any(1)}
    metrics.update(decisions, batch(dense_audio=audio, dense_visual=visual, weak=weak))
    return metrics


def test_the_rivals_of_parsing_are_scored_as_models_are():
    audio = np.zeros((4, 4, 3), np.uint8)
    audio[:3, :2, 1] = audio[3, 2:, 2] = 1  # class b is heard first in three of four clips
    metrics = avvp(audio, audio)
    anchors = metrics.details()["anchors"]
    assert len(anchors) == 4
    assert anchors["nothing_predicted"]["segment_A"] == 0
    # b in all four seconds: F 2/3 in three clips; in the last, b is wrong and c is missed
    assert anchors["most_frequent_class"]["segment_A"] == pytest.approx(100 * 3 / 4 * 2 / 3)
    assert anchors["class_priors_by_second"]["segment_A"] == pytest.approx(75)
    always = avvp(audio[:3], audio[:3], found=audio[:3])
    assert always.details()["anchors"]["class_priors_by_second"]["segment_Type@AV"] == 100


def test_the_rivals_of_localization_are_scored_as_models_are():
    true = np.array([[0, 0, 2, 2], [0, 0, 2, 2], [1, 2, 2, 1]])
    metrics = AVELMetrics(("a", "b", "background"))
    metrics.update({"segment": torch.full((3, 4), 2)}, batch(segment=true, video=[0, 0, 1]))
    anchors = metrics.details()["anchors"]
    assert len(anchors) == 4
    assert anchors["most_frequent_class"] == pytest.approx(100 * 4 / 12)
    assert anchors["class_priors_by_second"] == pytest.approx(100 * 9 / 12)
    assert anchors["always_background"] == pytest.approx(100 * 6 / 12)


def test_a_model_that_answers_alike_of_all_clips_is_seen():
    audio = np.zeros((2, 4, 3), np.uint8)
    audio[0, 0, 0] = 1
    assert avvp(audio, audio).constant() == "nothing"
    assert avvp(audio, audio, found=np.ones_like(audio)).constant() == "everything"
    assert avvp(audio, audio, found=audio).constant() is None
    for answer, said in ((2, "nothing"), (1, "everything")):
        metrics = AVELMetrics(("a", "b", "background"))
        found = torch.full((2, 4), answer)
        metrics.update({"segment": found}, batch(segment=np.zeros((2, 4), int), video=[0, 0]))
        assert metrics.constant() == said


def test_only_what_scores_higher_or_the_same_is_named():
    details = {"anchors": {"nothing": {"F": 8.0}, "prior": {"F": 9.5}, "low": {"F": 7.99}}}
    assert not_beaten({"F": 8.0}, details, metric="F") == [
        "The model does not beat 'nothing': F 8.00 against 8.00.",
        "The model does not beat 'prior': F 8.00 against 9.50.",
    ]
    assert not_beaten({"F": 9.6}, details, metric="F") == []
    assert not_beaten({"F": 1.0}, {"clips": 2}, metric="F") == []


def test_the_card_holds_the_rivals_and_the_words():
    sentence = "The model does not beat 'always background': 1 against 2."
    results = {
        "task": "avel", "encoder": "ave", "decoder": "leap", "data": "mine", "synthetic": False,
        "selection": None, "validation": {"accuracy": 1.0}, "test": {"accuracy": 1.5},
        "details": {"test": {"anchors": {"always_background": 2.25}}},
        "not_beaten": {"validation": [], "test": [sentence]},
    }  # fmt: skip
    config = {"classes": ["a"], "features": {"audio_dim": 1, "visual_dim": 1}}
    card = render_model_card(results, config)
    assert "| metric | validation | test | test: always background |" in card
    assert "| accuracy | 1.00 | 1.50 | 2.25 |" in card and f"On test: {sentence}" in card
    assert reference_scores(results, "test") == {"always_background": {"accuracy": 2.25}}
