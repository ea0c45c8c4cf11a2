"""The contrast on tiny random CLIP and CLAP, its thresholds and its smoothing.

No real weights are used: this shows that the path is right, not what it finds in real videos.
"""

import numpy as np
import pytest
import torch

from avplatform import pipeline
from avplatform.features.teachers import CLAPTeacher, CLIPTeacher
from avplatform.models.errors import DataError, UsageError
from avplatform.training_free.contrast import (
    HEARD,
    SAFETY,
    SEEN,
    Contrast,
    contrast,
    empty_pictures,
    empty_sounds,
    smoothed,
)
from avplatform.training_free.model import TrainingFree

transformers = pytest.importorskip("transformers")
TEXTS = ["dog barking", "a siren"]


@pytest.fixture(scope="module")
def teachers(tiny_teachers):
    return {"clip": CLIPTeacher(tiny_teachers["clip"]), "clap": CLAPTeacher(tiny_teachers["clap"])}


def unit(values):
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


@pytest.mark.parametrize(("kind", "texts"), [("clip", SEEN), ("clap", HEARD)])
def test_margins_are_logits_of_labels_above_the_mean_of_the_background(teachers, kind, texts):
    teacher, made = teachers[kind], contrast(teachers[kind], TEXTS, texts)

    def embedded(text):
        prompts = [prompt.format(text) for prompt in texts.prompts]
        return unit(unit(teacher.text_features(prompts).vectors).mean(axis=0))

    features = np.random.default_rng(3).standard_normal((4, 12)).astype(np.float32)
    logits = teacher.scale * unit(features) @ np.stack([embedded(t) for t in TEXTS]).T
    level = teacher.scale * unit(features) @ np.stack([embedded(t) for t in texts.background]).T
    wanted = logits - np.log(np.exp(level).mean(axis=1, keepdims=True))
    found = made.margins(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-3)
    assert np.ptp(found) > 0.1


@pytest.mark.parametrize(
    ("kind", "texts", "empty"),
    [("clip", SEEN, empty_pictures(32)), ("clap", HEARD, empty_sounds())],
)
def test_noise_silence_and_plain_pictures_are_never_an_event(teachers, kind, texts, empty):
    made = contrast(teachers[kind], TEXTS, texts)
    features = torch.from_numpy(teachers[kind].segment_features(empty))
    assert made(features[None]).max() <= 1 / (1 + np.exp(SAFETY)) + 1e-6
    assert (made.thresholds >= SAFETY).all()


def test_empty_inputs_are_the_same_every_time_and_all_different():
    for make in (empty_sounds, lambda: empty_pictures(24), lambda: empty_pictures(30)):
        first = make()
        assert (first == make()).all() and first.dtype == np.float32
        assert np.abs(first).max() <= 1
        assert len(np.unique(first.reshape(len(first), -1), axis=0)) == len(first)


def test_a_threshold_rises_with_what_the_label_scores_on_nothing():
    labels, background = np.eye(4)[:2], np.eye(4)[2:3]
    near, far = np.array([0.9, 0.0, 0.1, 0.0]), np.array([0.0, 0.1, 0.9, 0.0])
    made = Contrast(labels, background, scale=10.0, empty=np.stack([near, far]))
    assert made.thresholds[0] > 5 and made.thresholds[1] == SAFETY


def test_a_segment_that_is_all_zeros_holds_nothing():
    made = Contrast(np.eye(3)[:1], np.eye(3)[1:2], scale=50.0, empty=np.eye(3)[1:2])
    features = torch.tensor(np.stack([np.eye(3)[0], np.zeros(3)]), dtype=torch.float32)[None]
    found = made(features)[0, :, 0]
    assert found[0] > 0.5 and found[1] < 0.25 and not made(torch.zeros(1, 4, 3)).any()


@pytest.mark.parametrize(
    ("before", "on"),
    [
        ([0, 0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 0, 0]),
        ([0, 0, 0.74, 0, 0], [0, 0, 0, 0, 0]),
        ([0, 0, 0.76, 0, 0], [0, 0, 1, 0, 0]),
        ([1, 1, 0.26, 1, 1], [1, 1, 1, 1, 1]),
        ([1, 1, 0.24, 1, 1], [1, 1, 0, 1, 1]),
        ([1, 0], [1, 0]),
        ([0.6], [1]),
    ],
)
def test_smoothing_keeps_edges_drops_faint_single_seconds_and_closes_gaps(before, on):
    values = torch.tensor(before, dtype=torch.float32).reshape(1, -1, 1)
    assert (smoothed(values)[0, :, 0] >= 0.5).int().tolist() == on


def test_an_event_of_both_streams_is_as_probable_as_the_less_probable(teachers):
    model = TrainingFree(TEXTS, **teachers)
    assert model.num_parameters == 0 and not model.training
    audio, visual = torch.randn(2, 5, 12), torch.randn(2, 5, 12)
    parse = model(audio, visual).parse
    lower = torch.minimum(parse.segment.audio.values, parse.segment.visual.values)
    assert (parse.segment.av.values == lower).all() and lower.std() > 0
    assert (parse.video.av.values >= parse.segment.audio.values.amax(dim=1)).all()


def test_the_model_cannot_be_saved(teachers, tmp_path):
    with pytest.raises(UsageError, match="nothing to save"):
        TrainingFree(TEXTS, **teachers).save_pretrained(tmp_path / "model")


def test_tiny_random_models_parse_a_video(tiny_teachers, tmp_path):
    pytest.importorskip("av")
    from tests.features.clips import standard

    standard(tmp_path / "v.mp4", seconds=3, beep_at=1, flash_at=2)
    parse = pipeline("training-free", labels=TEXTS, weights=tiny_teachers)
    first, again = parse(tmp_path / "v.mp4"), parse(tmp_path / "v.mp4")
    assert first.scores["audio"].shape == (3, 2) and np.isfinite(first.scores["av"]).all()
    assert all((first.scores[name] == again.scores[name]).all() for name in first.scores)


def test_without_transformers_the_pip_command_is_named(tiny_teachers, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(UsageError, match=r"pip install 'avplatform\[text\]'"):
        pipeline("training-free", labels=TEXTS, weights=tiny_teachers)


def test_weights_that_are_not_here_come_with_the_commands_that_fetch_them(monkeypatch):
    def offline(*_, **__):
        raise OSError("We couldn't connect to the Hub\nand so on")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", offline)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    with pytest.raises(DataError, match="couldn't connect") as caught:
        pipeline("training-free", labels=TEXTS)
    said = str(caught.value)
    for place in ("laion/clap-htsat-fused", "openai/clip-vit-large-patch14"):
        assert f"`hf download {place} --revision " in said
    assert said.count("--include '*.safetensors'") == 2


def test_a_revision_of_the_hub_is_asked_for(monkeypatch):
    asked = {}

    def remember(place, **options):
        asked.update(options, place=place)
        raise OSError("stop here")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", remember)
    with pytest.raises(DataError, match="cannot load owner/name@abc"):
        CLIPTeacher("owner/name@abc")
    assert asked == {"place": "owner/name", "revision": "abc"}
