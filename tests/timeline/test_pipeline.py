"""From a media file to a timeline: any duration, absent streams, labels, and what does not fit."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from avplatform.models.errors import DataError, UsageError
from avplatform.timeline import pipeline as module
from avplatform.timeline.pipeline import PipelineConfig, pipeline, read_features
from avplatform.timeline.windows import Features
from tests.models.cells import FEATURES, build, cell


@dataclass
class Clip:
    audio: np.ndarray
    visual: np.ndarray
    motion: np.ndarray | None
    has_audio: bool = True
    has_video: bool = True


class FakeExtractor:
    """Features of which every second is its number in the file; remembers what was asked for."""

    def __init__(self, seconds, task="avvp", *, audio=True, video=True):
        self.seconds, self.spec, self.audio, self.video, self.asked = (
            seconds,
            FEATURES[task],
            audio,
            video,
            [],
        )

    def clip(self, path, start=0.0, seconds=None):
        self.asked.append((start, seconds))
        end = self.seconds if seconds is None else start + seconds
        numbers = np.arange(start, end, dtype=np.float32)
        fill = lambda *shape: np.broadcast_to(  # noqa: E731
            numbers.reshape(-1, *[1] * len(shape)), (len(numbers), *shape)
        ).copy()
        return Clip(
            fill(self.spec.audio_dim),
            fill(*(self.spec.map_size or ()), self.spec.visual_dim),
            None if self.spec.motion_dim is None else fill(self.spec.motion_dim),
            self.audio,
            self.video,
        )


def noise(task="avvp", seconds=12, seed=0):
    spec, generator = FEATURES[task], np.random.default_rng(seed)
    draw = lambda *shape: generator.normal(size=(seconds, *shape)).astype(np.float32)  # noqa: E731
    motion = None if spec.motion_dim is None else draw(spec.motion_dim)
    return Features(
        audio=draw(spec.audio_dim),
        visual=draw(*(spec.map_size or ()), spec.visual_dim),
        motion=motion,
    )


@pytest.mark.parametrize(
    ("seconds", "calls"), [(0.4, 1), (59, 1), (60, 1), (119.9, 1), (120, 2), (185.5, 3)]
)
def test_features_come_a_minute_at_a_time_and_every_second_once(seconds, calls):
    extractor = FakeExtractor(max(1, round(seconds)))
    shares = []
    found, _ = read_features(extractor, "x.mp4", duration=seconds, on_progress=shares.append)
    assert len(extractor.asked) == calls and extractor.asked[-1][1] is None
    assert found.audio[:, 0].tolist() == list(range(max(1, round(seconds))))
    assert shares == sorted(shares) and shares[-1] == 1


def test_a_file_without_sound_gets_no_audio_events_and_says_so():
    parse = pipeline(
        build("avvp", "han", "leap"),
        extractor=FakeExtractor(5),
        config=PipelineConfig(threshold=0.0),
    )
    both = parse.parse(noise(), video="x.mp4")
    assert {e.stream for e in both.events} == {"audio", "visual", "av"} and not both.notes
    silent = parse.parse(noise(), present={"audio": False, "visual": True}, video="x.mp4")
    assert {e.stream for e in silent.events} == {"visual"}
    assert "no sound" in silent.notes[0] and "audio and av events" in silent.notes[0]
    assert not silent.scores["audio"].any() and list(silent.attention) == ["visual"]
    blind = parse.parse(noise(), present={"audio": True, "visual": False}, video="x.mp4")
    assert {e.stream for e in blind.events} == {"audio"} and "no pictures" in blind.notes[0]


def test_an_absent_stream_is_zeros_to_the_model():
    found, present = read_features(FakeExtractor(3, audio=False), "x.mp4", duration=3)
    assert (
        not found.audio.any() and found.visual.any() and present == {"audio": False, "visual": True}
    )
    with pytest.raises(DataError, match="neither sound nor pictures"):
        read_features(FakeExtractor(3, audio=False, video=False), "x.mp4", duration=3)


def test_event_localization_gives_one_audio_visual_track():
    found = pipeline(build("avel", "ave", "leap"), extractor=FakeExtractor(5, "avel")).parse(
        noise("avel"), duration=11.7
    )
    assert found.streams == ["av"] and "background" not in found.labels and len(found.labels) == 28
    assert all(e.offset <= 11.7 for e in found.events)


@pytest.mark.parametrize("task", ["avvp", "avel"])
def test_labels_that_were_never_trained_on_are_parsed_by_their_texts(task):
    model = build(task, "han", "leap")
    texts = ["fiddle", "dog", "train horn"]
    parse = pipeline(model, labels=texts, extractor=FakeExtractor(5, task))
    found = parse.parse(noise(task))
    assert found.labels == texts and found.open_labels and "given by the user" in found.notes[0]
    assert all(values.shape == (12, 3) for values in found.scores.values())
    # The same texts among the model's own give the same scores: labels do not see each other.
    whole = pipeline(model, extractor=FakeExtractor(5, task)).parse(noise(task))
    if task == "avvp":
        dog = whole.labels.index("Dog")
        np.testing.assert_allclose(
            found.scores["audio"][:, 1], whole.scores["audio"][:, dog], atol=1e-5
        )


@pytest.mark.parametrize(
    ("decoder", "why"), [("mmil", "one weight vector per class"), ("dch", "one output per class")]
)
def test_mmil_and_dch_refuse_other_labels_with_the_reason(decoder, why):
    with pytest.raises(UsageError, match=why):
        pipeline(build("avvp", "han", decoder), labels=["dog"], extractor=FakeExtractor(5))


@pytest.mark.parametrize(
    ("labels", "message"),
    [([], "at least one label"), (["dog", "dog"], "given twice"), (["  "], "no empty one")],
)
def test_bad_labels_are_refused(labels, message):
    with pytest.raises(UsageError, match=message):
        pipeline(build("avvp", "han", "leap"), labels=labels, extractor=FakeExtractor(5))


def test_labels_with_one_embedding_or_an_unknown_word_are_refused():
    model = build("avvp", "han", "leap")
    with pytest.raises(DataError, match="cannot be told apart"):
        pipeline(model, labels=["baby cry", "cry, baby"], extractor=FakeExtractor(5))
    with pytest.raises(DataError, match="no vector for 'xylophone'"):
        pipeline(model, labels=["xylophone"], extractor=FakeExtractor(5))


def test_another_source_of_embeddings_than_the_models_is_refused(tmp_path):
    from avplatform.models.texts.files import LabelEmbeddings, write_label_file
    from avplatform.models.texts.glove import glove_embedder

    model = build("avvp", "han", "leap")
    texts = [*model.config.label_texts, "a b"]
    values = torch.cat([glove_embedder()(model.config.label_texts), torch.ones(1, 50)])
    write_label_file(tmp_path / "same.safetensors", LabelEmbeddings(values, texts, {}))
    write_label_file(tmp_path / "other.safetensors", LabelEmbeddings(values.flip(1), texts, {}))
    same = pipeline(
        model,
        labels=["a b"],
        embeddings=str(tmp_path / "same.safetensors"),
        extractor=FakeExtractor(5),
    )
    assert same.labels == ["a b"]
    with pytest.raises(UsageError, match="embeds the model's own label texts differently"):
        pipeline(
            model,
            labels=["a b"],
            embeddings=str(tmp_path / "other.safetensors"),
            extractor=FakeExtractor(5),
        )


@pytest.mark.parametrize(
    ("labels", "advice"),
    [(["siren"], "try a lower threshold"), (None, "A lower threshold shows weaker events.")],
)
def test_labels_that_do_not_reach_the_threshold_come_with_advice(labels, advice):
    config = PipelineConfig(threshold=1.0)
    found = pipeline(
        build("avvp", "han", "leap"), labels=labels, extractor=FakeExtractor(5), config=config
    ).parse(noise())
    assert not found.events and advice in found.notes[-1]
    highest = max(values.max() for values in found.scores.values())
    assert f"{highest:.2g}" in found.notes[-1]


def test_a_model_with_learned_labels_refuses_others():
    model = build("avvp", "han", "leap")
    model.config.learned_labels = True
    with pytest.raises(UsageError, match="were learned with it"):
        pipeline(model, labels=["dog"], extractor=FakeExtractor(5))


def test_a_lower_threshold_finds_more_and_avel_has_none():
    model = build("avvp", "han", "leap")
    counts = [
        sum(
            v.sum()
            for v in pipeline(model, extractor=FakeExtractor(5), config=PipelineConfig(threshold=t))
            .parse(noise())
            .found.values()
        )
        for t in (0.0, 0.5, 1.0)
    ]
    assert counts[0] == 12 * 25 * 3 and counts[0] > counts[1] >= counts[2] == 0
    with pytest.raises(UsageError, match="has none"):
        pipeline(
            build("avel", "ave", "leap"),
            extractor=FakeExtractor(5),
            config=PipelineConfig(threshold=0.1),
        )


@pytest.mark.parametrize(
    "options", [{"window": 0}, {"hop": 0}, {"threshold": 1.5}, {"batch_size": 0}]
)
def test_impossible_options_are_refused(options):
    with pytest.raises(UsageError):
        PipelineConfig(**options)


@pytest.mark.parametrize("options", [{"hop": 11}, {"hop": 8, "window": 7}])
def test_windows_that_leave_gaps_are_refused_for_a_model(options):
    model = build("avvp", "han", "leap")
    with pytest.raises(UsageError, match="leaves gaps"):
        pipeline(model, extractor=FakeExtractor(5), config=PipelineConfig(**options))


def test_a_model_that_does_not_say_what_it_reads_needs_a_recipe():
    with pytest.raises(UsageError, match="does not say how its features were extracted"):
        pipeline(build("avvp", "han", "leap"))


def test_features_of_another_size_are_refused():
    made = cell("avvp", "han", "leap").model
    short = noise()
    with pytest.raises(
        UsageError,
        match="reads audio 6, visual 8, motion 4 per segment, but the features are audio 3",
    ):
        module.check_fits(
            made, Features(audio=short.audio[:, :3], visual=short.visual, motion=short.motion)
        )


def test_a_model_trained_without_classes_knows_only_the_others():
    made = cell("avvp", "han", "leap")
    config = made.model.config
    kept = [n for n, name in enumerate(config.classes) if name != "Dog"]
    from avplatform.models.av_model import AVModel

    config.classes = [config.classes[n] for n in kept]
    config.label_texts = [config.label_texts[n] for n in kept]
    model = AVModel(config, label_embeddings=made.model.label_embeddings[kept])
    found = pipeline(model, extractor=FakeExtractor(5)).parse(noise())
    assert "Dog" not in found.labels and found.scores["audio"].shape == (12, 24)
