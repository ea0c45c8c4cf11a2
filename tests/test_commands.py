"""The smaller commands: list, data simulate, eval's refusals."""

import json

import pytest

from avplatform.cli import main
from avplatform.data.store.schema import Manifest
from tests.models.cells import build
from tests.posix import needs_posix
from tests.tasks.test_avvp import write_llp


def test_list_filters_and_refuses_what_is_in_no_name(capsys):
    assert main(["list", "leap"]) == 0
    text = capsys.readouterr().out
    assert "han-leap-avvp-paper" in text and "mmil" not in text
    assert main(["list", "nonsense"]) == 2
    assert "has 'nonsense' in its name" in capsys.readouterr().err
    assert main(["list", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {
        "cells",
        "tasks",
        "encoders",
        "decoders",
        "datasets",
        "presets",
    }


def test_simulate_writes_a_store_with_a_card(tmp_path, capsys):
    source = tmp_path / "llp"
    source.mkdir()
    write_llp(source)
    flags = ["data", "simulate", "--task", "avvp", "--annotations", str(source), "--out"]
    assert main([*flags, str(tmp_path / "out"), "--limit", "1"]) == 0
    shown = capsys.readouterr().out
    checksum = Manifest.read(tmp_path / "out").checksum
    assert checksum in shown and "synthetic features, train 1, validation 1, test 1" in shown
    assert "Synthetic features" in (tmp_path / "out" / "README.md").read_text()
    assert main([*flags, str(tmp_path / "out")]) == 2
    assert main([*flags, str(tmp_path / "official"), "--layout", "official"]) == 0
    assert (tmp_path / "official" / "feats" / "vggish" / "aaaaaaaaaaa.npy").exists()
    assert (
        main(
            [
                "data",
                "simulate",
                "--task",
                "avvp",
                "--annotations",
                str(tmp_path),
                "--out",
                str(tmp_path / "x"),
            ]
        )
        == 1
    )
    assert main(["data", "nonsense"]) == 2


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--split", "tset"], 2, "no split 'tset'; did you mean 'test'"),
        (["--data", "nothing"], 1, "no data folder nothing"),
        ([], 2, "give --data"),
    ],
)
def test_eval_refuses_with_the_remedy(small_stores, tmp_path, capsys, flags, code, message):
    build("avel", "ave", "leap").save_pretrained(tmp_path / "model")
    data = [] if "--data" in flags or not flags else ["--data", str(small_stores["avel"])]
    assert main(["eval", str(tmp_path / "model"), *flags, *data]) == code
    assert message in capsys.readouterr().err


def test_eval_refuses_data_with_other_features(small_stores, tmp_path, capsys):
    build("avel", "ave", "leap").save_pretrained(tmp_path / "model")
    assert main(["eval", str(tmp_path / "model"), "--data", str(small_stores["avel"])]) == 1
    assert "the model reads" in capsys.readouterr().err
    assert main(["eval", str(tmp_path / "nothing"), "--data", str(small_stores["avel"])]) == 1
    assert "no model folder" in capsys.readouterr().err


def test_a_run_that_does_not_exist_is_said_not_to(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["eval", "./runs/nothing", "--cpu"]) == 2
    assert "runs/nothing does not exist" in capsys.readouterr().err

    def unreachable(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("avplatform.hub.folder.snapshot_download", unreachable)
    assert main(["eval", "runs/nothing", "--cpu"]) == 1
    assert "no model folder runs/nothing, and it cannot be fetched" in capsys.readouterr().err


@needs_posix
def test_a_mistyped_folder_is_said_not_to_exist_and_the_hub_is_not_asked(
    small_stores, tmp_path, monkeypatch, capsys
):
    def asked(*args, **kwargs):
        pytest.fail("the Hub was asked")

    for place in ("huggingface_hub.snapshot_download", "avplatform.hub.folder.snapshot_download",
                  "avplatform.models.av_model.hf_hub_download"):  # fmt: skip
        monkeypatch.setattr(place, asked)
    monkeypatch.chdir(tmp_path)
    build("avel", "ave", "leap").save_pretrained(tmp_path / "runs" / "base")
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / "dogs").symlink_to(small_stores["avel"])
    for model, data, wanted in (
        ("runs/bsae", "stores/dogs", "no model folder runs/bsae; did you mean 'runs/base'?"),
        ("rnus/base/x", "stores/dogs", "no model folder rnus/base/x; did you mean 'runs'?"),
        ("./bsae", "stores/dogs", "no model folder ./bsae; give a run folder"),
        ("runs/base", "stores/dgos", "no data folder stores/dgos; did you mean 'stores/dogs'?"),
        ("runs/base", "store", "no data folder store; did you mean 'stores'?"),
    ):
        assert main(["eval", model, "--data", data, "--cpu"]) == 1
        assert wanted in " ".join(capsys.readouterr().err.split())
    for given in (["predict", "x.mp4", "--model", "runs/bsae", "--out", "out"],
                  ["train", "--data", "stores/dgos", "--task", "avel"]):  # fmt: skip
        (tmp_path / "x.mp4").write_bytes(b"")
        assert main(given) != 0
        assert "did you mean" in capsys.readouterr().err
    with pytest.raises(pytest.fail.Exception, match="the Hub was asked"):
        main(["eval", "owner/name", "--data", "stores/dogs", "--cpu"])  # may be on the Hub


def test_of_many_names_an_error_lists_the_nearest_three(capsys):
    assert main(["train", "--preset", "han-mmil-avvq"]) == 2
    said = capsys.readouterr().err
    assert "did you mean 'han-mmil-avvp'?" in said and "(nearest of " in said
    assert said.split(": ")[-1].count(",") == 2
