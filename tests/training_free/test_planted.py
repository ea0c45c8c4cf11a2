"""With planted embeddings, the events of rendered videos and of stores are found exactly."""

import csv
import json

import numpy as np
import pytest
import torch

pytest.importorskip("av", reason="needs PyAV (pip install avplatform[media])")

from avplatform import evaluate, pipeline
from avplatform.base import processes
from avplatform.base.machine import make_accelerator
from avplatform.cli import main
from avplatform.data import DataSpec, StoreWriter, open_data
from avplatform.evaluation import untrained
from avplatform.evaluation.untrained import training_free_answers
from avplatform.features import backbones
from avplatform.features.extractor import Extractor
from avplatform.models.errors import DataError, UsageError
from avplatform.runs.results import reference_scores, results
from avplatform.timeline.folders import FILES
from avplatform.timeline.pipeline import PipelineConfig
from avplatform.timeline.windows import Features
from avplatform.training_free import model as module
from tests.training_free.planted import (
    BOTH,
    HEARD,
    LABELS,
    NOTHING,
    SECONDS,
    SEEN,
    PlantedCLAP,
    PlantedCLIP,
    vector,
    video,
)


@pytest.fixture(autouse=True)
def planted(monkeypatch):
    for name, kind in (("CLIPTeacher", PlantedCLIP), ("CLAPTeacher", PlantedCLAP)):
        monkeypatch.setattr(backbones, name, kind)
    monkeypatch.setattr(module, "KINDS", {"clip": PlantedCLIP, "clap": PlantedCLAP})


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    return video(tmp_path_factory.mktemp("video") / "street.mp4")


def spans(events, stream):
    found = {}
    for event in events:
        if event["stream"] == stream:
            found.setdefault(event["label"], []).append((event["onset"], event["offset"]))
    return found


def test_the_events_of_a_rendered_video_are_found_exactly(rendered, tmp_path, capsys):
    given = ["predict", rendered, "--model", "training-free", "--labels", ", ".join(LABELS)]
    assert main([*map(str, given), "--out", str(tmp_path / "out"), "--cpu"]) == 0
    folder = tmp_path / "out" / "street"
    assert sorted(file.name for file in folder.iterdir()) == sorted(FILES)
    content = json.loads((folder / "events.json").read_text())
    assert {s: spans(content["events"], s) for s in ("audio", "visual", "av")} == {
        "audio": HEARD,
        "visual": SEEN,
        "av": BOTH,
    }
    assert (content["encoder"], content["decoder"]) == ("clip-clap", "training-free")
    assert content["open_labels"] and content["never_trained_on"] == list(LABELS)
    rows = list(csv.DictReader((folder / "events.csv").open()))
    assert len(rows) == len(content["events"]) and {r["never_trained_on"] for r in rows} == {"true"}
    assert "never trained on</span>" in (folder / "timeline.html").read_text()
    assert "; never trained on: dog barking, siren" in capsys.readouterr().out


def test_the_pipeline_in_python_finds_the_same_and_other_labels_are_not_found(rendered):
    found = pipeline("training-free", labels=["siren", "a cello"])(rendered)
    assert {e.label for e in found.events} == {"siren"}
    times = [(e.onset, e.offset) for e in found.events if e.stream == "av"]
    assert times == [tuple(map(float, span)) for span in BOTH["siren"]]


def test_a_video_longer_than_a_window_is_cut_nowhere():
    parse = pipeline("training-free", labels=list(LABELS))
    kinds = np.full(500, NOTHING)
    kinds[[*range(3, 40), *range(95, 305)]] = 0
    stream = np.stack([vector(kind) for kind in kinds])
    found = parse.parse(Features(audio=stream, visual=stream))
    assert spans([vars(e) for e in found.events], "av") == {"dog barking": [(3, 40), (95, 305)]}


def maps(spans_of, seconds=SECONDS):
    found = np.zeros((seconds, len(LABELS)), np.uint8)
    for number, label in enumerate(LABELS):
        for start, end in spans_of.get(label, []):
            found[start:end, number] = 1
    return found


def embeddings(found):
    """Segment features of event maps in which at most one event is on in a segment."""
    return np.stack([vector(int(row.argmax()) if row.any() else NOTHING) for row in found])


def store(folder, task, **changes):
    """A store of one test clip of planted embeddings, with the labels of its task."""
    heard, seen = maps(HEARD), maps(SEEN)
    if task == "avvp":
        labels = {"dense_audio": heard, "dense_visual": seen, "weak": (heard | seen).max(axis=0)}
        dtype = "uint8"
    else:
        both, dtype = heard & seen, "int64"
        segment = np.where(both.any(axis=1), both.argmax(axis=1), len(LABELS))
        labels = {"segment": segment, "video": np.array(0)}
    features = Extractor("clip-clap").features
    features.extractors |= changes
    spec = DataSpec(
        name="planted",
        task=task,
        classes=[*LABELS, *(["background"] if task == "avel" else [])],
        features=features,
        labels={name: list(values.shape) for name, values in labels.items()},
        label_dtypes=dict.fromkeys(labels, dtype),
        segments=SECONDS,
    )
    with StoreWriter(folder, spec) as writer:
        columns = {"row": np.arange(1), "clip_id": ["street"]}
        columns |= {"audio": embeddings(heard)[None], "visual": embeddings(seen)[None]}
        writer.add("test", columns | {name: values[None] for name, values in labels.items()})
    return folder


@pytest.mark.parametrize(("task", "figure"), [("avvp", "event_Type@AV"), ("avel", "accuracy")])
def test_a_store_of_embeddings_is_scored_by_the_rules_of_its_task(tmp_path, capsys, task, figure):
    data = store(tmp_path / "data", task)
    out = tmp_path / "results.json"
    given = ["eval", "training-free", "--data", data, "--json", out, "--cpu"]
    assert main([*map(str, given)]) == 0
    content = json.loads(out.read_text())
    assert content["test"][figure] == 100.0
    assert content["supervision"] == "none" and content["parameters"] == 0
    assert "clip-clap + training-free" in capsys.readouterr().out
    assert evaluate("training-free", data=str(data), cpu=True)["test"] == content["test"]


class Scored:
    """The metrics of a model that finds nothing."""

    def figures(self):
        return {"event_Type@AV": 1.0}

    def details(self):
        return {"anchors": {"nothing_predicted": {"event_Type@AV": 0.5}}}


def test_it_is_the_first_of_the_answers_beside_a_trained_model(tmp_path, monkeypatch):
    accelerator = make_accelerator(cpu=True, precision="no")
    data, said = open_data(str(store(tmp_path / "data", "avvp")), task="avvp"), []
    place = "huggingface_hub.try_to_load_from_cache"
    monkeypatch.setattr(place, lambda *_, **__: "here")
    found = training_free_answers(data, ["test"], accelerator=accelerator, note=said.append)
    assert found["test"]["training_free"]["event_Type@AV"] == 100.0 and not said
    metric = "event_Type@AV"
    content = results(
        identity={},
        selection=None,
        metrics={"test": Scored()},
        headline={"test": metric},
        answers=found,
    )
    assert list(reference_scores(content, "test")) == ["training_free", "nothing_predicted"]
    assert content["not_beaten"]["test"] == [
        "The model does not beat 'training free': event_Type@AV 1.00 against 100.00."
    ]
    monkeypatch.setattr(place, lambda *_, **__: None)
    assert training_free_answers(data, ["test"], accelerator=accelerator, note=said.append) == {}
    assert len(said) == 1 and said[0].count("`hf download") == 2
    lite = {"version": 1, "name": "lite", "audio": "soundnet8", "visual": "timm:x"}
    other = open_data(str(store(tmp_path / "lite", "avvp", recipe=lite)), task="avvp")
    assert training_free_answers(other, ["test"], accelerator=accelerator, note=said.append) == {}
    assert len(said) == 1


def test_no_process_scores_it_if_another_one_could_not_open_it(tmp_path, monkeypatch):
    """Scoring waits for all processes, so it must not begin on some of them."""
    data, said = open_data(str(store(tmp_path / "data", "avvp")), task="avvp"), []
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: "here")

    class Two:
        """The accelerator of the first of two processes."""

        num_processes, process_index, device = 2, 0, torch.device("cpu")

    def gathered(mine):
        return [*mine, (None, DataError("the other process has no memory"))]

    monkeypatch.setattr(processes, "gather_object", gathered)
    monkeypatch.setattr(untrained, "evaluate", lambda *_, **__: pytest.fail("it was scored"))
    found = training_free_answers(data, ["test"], accelerator=Two(), note=said.append)
    assert found == {} and "the other process has no memory" in said[0]


def test_data_of_other_features_are_refused_with_the_way_to_make_them(tmp_path, capsys):
    lite = {"version": 1, "name": "lite", "audio": "soundnet8", "visual": "timm:x"}
    data = store(tmp_path / "lite", "avvp", recipe=lite)
    assert main(["eval", "training-free", "--data", str(data), "--cpu"]) == 1
    said = capsys.readouterr().err
    assert "holds soundnet8 and timm:x" in said and "--backbones clip-clap --out STORE" in said
    unknown = store(tmp_path / "unknown", "avvp", recipe=None)
    with pytest.raises(DataError, match="features of unknown origin"):
        evaluate("training-free", data=str(unknown), cpu=True)


def test_embeddings_of_other_weights_are_refused(tmp_path):
    weights = {"audio": {"model": "mine", "sha256": "0" * 64}}
    data = store(tmp_path / "data", "avvp", weights=weights)
    with pytest.raises(DataError, match=r"other weights than those of laion.*--weights clap="):
        evaluate("training-free", data=str(data), cpu=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "trained on no data; give --data STORE"),
        ({"data": "demo"}, "give --data STORE"),
        ({"data": "x", "held_out": ("siren",)}, "leave --held-out out"),
        ({"data": "x", "unseen": "present"}, "has no bank; leave --unseen out"),
    ],
)
def test_eval_says_what_it_needs(options, message):
    with pytest.raises(UsageError, match=message):
        evaluate("training-free", cpu=True, **options)


def test_weights_are_refused_for_a_model_that_has_its_own(tmp_path):
    with pytest.raises(UsageError, match="--weights are those of training-free"):
        evaluate(tmp_path, data="demo", weights=("clip=x",), cpu=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": None}, 'say what to look for: --labels "dog barking, siren"'),
        ({"labels": ["dog", "dog"]}, "given twice"),
        ({"labels": ["dog", "background"]}, "means that there is no event"),
        ({"labels": ["dog"], "embeddings": "glove-50d"}, "leave embeddings, window, hop"),
        ({"labels": ["dog"], "config": PipelineConfig(window=10)}, "window, hop and unseen out"),
        ({"labels": ["dog"], "config": PipelineConfig(unseen="plain")}, "hop and unseen out"),
        ({"labels": ["dog"], "recipe": "lite"}, "reads clap and clip: leave --recipe out"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        pipeline("training-free", **options)
