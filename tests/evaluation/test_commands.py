"""`avplatform eval` with all its extras, and `avplatform compare`, on small runs."""

import json
import shutil

import numpy as np
import pytest

from avplatform.cli import main
from avplatform.data.adapters.registry import make_task
from avplatform.evaluation.compare import compare
from avplatform.runs.predictions import load_predictions
from tests.test_plots import is_sane_png

FLAGS = [
    "--cpu",
    "--threads",
    "1",
    "--precision",
    "no",
    "--batch-size",
    "8",
    "--epochs",
    "2",
    "--no-save-plots",
]
CELLS = {
    "avel": [
        "--task",
        "avel",
        "--encoder-config.lstm-width",
        "8",
        "--encoder-config.attention-width",
        "8",
    ],
    "avvp": ["--task", "avvp", "--encoder-config.width", "16", "--encoder-config.hidden", "16"],
}
RATES = {"avel": "1e-2", "avvp": "1e-2"}


@pytest.fixture(scope="module")
def runs(small_stores, tmp_path_factory):
    """Per task two seeds of one cell and one of another."""
    folder = tmp_path_factory.mktemp("runs")
    for task in CELLS:
        for name, flags in (
            ("a1", ["--decoder", "mmil", "--seed", "1"]),
            ("a2", ["--decoder", "mmil", "--seed", "2"]),
            ("b1", ["--decoder", "dch", "--seed", "1"]),
        ):
            out = ["--data", str(small_stores[task]), "--output-dir", str(folder / task / name)]
            assert (
                main(["train", *CELLS[task], *FLAGS, "--optim.lr", RATES[task], *flags, *out]) == 0
            )
    return folder


def read(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize("task", ["avel", "avvp"])
def test_a_run_keeps_predictions_that_give_its_figures(runs, task):

    results = read(runs / task / "a1" / "results.json")
    for split in ("validation", "test"):
        kept = load_predictions(runs / task / "a1" / "predictions" / f"{split}.safetensors")
        assert kept.about["data_checksum"] == results["data_checksum"] and kept.about["seed"] == 1
        assert kept.metrics(make_task(task)).compute() == results[split]


@pytest.mark.parametrize("task", ["avel", "avvp"])
def test_eval_adds_what_is_asked_for(runs, task, tmp_path, capsys):
    run, out = runs / task / "a1", tmp_path / "scores.json"
    flags = [
        "--bootstrap",
        "200",
        "--calibration",
        "--thresholds",
        "validation",
        "--robustness",
        "--presence",
    ]
    assert main(["eval", str(run), "--cpu", *flags, "--json", str(out),
                 "--out", str(tmp_path / "pages"),
                 "--predictions", str(tmp_path / "kept")]) == 0  # fmt: skip
    content, own = read(out), read(run / "results.json")
    assert content["confidence"]["videos"] == 10
    assert content["thresholds"] == "per class, chosen on validation"
    assert content["own_thresholds"]["test"] == own["test"]
    for name, row in content["confidence"]["test"].items():
        assert row["low"] <= row["value"] <= row["high"] and row["value"] == pytest.approx(
            content["test"][name]
        )
    card = content["robustness"]
    assert card["clean"] == own["test"] and card == read(tmp_path / "pages" / "robustness.json")
    assert {"audio late by 3 s", "audio muted", "video frozen", "no audio", "no visual"} <= set(
        card["perturbations"]
    )
    metric = next(iter(own["test"]))
    row = card["perturbations"]["no audio"]
    assert row["difference"][metric] == row["scores"][metric] - own["test"][metric]
    page = (tmp_path / "pages" / "robustness.md").read_text()
    assert "| audio noise 10 dB |" in page and "Synthetic features" in page
    assert all(
        is_sane_png(tmp_path / "pages" / name)
        for name in ("robustness.png", "reliability_test.png")
    )
    for entry in content["calibration"]["test"].values():
        assert 0 <= entry["after"]["error"] <= 100 and entry["before"]["count"] == 10 * 10 * (
            25 if task == "avvp" else 1
        )
    kept = load_predictions(tmp_path / "kept" / "test.safetensors")
    assert kept.about["thresholds"] == content["thresholds"]
    said = " ".join(capsys.readouterr().out.split())
    assert "because test holds only 10 videos" in said and "--split of `avplatform" in said
    assert ("do not tell where" in said) == (task == "avel") == (content["presence"] is None)


def test_thresholds_come_from_validation_alone(runs, tmp_path):
    """They are those that the run's kept predictions of validation give."""
    from avplatform.evaluation.thresholds import choose_thresholds, named
    from avplatform.models.av_model import AVModel
    from avplatform.tasks.registry import task_of_model

    run, out = runs / "avvp" / "a1", tmp_path / "scores.json"
    assert main(["eval", str(run), "--cpu", "--thresholds", "validation", "--json", str(out)]) == 0
    task = task_of_model(AVModel.from_pretrained(str(run / "model")).config)
    kept = load_predictions(run / "predictions" / "validation.safetensors").metrics(task)
    expected, found = (
        named(task.analysis(), choose_thresholds(task.analysis(), kept)),
        read(out)["threshold_values"],
    )
    same = [found[s][c] == v for s, classes in expected.items() for c, v in classes.items()]
    assert np.mean(same) > 0.9  # half precision may move one that lies between two scores


@pytest.mark.parametrize("flag", [["--calibration"], ["--thresholds", "validation"]])
def test_nothing_is_learnt_on_the_split_that_is_reported(runs, flag, capsys):
    assert main(["eval", str(runs / "avel" / "a1"), "--cpu", "--split", "validation", *flag]) == 2
    assert "cannot be reported on it" in capsys.readouterr().err


def test_pages_need_a_place(runs, capsys):
    assert main(["eval", str(runs / "avel" / "a1" / "model"), "--cpu", "--robustness"]) == 2
    assert "--out FOLDER" in capsys.readouterr().err


def test_flags_and_places_that_cannot_work_are_said(runs, tmp_path, capsys):
    run, file = str(runs / "avel" / "a1"), tmp_path / "file"
    file.write_text("")
    for command in (["eval", run, "--cpu"], ["compare", run, str(runs / "avel" / "b1")]):
        assert main([*command, "--bootstrap", "10"]) == 2
        assert "at least 40 resamples" in capsys.readouterr().err
    assert main(["eval", run, "--cpu", "--calibration", "--out", str(file / "pages")]) == 1
    assert "cannot write into" in capsys.readouterr().err
    assert main(["compare", run, str(runs / "avel" / "b1"), "--out", str(file / "pages")]) == 1
    assert "cannot write into" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["avel", "avvp"])
def test_compare_puts_seeds_together_and_tests_the_rest(runs, task, tmp_path, capsys):
    folders = [str(runs / task / name) for name in ("b1", "a1", "a2")]
    assert main(["compare", *folders, "--out", str(tmp_path), "--bootstrap", "300"]) == 0
    content = read(tmp_path / "compare.json")
    b, a = content["groups"]
    assert (b["seeds"], a["seeds"]) == ([1], [1, 2]) and a["runs"] == folders[1:]
    results = [read(runs / task / name / "results.json")["test"] for name in ("a1", "a2", "b1")]
    for metric, figure in a["figures"].items():
        values = [r[metric] for r in results[:2]]
        assert figure["mean"] == pytest.approx(np.mean(values)) and figure[
            "spread"
        ] == pytest.approx(np.std(values, ddof=1))
        test = content["tests"][a["label"]][metric]
        assert test["difference"] == pytest.approx(np.mean(values) - results[2][metric])
        assert test["low"] <= test["high"] and 0 < test["p"] <= 1
    level, stream = ("segment", "av") if task == "avel" else ("event", "visual")
    row = content["per_class"][a["label"]][level][stream]
    details = read(runs / task / "b1" / "results.json")["details"]["test"]
    stated = (
        [e["accuracy"] for e in details["per_class"].values()]
        if task == "avel"
        else details["class_event"]["visual"].values()
    )
    assert row["first"] == [None if s is None else pytest.approx(s) for s in stated]
    page = (tmp_path / "compare.md").read_text()
    assert a["label"] in page and "±" in page and "synthetic features" in page
    pictures = sorted(p.name for p in tmp_path.glob("*.png"))
    levels = ["segment"] if task == "avel" else ["event", "segment"]
    assert pictures == ["differences.png", *(f"per_class_1_{name}.png" for name in levels)]
    assert all(is_sane_png(tmp_path / name) and f"({name})" in page for name in pictures)
    assert "minus" in capsys.readouterr().out


def test_seeds_alone_have_a_spread_and_no_test(runs, tmp_path):
    assert (
        main(["compare", *(str(runs / "avel" / n) for n in ("a1", "a2")), "--out", str(tmp_path)])
        == 0
    )
    content = read(tmp_path / "compare.json")
    assert (
        len(content["groups"]) == 1 and content["tests"] == {} and not list(tmp_path.glob("*.png"))
    )


def test_runs_that_scored_test_after_every_epoch_show_the_bias(runs, tmp_path):
    for name in ("a1", "b1"):
        shutil.copytree(runs / "avel" / name, tmp_path / name)
        file = tmp_path / name / "metrics.jsonl"
        records = [json.loads(line) for line in file.read_text().splitlines()]
        epochs = [r for r in records if r["event"] == "epoch"]
        tested = [
            r | {"event": "test_epoch", "split": "test", "accuracy": 10.0 * r["epoch"]}
            for r in epochs
        ]
        file.write_text("".join(json.dumps(r) + "\n" for r in [*records, *tested]))
    assert (
        main(
            ["compare", str(tmp_path / "a1"), str(tmp_path / "b1"), "--out", str(tmp_path / "out")]
        )
        == 0
    )
    entry = next(iter(read(tmp_path / "out" / "compare.json")["selection_bias"].values()))
    assert entry["summary"]["picked_on_test"]["mean"] == 20.0
    text = (tmp_path / "out" / "compare.md").read_text()
    assert "picking the epoch on test adds" in text and "| picked by |" in text
    assert entry["metric"] == "accuracy"
    for name in ("a1", "b1"):
        file = tmp_path / name / "results.json"
        content = json.loads(file.read_text())
        content["selection"]["metric"] = "accuracy+accuracy"  # two figures, as select_by gives
        file.write_text(json.dumps(content))
    found = compare([tmp_path / "a1", tmp_path / "b1"], resamples=2)["selection_bias"]
    assert {bias["metric"] for bias in found.values()} == {"accuracy+accuracy"}
    assert next(iter(found.values()))["summary"]["picked_on_test"]["mean"] == 20.0


def test_runs_that_picked_their_epoch_on_test_are_compared_without_the_bias(runs, tmp_path):
    for name in ("a1", "b1"):
        shutil.copytree(runs / "avel" / name, tmp_path / name)
        file = tmp_path / name / "metrics.jsonl"
        records = [json.loads(line) for line in file.read_text().splitlines()]
        epochs = [r | {"split": "test"} for r in records if r["event"] == "epoch"]
        lines = [*epochs, *(r | {"event": "test_epoch"} for r in epochs), ["no record"]]
        file.write_text("".join(json.dumps(r) + "\n" for r in lines))
    assert (
        main(
            ["compare", str(tmp_path / "a1"), str(tmp_path / "b1"), "--out", str(tmp_path / "out")]
        )
        == 0
    )
    content = read(tmp_path / "out" / "compare.json")
    assert content["tests"] and "selection_bias" not in content


def refused(capsys, code, *folders):
    assert main(["compare", *map(str, folders)]) == code
    return capsys.readouterr().err


def test_what_cannot_be_compared_is_said_by_name(runs, tmp_path, capsys):
    a, b = runs / "avel" / "a1", tmp_path / "b"
    assert "at least two" in refused(capsys, 2, a)
    assert "same run" in refused(capsys, 2, a, runs / "avel" / ".." / "avel" / "a1")
    assert "is not a run folder" in refused(capsys, 2, a, tmp_path / "absent")
    assert "has the task avel" in refused(capsys, 1, a, runs / "avvp" / "a1")
    shutil.copytree(runs / "avel" / "b1", b)
    assert "are the same training twice (equal options, seed 1)" in refused(
        capsys, 2, a, runs / "avel" / "b1", b
    )
    (b / "predictions" / "test.safetensors").unlink()
    assert f"avplatform eval {b} --split test --predictions" in refused(capsys, 1, a, b)
    assert main(["eval", str(b), "--cpu", "--predictions", str(b / "predictions")]) == 0
    capsys.readouterr()
    assert main(["compare", str(a), str(b)]) == 0
    (b / "results.json").rename(b / "kept.json")
    assert f"not finished: {b}" in refused(capsys, 1, a, b)
    for text, word in (
        ("[]", "does not hold the results of a run"),
        ('{"task": "avel"}', "lacks encoder"),
        ("x", "not valid"),
    ):
        (b / "results.json").write_text(text)
        assert word in refused(capsys, 1, a, b)
    for key, word in (("data_checksum", "checksum"), ("data", "was trained and scored on")):
        (b / "results.json").write_text(json.dumps(read(b / "kept.json") | {key: "other"}))
        assert word in refused(capsys, 1, a, b)
    content = read(b / "kept.json")
    content["test"]["accuracy"] += 1
    (b / "results.json").write_text(json.dumps(content))
    assert "do not give the figures" in refused(capsys, 1, a, b)


def test_other_clips_and_other_thresholds_are_refused(runs, tmp_path, capsys):
    from avplatform.runs.predictions import save_predictions

    a, b = runs / "avel" / "a1", tmp_path / "b"
    shutil.copytree(runs / "avel" / "b1", b)
    file = b / "predictions" / "test.safetensors"
    whole = load_predictions(file)
    whole.about["thresholds"] = "per class, chosen on validation"
    save_predictions(whole, file)
    assert "different thresholds" in refused(capsys, 1, a, b)
    whole.about["thresholds"] = None
    whole.state["row"] = whole.state["row"] + 1
    save_predictions(whole, file)
    assert "different test clips" in refused(capsys, 1, a, b)
