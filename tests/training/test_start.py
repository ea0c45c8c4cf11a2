"""A run that starts from another model: what it takes over, freezes, records and refuses."""

import json
import shutil

import pytest
import torch

from avplatform.cli import main
from avplatform.config.compose import parse
from avplatform.config.run import RunConfig
from avplatform.hub.convert import write_folder
from avplatform.models.av_model import AVModel
from avplatform.training import loop
from tests.training.class_store import FLAGS, OTHERS, make

DECODERS = ("leap", "mmil", "dch")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Stores of 25 and 6 classes, and a run of each decoder on the first."""
    folder = tmp_path_factory.mktemp("start")
    make(folder / "many"), make(folder / "six", OTHERS)
    for decoder in DECODERS:
        assert train(folder, "many", decoder, folder / decoder) == 0
    return folder


def train(place, store, decoder, out, *flags):
    common = ["--decoder", decoder, "--data", str(place / store), "--output-dir", str(out),
              "--checkpointing.keep", "9"]  # fmt: skip
    epochs = [] if "--epochs" in flags or "--dry-run" in flags else ["--epochs", "1"]
    return main([*FLAGS, *common, *epochs, *map(str, flags)])


def weights(run):
    return AVModel.from_pretrained(run / "model").state_dict()


def first_weights(run):
    """Return the weights before the first step, which a run that starts from a model saves."""
    from safetensors.torch import load_file

    return load_file(run / "checkpoints" / "0" / "model.safetensors")


def equal(a, b, *beginnings):
    names = [name for name in a if name.startswith(beginnings)]
    assert names
    return [name for name in names if not torch.equal(a[name], b[name])] == []


@pytest.mark.parametrize("decoder", DECODERS)
def test_other_classes_go_on_from_the_weights_of_a_run(place, decoder, tmp_path, capsys):
    out, source = tmp_path / "run", place / decoder
    assert train(place, "six", decoder, out, "--init-from", source) == 0
    started, own = first_weights(out), weights(source)
    assert equal(started, own, "stem.", "encoder.")
    assert not equal(weights(out), own, "stem.", "encoder."), "the run must train them"
    about = json.loads((out / "results.json").read_text())["init_from"]
    text = capsys.readouterr().out
    assert f"started from {source}: took {about['taken']} of" in text
    if decoder == "leap":
        assert equal(started, own, "decoder.") and about["new"] == about["unused"] == []
    else:
        assert about["new"] and all(name.startswith("decoder.") for name in about["new"])
        for name in about["new"]:
            assert name in text and started[name].shape[0] == len(OTHERS)
    assert AVModel.from_pretrained(out / "model").config.classes == list(OTHERS)


def test_the_same_number_of_other_classes_gets_new_heads(place, tmp_path):
    """Shapes agree then, but the outputs mean other classes."""
    renamed = make(tmp_path / "renamed", [*OTHERS[1:], OTHERS[0]])
    before, out = tmp_path / "before", tmp_path / "run"
    assert train(place, "six", "mmil", before) == 0
    assert train(place, renamed, "mmil", out, "--init-from", before) == 0
    assert "decoder.classifier.weight" in json.loads((out / "start.json").read_text())["new"]
    same = tmp_path / "same"
    assert train(place, "six", "mmil", same, "--init-from", before) == 0
    assert equal(first_weights(same), weights(before), "")


@pytest.mark.parametrize("decoder", ["mmil", "leap"])
def test_a_frozen_encoder_is_equal_after_training(place, decoder, tmp_path, capsys):
    out, source = tmp_path / "run", place / decoder
    flags = ("--init-from", source, "--freeze", "encoder", "--epochs", "2", "--ema", "0.9")
    assert train(place, "six", decoder, out, *flags) == 0
    own, found = weights(source), weights(out)
    assert equal(found, own, "stem.", "encoder.")
    assert not equal(found, first_weights(out), "decoder.")
    frozen = sum(v.numel() for n, v in found.items() if n.startswith(("stem.", "encoder.")))
    assert f"({frozen:,} of them frozen)" in capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    assert results["init_from"]["frozen"] == "encoder"
    texts = ("label_embeddings", "decoder.label_mean")  # nobody trains them
    whole = sum(v.numel() for n, v in found.items() if n not in texts)
    assert results["parameters"] == whole
    card = (out / "model" / "README.md").read_text()
    assert f"| started from | `{source}`" in card and "encoder frozen" in card


def test_what_is_new_may_have_its_own_learning_rate(place, tmp_path):
    """With Adam, the first step of a weight is as large as its learning rate."""
    moved = {}
    for rate in ("1e-3", "1e-1"):
        out = tmp_path / rate
        flags = ("--init-from", place / "mmil", "--optim.head-lr", rate, "--max-steps", "1")
        assert train(place, "six", "mmil", out, *flags, "--optim.lr", "1e-3") == 0
        before, after = first_weights(out), weights(out)
        moved[rate] = {name: (after[name] - before[name]).abs().max().item() for name in after}
    assert moved["1e-1"]["decoder.classifier.weight"] == pytest.approx(0.1, rel=1e-2)
    assert moved["1e-3"]["decoder.classifier.weight"] == pytest.approx(0.001, rel=1e-2)
    assert moved["1e-1"]["stem.audio.weight"] == moved["1e-3"]["stem.audio.weight"]


def test_new_heads_learn_ten_times_as_fast_where_nobody_says_otherwise(place, tmp_path):
    """With Adam, the first step of a weight is as large as its learning rate."""
    out = tmp_path / "run"
    flags = ("--init-from", place / "mmil", "--max-steps", "1", "--optim.lr", "1e-3")
    assert train(place, "six", "mmil", out, *flags) == 0
    before, after = first_weights(out), weights(out)
    moved = {name: (after[name] - before[name]).abs().max().item() for name in after}
    assert moved["decoder.classifier.weight"] == pytest.approx(0.01, rel=1e-2)
    assert moved["encoder.layers.0.norm1.weight"] == pytest.approx(0.001, rel=1e-2)


@pytest.mark.parametrize("decoder", ["mmil", "leap"])
def test_weight_matrices_may_begin_smaller(place, decoder, tmp_path, capsys):
    out, source = tmp_path / "run", place / decoder
    flags = ("--init-from", source, "--init-scale", "0.5")
    assert train(place, "six", decoder, out, *flags) == 0
    started, own = first_weights(out), weights(source)
    taken = json.loads((out / "start.json").read_text())["taken"]
    matrices = [name for name in taken if own[name].ndim > 1]
    assert 0 < len(matrices) < len(taken)
    for name in taken:
        expected = own[name] / 2 if name in matrices else own[name]
        assert torch.equal(started[name], expected), name
    assert "begin at 0.5 of their values" in capsys.readouterr().out
    assert json.loads((out / "results.json").read_text())["init_from"]["scale"] == 0.5
    assert "matrices begin at 0.5" in (out / "model" / "README.md").read_text()


def test_a_resumed_run_has_its_own_weights_and_needs_the_source_no_more(
    place, tmp_path, monkeypatch
):
    source = tmp_path / "source"
    shutil.copytree(place / "mmil" / "model", source)
    flags = ["--init-from", source, "--freeze", "encoder", "--optim.head-lr", "0.01"]
    flags += ["--epochs", "2", "--checkpointing.every", "1"]
    assert train(place, "six", "mmil", tmp_path / "whole", *flags) == 0
    real = loop.save_state
    for stop in (0, 4):  # before the first step, and in the second epoch
        out = tmp_path / f"stopped{stop}"

        def dying(setup, progress, stop=stop):
            real(setup, progress)
            if progress.step == stop:
                raise KeyboardInterrupt

        monkeypatch.setattr(loop, "save_state", dying)
        assert train(place, "six", "mmil", out, *flags) == 130
        monkeypatch.setattr(loop, "save_state", real)
    shutil.rmtree(source)
    for stop in (0, 4):
        out = tmp_path / f"stopped{stop}"
        assert main(["train", "--resume", str(out)]) == 0
        assert equal(weights(out), weights(tmp_path / "whole"), "")
        assert (out / "start.json").read_text() == (tmp_path / "whole/start.json").read_text()
        assert json.loads((out / "results.json").read_text())["init_from"]["taken"] == 20


def test_a_run_without_a_whole_checkpoint_does_not_go_on_from_random_weights(
    place, tmp_path, capsys
):
    out = tmp_path / "run"
    assert train(place, "six", "mmil", out, "--init-from", place / "mmil") == 0
    (out / "results.json").unlink()
    for file in out.glob("checkpoints/[0-9]*/model.safetensors"):
        file.write_bytes(b"")
    assert main(["train", "--resume", str(out)]) == 1
    assert "no checkpoint" in capsys.readouterr().err


def test_a_dry_run_says_what_would_be_taken_over(place, tmp_path, capsys):
    flags = ("--init-from", place / "leap", "--freeze", "encoder", "--dry-run")
    assert train(place, "six", "mmil", tmp_path / "run", *flags) == 0
    text = capsys.readouterr().out
    assert "took 20 of 26 tensors" in text and "decoder leap there, mmil here" in text
    assert "of them frozen" in text and not (tmp_path / "run").exists()


def test_options_in_which_the_models_differ_are_named(place, tmp_path, capsys):
    flags = ("--init-from", place / "mmil", "--encoder-config.heads", "2")
    assert train(place, "six", "mmil", tmp_path / "run", *flags) == 0
    assert "encoder_config.heads 1 there, 2 here" in capsys.readouterr().out


def test_the_configuration_says_where_a_run_started(place, tmp_path):
    out = tmp_path / "run"
    assert train(place, "six", "mmil", out, "--init-from", place / "mmil") == 0
    assert parse(["--config", str(out)]).init_from == str(place / "mmil")
    assert {"init_from", "freeze"} <= set(RunConfig.__dataclass_fields__)


def test_a_converted_model_serves_as_a_start(place, tmp_path):
    """Such a folder holds weights, a config and a card, and computes in the published order."""
    model = AVModel.from_pretrained(place / "mmil" / "model")
    model.config.reference_order = True
    write_folder(model, "a card", tmp_path / "converted")
    out = tmp_path / "run"
    assert train(place, "six", "mmil", out, "--init-from", tmp_path / "converted") == 0
    assert equal(first_weights(out), model.state_dict(), "stem.", "encoder.")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--init-from", "{place}/nothing"], "no model folder {place}/nothing; give a run folder"),
        (["--init-from", "{place}/six"], "has no config.json"),
        (["--init-from", "{place}/wide"], "audio_dim=9"),
        (["--init-from", "{place}/mmil", "--encoder-config.width", "24"], "width 16 there, 24"),
        (["--freeze", "encoder"], "give --init-from"),
        (["--optim.head-lr", "0.1"], "give --init-from"),
        (["--init-from", "{place}/leap", "--optim.head-lr", "-1"], "positive number"),
        (["--init-scale", "0.5"], "give --init-from"),
        (["--init-from", "{place}/leap", "--init-scale", "0"], "lie between 0"),
        (["--init-from", "{place}/leap", "--init-scale", "nan"], "lie between 0"),
        (["--init-from", "{place}/leap", "--init-scale", "0.5", "--freeze", "encoder"],
         "leave one of them out"),
        (["--init-from", "{place}/mmil", "--freeze", "encoder", "--encoder", "mmpyr"],
         "would stay random"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_start_is_refused_with_the_remedy(place, flags, message, tmp_path, capsys):
    if not (place / "wide").exists():
        make(place / "wide_store", audio=9)
        assert train(place, "wide_store", "mmil", place / "wide") == 0
    flags = [flag.format(place=place) for flag in flags]
    out = tmp_path / "run"
    assert train(place, "six", "mmil", out, *flags) in (1, 2)
    assert message.format(place=place) in capsys.readouterr().err
    assert not out.exists(), "a run that cannot start writes nothing"


def test_a_rate_for_what_is_new_is_refused_where_nothing_is(place, tmp_path, capsys):
    flags = ("--init-from", place / "leap", "--optim.head-lr", "0.1")
    assert train(place, "six", "leap", tmp_path / "run", *flags) == 2
    assert "everything was taken over" in capsys.readouterr().err


def test_an_unfinished_run_is_no_start(place, tmp_path, capsys):
    shutil.copytree(place / "mmil", tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "model")
    assert train(place, "six", "mmil", tmp_path / "r", "--init-from", tmp_path / "half") == 1
    assert "it did not finish" in capsys.readouterr().err
