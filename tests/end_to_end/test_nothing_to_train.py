"""A run of a model without parameters: it is scored and saved as it is."""

import json

import numpy as np
import pytest

from avplatform.cli import main
from avplatform.config.compose import parse
from avplatform.config.presets import list_presets
from avplatform.data import open_data
from avplatform.data.simulate.demo import make_demo
from avplatform.models.av_model import AVModel


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Random vectors of the 29 texts, as wide as both streams of the store side by side."""
    file = tmp_path_factory.mktemp("texts") / "texts.npy"
    np.save(file, np.random.default_rng(0).standard_normal((29, 128 + 512)).astype(np.float32))
    return str(file)


def test_a_run_takes_no_step_and_scores_what_is_saved(small_stores, texts, tmp_path, capsys):
    run = tmp_path / "run"
    flags = ["--task", "avel", "--encoder", "identity", "--decoder", "cosine", "--cpu",
             "--task-config.decision", "agreement", "--labels.embeddings", texts]  # fmt: skip
    store = str(small_stores["avel"])
    assert main(["train", *flags, "--data", store, "--output-dir", str(run)]) == 0
    assert "this model has nothing to train; it is scored and saved as it is" in (
        shown := "".join(capsys.readouterr())
    )
    assert "seldom learns" not in shown
    results = json.loads((run / "results.json").read_text())
    assert (results["steps"], results["parameters"]) == (0, 0)
    assert results["selection"]["value"] == results["validation"]["accuracy"]
    model = AVModel.from_pretrained(run)
    assert list(model.state_dict()) == ["label_embeddings"]
    assert model.config.task_config["decision"] == "agreement"
    scores = tmp_path / "scores.json"
    assert main(["eval", str(run), "--split", "test", "--cpu", "--json", str(scores)]) == 0
    assert json.loads(scores.read_text())["test"] == results["test"]


@pytest.mark.parametrize(("task", "events"), [("avel", 28), ("ovavel", 67)])
def test_the_decision_without_a_text_of_background_is_scored_and_answers(
    small_stores, tmp_path, task, events
):
    """The first form of the baseline: both streams agree among the events alone."""
    store = small_stores.get(task)
    if store is None:
        store = tmp_path / "store"
        make_demo(task, store, sizes={"train": 46, "validation": 67, "test": 67})
    spec, texts, run = open_data(store, task=task).spec, tmp_path / "texts.npy", tmp_path / "run"
    width = spec.features.audio_dim + spec.features.visual_dim
    np.save(texts, np.random.default_rng(0).standard_normal((events, width)).astype(np.float32))
    flags = ["--task", task, "--encoder", "identity", "--decoder", "cosine", "--cpu",
             "--task-config.decision", "agreement", "--task-config.label-set", "events",
             "--labels.embeddings", str(texts), "--no-save-plots"]  # fmt: skip
    assert main(["train", *flags, "--data", str(store), "--output-dir", str(run)]) == 0
    config = AVModel.from_pretrained(run).config
    assert len(config.classes) == len(config.label_texts) == events
    scores = tmp_path / "scores.json"
    assert main(["eval", str(run), "--split", "test", "--cpu", "--json", str(scores)]) == 0
    results = json.loads((run / "results.json").read_text())
    assert json.loads(scores.read_text())["test"] == results["test"]


def test_a_bank_needs_no_parameters_but_a_decision_that_reads_it(
    small_stores, texts, tmp_path, capsys
):
    flags = ["--task", "avel", "--encoder", "identity", "--decoder", "cosine", "--cpu",
             "--labels.embeddings", texts, "--data", str(small_stores["avel"])]  # fmt: skip
    for decision, code in (("argmax", 0), ("agreement", 2)):
        run = str(tmp_path / decision)
        given = ["--task-config.decision", decision, "--no-save-plots", "--output-dir", run]
        assert main(["train", *flags, *given]) == 0
        assert main(["bank", run, "--cpu"]) == code
    assert "so a bank would not be read" in capsys.readouterr().err


def test_the_presets_of_the_two_baselines_are_the_published_recipe_and_their_quirks():
    found = {n: parse(["--preset", n]) for n in list_presets() if "cosine-ovavel" in n}
    assert sorted(found) == [
        f"{encoder}-cosine-ovavel{end}"
        for encoder in ("identity", "temporal")
        for end in ("", "-official")
    ]
    for end in ("", "-official"):
        tuned = found[f"temporal-cosine-ovavel{end}"]
        assert (tuned.optim.name, tuned.optim.lr, tuned.optim.clip_norm) == ("adam", 5e-5, 0.8)
        assert (tuned.epochs, tuned.batch_size, tuned.seed) == (10, 32, 123)
        assert tuned.encoder_config.input_scale == (20.0, 1.0)
        assert tuned.decoder_config.temperature == "none"
        assert tuned.decoder_config.rectify == ("product" if end else "each")
        assert tuned.select_on == ("test" if end else "validation")
        free = found[f"identity-cosine-ovavel{end}"].task_config
        assert (free.decision, free.clip_class) == ("agreement", "first" if end else "none")
        assert free.other_hole is bool(end)
        for config in (tuned.task_config, free):
            assert config.equal_scores == ("first" if end else "background")
