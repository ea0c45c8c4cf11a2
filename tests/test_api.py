"""The public names: what Python code of others imports from `avplatform`."""

import json

import pytest
import torch
from safetensors.torch import load_file

import avplatform
from avplatform import AVModel, create_model, evaluate, list_models, train
from avplatform.catalogue.cells import cells, find_cell, model_names
from avplatform.cli import main
from avplatform.config.compose import parse
from avplatform.config.presets import list_presets
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import DataError, UsageError

NAME = "avel-ave-leap-weak"
SHORT = {"max_steps": 2, "cpu": True, "save_plots": False}


@pytest.fixture(scope="module")
def run(small_stores, tmp_path_factory):
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("api") / "run"
    return train(NAME, data=str(small_stores["avel"]), output_dir=str(out), threads=1, **SHORT)


def test_every_public_name_is_there_and_listed():
    assert set(dir(avplatform)) == set(avplatform.__all__)
    for name in avplatform.__all__:
        assert getattr(avplatform, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = avplatform.nothing


def test_models_are_listed_by_pattern():
    everything = list_models()
    assert everything == sorted(set(everything)) and "mmpyr-leap.avvp" in list_models("*leap*")
    assert all("leap" in name for name in list_models("*leap*"))
    official = [name for name in list_presets() if name.endswith("-official")]
    assert [name.replace(".", "-") for name in list_models("*-official")] == official
    assert list_models("nothing*") == []


def test_every_cell_and_preset_has_one_name_of_a_model():
    found = model_names()
    named = set(found.values())
    assert len(named) == len(found) and set(list_presets()) < named
    assert all({cell.name, *cell.presets} & named for cell in cells())
    presets = set(list_presets())
    assert all(v == k.replace(".", "-") for k, v in found.items() if v in presets)
    assert found["bps-mmil.avvp-weak"] == "bps-mmil-avvp-weak"
    assert find_cell("mmpyr-leap.avvp").name == "avvp-mmpyr-leap-pseudo"


def test_the_name_of_a_model_means_its_preset(capsys):
    model = create_model("psp-dch.avel-weak-official")
    assert model.config.to_dict() == create_model("psp-dch-avel-weak-official").config.to_dict()
    assert model.config.task_config["supervision"] == "weak"
    assert main(["info", "psp-dch.avel-weak-official", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["kind"], shown["name"]) == ("preset", "psp-dch-avel-weak-official")


def test_trained_weights_are_loaded_into_the_model_of_their_name_only(run):
    model = create_model("ave-leap.avel", pretrained=run.folder)
    own = AVModel.from_pretrained(run.folder).state_dict()
    assert not model.training
    assert all(torch.equal(own[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["avel-ave-dch-full", "avvp/han/mmil/weak", "ave-dch.avel-weak"])
def test_a_fresh_model_is_decided_by_its_name_and_the_seed(name):
    models = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        models.append(create_model(name))
    first, again, other = (model.state_dict() for model in models)
    assert models[0].training
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    assert name.split("-")[-1].split("/")[-1] == models[0].config.task_config["supervision"]


def test_a_fresh_model_takes_options_and_features(small_stores):
    model = create_model("avvp-han-mmil-pseudo", encoder_config={"width": 16, "heads": 2})
    assert model.config.encoder.width == 16
    spec = FeatureSpec(audio_dim=5, visual_dim=6, map_size=(2, 2))
    assert create_model("avel-ave-dch-full", features=spec).config.features == spec
    model = create_model(NAME, data=str(small_stores["avel"]))
    assert model(torch.zeros(1, 10, 128), torch.zeros(1, 10, 7, 7, 512)).parse is not None


def test_training_from_python_gives_the_commands_bits(run, small_stores, tmp_path):
    out = tmp_path / "command"
    flags = [
        "--task",
        "avel",
        "--supervision",
        "weak",
        "--max-steps",
        "2",
        "--cpu",
        "--threads",
        "1",
    ]
    data = ["--data", str(small_stores["avel"]), "--output-dir", str(out), "--no-save-plots"]
    assert main(["train", *flags, *data]) == 0
    ours, theirs = (load_file(f / "model" / "model.safetensors") for f in (run.folder, out))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert run.results == json.loads((run.folder / "results.json").read_text())


def test_a_run_a_folder_and_a_model_score_alike(run, small_stores, capsys):
    data = str(small_stores["avel"])
    for model in (run, run.folder, str(run.folder / "model"), create_model(run.folder)):
        given = {"data": data} if isinstance(model, AVModel) else {}
        assert evaluate(model, cpu=True, **given)["test"] == run.results["test"]
    assert capsys.readouterr().out == ""
    assert not create_model(run.folder).training


def test_a_finished_run_is_not_trained_again(run):
    again = train(resume=str(run.folder))
    assert (again.folder, again.results) == (run.folder, run.results)


def test_a_whole_configuration_trains(run, small_stores, tmp_path):
    config = parse(["--config", str(run.folder)])
    other = train(config, output_dir=str(tmp_path / "other"))
    assert other.results["test"] == run.results["test"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: create_model("avel-ave-leep-full"), "did you mean 'avel-ave-leap-full'"),
        (lambda run: create_model(NAME, encoder_confg={}), "did you mean 'encoder_config'"),
        (lambda run: create_model("mmpyr-leep.avvp"), "did you mean 'mmpyr-leap.avvp'"),
        (lambda run: create_model("ave-leap.avel", pretrained=True), "no weights of ave-leap.avel"),
        (
            lambda run: create_model("psp-leap.avel", pretrained=run.folder),
            r"holds ave \+ leap for avel, which is not psp-leap.avel",
        ),
        (lambda run: create_model(run.folder, pretrained=True), "leave pretrained out"),
        (
            lambda run: create_model("ave-leap.avel", pretrained=run.folder, epochs=2),
            "leave out epochs",
        ),
        (lambda run: create_model("ave-leap.avel", revision="main"), "leave it out"),
        (lambda run: create_model(run.folder, revision="main"), "leave revision out"),
        (lambda run: create_model(run.folder, seed=2), "leave out seed"),
        (lambda run: train(NAME, dry_run=True), "leave it out"),
        (lambda run: train(NAME, max_step=2), "did you mean 'max_steps'"),
        (lambda run: train(resume=str(run.folder), seed=5), "cannot change"),
        (lambda run: train(resume=str(run.folder), epochs=99), "cannot be made longer"),
        (lambda run: evaluate(run, spilt="test"), "did you mean 'split'"),
        (lambda run: evaluate(create_model(NAME)), "give --data"),
    ],
)
def test_what_is_wrong_is_refused_with_the_remedy(run, call, message):
    with pytest.raises(UsageError, match=message):
        call(run)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="nothing"):
        create_model(tmp_path / "nothing")
