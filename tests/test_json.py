"""Every command that reads can print JSON, and then nothing else; one list of models and runs."""

import io
import json
import os
import shutil
import sys

import pytest

from avplatform.base.utf8 import print_json
from avplatform.cli import COMMANDS, main
from avplatform.commands.data import COMMANDS as DATA_COMMANDS
from avplatform.commands.models import list_fetched
from avplatform.commands.runs import list_runs
from tests.models.cells import build
from tests.pseudo_labels.test_score import dense_folder

HEADER = "video,onset,offset,label,stream\n"
TRAIN = ["train", "--task", "avvp", "--decoder", "mmil", "--batch-size", "8", "--max-steps", "2"]
TRAIN += ["--encoder-config.width", "16", "--encoder-config.hidden", "16", "--cpu", "--threads"]
TRAIN += ["1", "--precision", "no", "--no-save-plots"]
READING = {
    "list": ["list", "cells"],
    "info": ["info", "runs/one"],
    "doctor": ["doctor"],
    "eval": ["eval", "runs/one", "--cpu", "--threads", "1"],
    "score": ["score", "true.csv", "--truth", "true.csv"],
    "compare": ["compare", "runs/one", "runs/two", "--bootstrap", "40"],
    "embed-labels": ["embed-labels", "violin,dog,siren"],
    "runs": ["runs", "ls"],
    "models": ["models", "ls", "runs"],
    "data verify": ["data", "verify", "store"],
    "data card": ["data", "card", "store"],
    "pseudo-label": ["pseudo-label", "score", "labels", "--annotations", "llp"],
}
"""Commands that read, with arguments in the folder below; `pseudo-label` has one that does."""
MISTAKEN = {
    "list": ["list", "nonsense"],
    "info": ["info", "nonsense"],
    "eval": ["eval", "nonsense"],
    "score": ["score", "no.csv", "--truth", "no.csv"],
    "compare": ["compare", "no", "other"],
    "embed-labels": ["embed-labels", "violin,dog", "--embeddings", "nonsense"],
    "runs": ["runs", "ls", "nonsense"],
    "models": ["models", "ls", "nonsense"],
    "data verify": ["data", "verify", "nonsense"],
    "data card": ["data", "card", "nonsense"],
    "pseudo-label": ["pseudo-label", "score", "nonsense", "--annotations", "no"],
}
"""The same with a mistake; `doctor` has nothing to mistake."""
WRITING = {
    *("train", "sweep", "reproduce", "predict", "extract", "bank", "convert", "push", "collection"),
    "export",
    *("board", "demo"),  # show a page until Ctrl-C
    "space",
    *("data import", "data simulate", "data push"),
}
"""Commands whose work is to write files or to push them."""


@pytest.fixture(scope="module")
def folder(small_stores, tmp_path_factory):
    """Return a folder with two finished runs, an unfinished and a broken one, and other inputs."""
    folder = tmp_path_factory.mktemp("places")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copytree(small_stores["avvp"], folder / "store")
        for seed, name in enumerate(("one", "two")):
            flags = ["--data", "store", "--seed", str(seed), "--output-dir", f"runs/{name}"]
            assert main([*TRAIN, *flags]) == 0
        (folder / "runs" / "deep" / "three").mkdir(parents=True)
        config = (folder / "runs" / "one" / "config.yaml").read_text(encoding="utf-8")
        (folder / "runs" / "deep" / "three" / "config.yaml").write_text(config, encoding="utf-8")
        (folder / "runs" / "bad").mkdir()
        (folder / "runs" / "bad" / "config.yaml").write_text("task: [", encoding="utf-8")
        (folder / "true.csv").write_text(f"{HEADER}one,0,2,dog,audio\n", encoding="utf-8")
        dense_folder(folder)
    return folder


def strictly(text):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("name", READING)
def test_a_command_that_reads_prints_json_and_nothing_else(folder, monkeypatch, capfd, name):
    monkeypatch.chdir(folder)
    code = main([*READING[name], "--json"])
    printed = capfd.readouterr()
    assert printed.out, printed.err
    found = strictly(printed.out)
    assert found and (code == 0 or name == "doctor")


@pytest.mark.parametrize("name", MISTAKEN)
def test_an_error_leaves_standard_output_empty(tmp_path, monkeypatch, capfd, name):
    monkeypatch.chdir(tmp_path)
    assert main([*MISTAKEN[name], "--json"]) in (1, 2)
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ")


def test_every_command_reads_or_writes():
    known = {*COMMANDS, *(f"data {name}" for name in DATA_COMMANDS)} - {"data"}
    assert known == {*READING, *WRITING} and not {*READING} & WRITING
    assert {*MISTAKEN} == {*READING} - {"doctor"}


def test_json_with_a_name_writes_the_file_and_prints_the_table(
    folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(folder)
    assert (
        main(["score", "true.csv", "--truth", "true.csv", "--json", str(tmp_path / "f.json")]) == 0
    )
    assert "1 videos" in capsys.readouterr().out
    assert strictly((tmp_path / "f.json").read_text(encoding="utf-8"))["videos"] == 1


def test_json_before_a_folder_is_refused_with_the_remedy(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["eval", "--json", "runs/one", "--cpu"]) == 2
    assert "put --json last" in " ".join(capsys.readouterr().err.split())
    assert main(["eval", "runs/one", "--json", "--cpu"]) == 0
    assert strictly(capsys.readouterr().out)["task"] == "avvp"


def test_json_is_ascii_where_the_output_is_not_utf8(capsys, monkeypatch, tmp_path):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    print_json({"name": "\U0001f600 é"})
    sys.stdout.flush()
    assert json.loads(raw.getvalue().decode("ascii")) == {"name": "\U0001f600 é"}


def test_runs_are_listed_with_cell_state_figure_date_and_size(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    rows = {row["name"]: row for row in list_runs("runs")}
    assert set(rows) == {"one", "two", os.path.join("deep", "three"), "bad"}
    results = strictly((folder / "runs" / "one" / "results.json").read_text(encoding="utf-8"))
    one = rows["one"]
    assert (one["cell"], one["state"], one["steps"]) == ("avvp-han-mmil-pseudo", "finished", 2)
    assert one["figure"] == results["test"][one["metric"]] and one["synthetic"] is True
    assert one["metric"] == "segment_Type@AV" and one["size"] > 10_000
    assert rows[os.path.join("deep", "three")]["state"] == "unfinished"
    assert rows["bad"]["state"] == "unreadable" and "config.yaml" in rows["bad"]["problem"]
    assert main(["runs", "ls"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"segment_Type@AV {one['figure']:.1f}" in shown and "(SYNTHETIC)" in shown
    assert main(["runs", "list"]) == 2 and main(["runs", "ls", "rusn"]) == 1
    assert "did you mean 'runs'?" in capsys.readouterr().err


def test_models_of_a_folder_and_of_the_hubs_cache_are_listed(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["models", "ls", "runs"]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) == 3 and os.path.join("one", "model") in shown
    # A cache as the Hub's library lays it out; another library's model beside ours.
    for name in ("ours", "theirs"):
        place = tmp_path / f"models--owner--{name}"
        (place / "refs").mkdir(parents=True)
        (place / "refs" / "main").write_text("a" * 40, encoding="utf-8")
        snapshot = place / "snapshots" / ("a" * 40)
        if name == "ours":
            build("avel", "ave", "leap").save_pretrained(snapshot)
        else:
            snapshot.mkdir(parents=True)
            (snapshot / "config.json").write_text('{"task": 3}', encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (row,) = list_fetched()
    assert (row["name"], row["revision"], row["cell"]) == (
        "owner/ours",
        "aaaaaaaa",
        "avel-ave-leap-full",
    )
    assert main(["models", "ls"]) == 0
    assert "owner/ours  avel-ave-leap-full  aaaaaaaa" in capsys.readouterr().out
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "none"))
    assert main(["models", "ls"]) == 0
    assert capsys.readouterr().out == "no models fetched from the Hub\n"
