"""Whole runs on small synthetic data: files, scores, resuming, several processes."""

import json
import re
import shutil
from unittest import mock

import pytest
import torch

from avplatform.cli import main
from avplatform.models.av_model import AVModel
from avplatform.training import loop
from avplatform.training.checkpoint import checkpoint_steps
from tests.models.cells import SMALL as WIDTHS

SMALL = {
    "avel": ["--task", "avel", "--batch-size", "8", "--optim.lr", "1e-3", "--cpu",
             "--precision", "no", "--threads", "1"],
    "avvp": ["--task", "avvp", "--batch-size", "8", "--encoder-config.width", "16",
             "--encoder-config.hidden", "16", "--cpu", "--precision", "no", "--threads", "1"],
}  # fmt: skip


def train(task, store, out, *flags):
    return main(["train", *SMALL[task], "--data", str(store), "--output-dir", str(out), *flags])


def weights(folder):
    return AVModel.from_pretrained(folder / "model").state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def run(small_stores, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    assert train("avel", small_stores["avel"], out, "--epochs", "2") == 0
    return out


def test_a_run_leaves_its_files(run):
    names = {
        str(p.relative_to(run))
        for p in run.rglob("*")
        if p.is_file() and "checkpoints" not in p.parts
    }
    plots = {"plots/curves.png", "plots/per_class.png", "plots/timelines.png"}
    model = {f"model/{n}" for n in ("config.json", "model.safetensors", "bank.safetensors")}
    records = {"config.yaml", "environment.json", "metrics.jsonl", "results.json"}
    predictions = {"predictions/validation.safetensors", "predictions/test.safetensors"}
    shown = {f"model/{name}" for name in plots}
    assert names == {*records, *plots, *model, "model/README.md", *shown, *predictions}


def test_results_say_what_was_done(run):
    content = json.loads((run / "results.json").read_text())
    for key in (
        "task",
        "encoder",
        "decoder",
        "supervision",
        "data",
        "synthetic",
        "seed",
        "selection",
        "validation",
        "test",
    ):
        assert key in content
    assert content["synthetic"] is True and set(content["test"]) == {"accuracy"}
    assert (
        content["selection"]["split"] == "validation"
        and content["selection"]["metric"] == "accuracy"
    )
    assert content["selection"]["value"] == content["validation"]["accuracy"]
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if r["event"] == "step"] == list(range(1, 7))
    assert (
        max(r["accuracy"] for r in records if r["event"] == "epoch")
        == content["validation"]["accuracy"]
    )


def test_the_card_warns_of_synthetic_data_and_holds_the_scores(run):
    card = (run / "model" / "README.md").read_text()
    content = json.loads((run / "results.json").read_text())
    assert "Trained on synthetic features" in card and f"{content['test']['accuracy']:.2f}" in card
    pictures = re.findall(r"!\[.*\]\((.*)\)", card)
    assert len(pictures) == 3 and all((run / "model" / name).is_file() for name in pictures)


def test_the_intervals_of_a_run_are_those_of_its_evaluation(run, tmp_path):
    content = json.loads((run / "results.json").read_text())
    out = tmp_path / "scores.json"
    assert main(["eval", str(run), "--bootstrap", "1000", "--json", str(out)]) == 0
    assert json.loads(out.read_text())["confidence"] == content["confidence"]
    found = content["confidence"]["test"]["accuracy"]
    assert found["value"] == pytest.approx(content["test"]["accuracy"])
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert f"{found['low']:.2f}–{found['high']:.2f}" in card


def test_evaluation_gives_the_numbers_of_the_run(run, small_stores, tmp_path):
    expected = json.loads((run / "results.json").read_text())
    for place in (run, run / "model"):
        for split in ("validation", "test"):
            out = tmp_path / "scores.json"
            data = (
                ["--data", str(small_stores["avel"])] if split == "test" else []
            )  # by default what it was trained on
            assert main(["eval", str(place), *data, "--split", split, "--json", str(out)]) == 0
            found = json.loads(out.read_text())
            assert (
                found[split] == expected[split]
                and found["details"][split] == expected["details"][split]
            )
            assert {k: found[k] for k in ("task", "encoder", "decoder", "seed", "selection")} == {
                k: expected[k] for k in ("task", "encoder", "decoder", "seed", "selection")
            }


def test_a_run_in_double_precision_stays_so(small_stores, tmp_path, capsys):
    out = tmp_path / "double"
    flags = ["--epochs", "1", "--no-save-plots", "--precision", "float64"]
    assert train("avel", small_stores["avel"], out, *flags) == 0
    assert {value.dtype for value in weights(out).values()} == {torch.float64}
    content = json.loads((out / "results.json").read_text())
    assert content["precision"] == "float64"
    assert main(["eval", str(out), "--json", str(tmp_path / "scores.json")]) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["test"] == content["test"]
    (out / "results.json").unlink()
    assert main(["train", "--resume", str(out), "--precision", "no"]) == 2
    assert "--precision cannot change to or from float64" in capsys.readouterr().err


def test_training_in_bf16_is_scored_in_full_precision(small_stores, tmp_path, monkeypatch):
    kinds = {}
    real = loop.optimisation_step

    def step(model, *args, **kwargs):
        kinds["training"] = model.encoder.audio_lstm.weight_hh_l0.dtype
        result = real(model, *args, **kwargs)
        batch = args[1][0]
        kinds["model"] = (
            model(batch.audio, batch.visual, batch.motion).encoding.aux["attended_visual"].dtype
        )
        with kwargs["accelerator"].autocast():
            kinds["autocast"] = torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype
        return result

    monkeypatch.setattr(loop, "optimisation_step", step)
    flags = ["--epochs", "2", "--no-save-plots", "--precision", "bf16"]
    assert train("avel", small_stores["avel"], tmp_path / "run", *flags) == 0
    assert kinds == {"training": torch.float32, "model": torch.float32, "autocast": torch.bfloat16}
    assert (
        main(
            [
                "eval",
                str(tmp_path / "run"),
                "--json",
                str(tmp_path / "scores.json"),
                "--threads",
                "1",
            ]
        )
        == 0
    )
    found, expected = (
        json.loads(p.read_text())
        for p in (tmp_path / "scores.json", tmp_path / "run" / "results.json")
    )
    assert expected["precision"] == "bf16" and found["test"] == expected["test"]


def test_two_processes_evaluate_every_clip_once_and_alike(run, small_stores, tmp_path):
    from tests import processes

    out = tmp_path / "scores.json"
    processes.run(
        ["eval", str(run), "--data", str(small_stores["avel"]), "--json", str(out), "--cpu",
         "--batch-size", "4"],
        tmp_path / "log", processes=2,
    )  # fmt: skip
    found, expected = json.loads(out.read_text()), json.loads((run / "results.json").read_text())
    assert found["processes"] == 2 and found["details"]["test"]["clips"] == 10
    assert found["test"] == expected["test"]


def test_two_processes_take_the_same_steps_as_one(small_stores, tmp_path):
    from tests import processes

    flags = [
        "--max-steps",
        "4",
        "--no-save-plots",
        "--decoder-config.dropout",
        "0",
        "--decoder-config.attention-dropout",
        "0",
    ]
    assert train("avel", small_stores["avel"], tmp_path / "one", *flags) == 0
    where = ["--data", str(small_stores["avel"]), "--output-dir", str(tmp_path / "two")]
    processes.run(["train", *SMALL["avel"], *where, *flags], tmp_path / "two.log", processes=2)
    content = json.loads((tmp_path / "two" / "results.json").read_text())
    assert content["processes"] == 2
    losses = []
    for name in ("one", "two"):
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses.append([r["loss"] for r in map(json.loads, lines) if r["event"] == "step"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_same_seed_gives_the_same_weights(run, small_stores, tmp_path):
    assert (
        train("avel", small_stores["avel"], tmp_path / "again", "--epochs", "2", "--no-save-plots")
        == 0
    )
    assert same(weights(run), weights(tmp_path / "again"))
    assert (
        train(
            "avel",
            small_stores["avel"],
            tmp_path / "other",
            "--epochs",
            "2",
            "--no-save-plots",
            "--seed",
            "2",
        )
        == 0
    )
    assert not same(weights(run), weights(tmp_path / "other"))


class Killed(BaseException):
    pass


def train_until_killed(task, data, out, *flags, steps):
    """Train, and die in the middle of a step once so many are done."""
    real, done = loop.optimisation_step, []

    def dying(*args, **kwargs):
        if len(done) == steps:
            raise Killed
        done.append(1)
        return real(*args, **kwargs)

    with mock.patch.object(loop, "optimisation_step", dying), pytest.raises(Killed):
        train(task, data, out, *flags)


@pytest.mark.parametrize("streaming", [(), ("--streaming",)])
def test_a_killed_run_resumes_to_the_same_bits(small_stores, tmp_path, streaming):
    flags = ["--epochs", "3", "--checkpointing.every", "2", "--no-save-plots", *streaming]
    assert train("avvp", small_stores["avvp"], tmp_path / "whole", *flags) == 0
    train_until_killed("avvp", small_stores["avvp"], tmp_path / "killed", *flags, steps=5)
    before = json.loads((tmp_path / "killed" / "checkpoints" / "4" / "state.json").read_text())
    assert checkpoint_steps(tmp_path / "killed" / "checkpoints")[-1] == 4
    assert main(["train", "--resume", str(tmp_path / "killed")]) == 0
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    records = [
        json.loads(line)
        for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [r["resumed_from_step"] for r in records if r["event"] == "resume"] == [4]
    assert [r["step"] for r in records if r["event"] == "step"] == list(range(1, 10))
    whole, killed = (
        json.loads((tmp_path / n / "results.json").read_text()) for n in ("whole", "killed")
    )
    assert whole["test"] == killed["test"] and whole["selection"] == killed["selection"]
    # Times are those of both processes together.
    assert before["cpu_seconds"] > 0 and killed["seconds"]["cpu"] > before["cpu_seconds"]
    assert before["seconds"] > 0 and killed["seconds"]["wall"] > before["seconds"]


def test_a_streaming_run_says_why_it_maps_what_it_evaluates(small_stores, tmp_path, capsys):
    for flags, because in (
        ((), ""),
        (
            ("--streaming",),
            " (training streams the data, but evaluation always reads mapped arrays)",
        ),
    ):
        store = tmp_path / f"store{len(flags)}"
        shutil.copytree(small_stores["avvp"], store, ignore=shutil.ignore_patterns(".arrays"))
        assert (
            train(
                "avvp",
                store,
                tmp_path / f"run{len(flags)}",
                "--max-steps",
                "1",
                "--no-save-plots",
                *flags,
            )
            == 0
        )
        mapped = [
            line for line in capsys.readouterr().out.splitlines() if line.startswith("mapped")
        ]
        told = [
            re.fullmatch(r"mapped \S+ (\w+)(.*): \d+ clips, \d+ MiB", line).groups()
            for line in mapped
        ]
        assert set(told) == {
            (split, because) for split in ("train", "validation", "test")[len(flags) :]
        }


def test_a_run_killed_after_its_last_step_still_validates_and_finishes(
    small_stores, tmp_path, monkeypatch
):
    flags = ["--max-steps", "4", "--checkpointing.every", "2", "--no-save-plots"]
    assert train("avvp", small_stores["avvp"], tmp_path / "whole", *flags) == 0

    def dying(self):
        raise Killed

    real = loop.Run._end_of_epoch
    monkeypatch.setattr(
        loop.Run,
        "_end_of_epoch",
        lambda self: dying(self) if self.progress.step == 4 else real(self),
    )
    with pytest.raises(Killed):
        train("avvp", small_stores["avvp"], tmp_path / "killed", *flags)
    monkeypatch.setattr(loop.Run, "_end_of_epoch", real)
    assert main(["train", "--resume", str(tmp_path / "killed")]) == 0
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    records = [
        json.loads(line)
        for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [r["step"] for r in records if r["event"] == "epoch"] == [3, 4]


def test_a_finished_run_says_so_and_changes_nothing(run, capsys):
    before = (run / "results.json").stat().st_mtime_ns
    assert main(["train", "--resume", str(run)]) == 0
    assert "is finished after 6 steps" in capsys.readouterr().out
    assert (run / "results.json").stat().st_mtime_ns == before


def test_of_several_processes_one_says_that_the_run_is_finished(run, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert main(["train", "--resume", str(run)]) == 0
    assert not capsys.readouterr().out


def test_a_resumed_run_cannot_change_what_it_is(run, capsys):
    assert main(["train", "--resume", str(run), "--max-steps", "99"]) == 2
    assert "cannot be made longer" in capsys.readouterr().err
    assert main(["train", "--resume", str(run), "--optim.lr", "5"]) == 2
    assert "--optim cannot change" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["avel", "avvp"])
@pytest.mark.parametrize("decoder", ["leap", "mmil", "dch"])
@pytest.mark.parametrize("encoder", ["han", "mmpyr", "ave", "psp", "cmbs"])
def test_every_cell_trains_in_every_supervision(small_stores, tmp_path, task, encoder, decoder):
    small = [
        x
        for k, v in WIDTHS[encoder].items()
        for x in (f"--encoder-config.{k.replace('_', '-')}", str(v))
    ]
    for supervision in {"avel": ("full", "weak"), "avvp": ("pseudo", "weak")}[task]:
        out = tmp_path / supervision
        flags = [
            "--task",
            task,
            "--encoder",
            encoder,
            "--decoder",
            decoder,
            "--supervision",
            supervision,
            *small,
        ]
        flags += [
            "--data",
            str(small_stores[task]),
            "--max-steps",
            "2",
            "--batch-size",
            "8",
            "--cpu",
            "--no-save-plots",
        ]
        assert main(["train", *flags, "--output-dir", str(out), "--threads", "1"]) == 0
        assert (out / "model" / "model.safetensors").exists()


def test_micro_batches_take_the_same_steps(small_stores, tmp_path):
    losses = []
    for parts in ("1", "3"):
        out = tmp_path / parts
        flags = ["--max-steps", "3", "--accumulation", parts, "--no-save-plots"]
        flags += ["--decoder-config.dropout", "0", "--decoder-config.attention-dropout", "0"]
        assert train("avel", small_stores["avel"], out, *flags) == 0
        lines = (out / "metrics.jsonl").read_text().splitlines()
        losses.append([r["loss"] for r in map(json.loads, lines) if r["event"] == "step"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_dry_run_shows_shapes_and_writes_nothing(small_stores, tmp_path, capsys):
    assert train("avel", small_stores["avel"], tmp_path / "none", "--dry-run") == 0
    text = capsys.readouterr().out
    assert (
        "visual: [B, 10, 7, 7, 512]" in text
        and "parameters: " in text
        and "segment av: [B, 10, 29]" in text
    )
    assert not (tmp_path / "none").exists()


def test_bad_input_ends_with_its_code_and_leaves_nothing(small_stores, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").write_text("")
    cases = [
        (["--output-dir", str(tmp_path / "full")], 2, "not empty"),
        (
            ["--data", str(tmp_path / "nothing"), "--output-dir", str(tmp_path / "a")],
            1,
            "no data folder",
        ),
        (
            ["--data", str(small_stores["avvp"]), "--output-dir", str(tmp_path / "b")],
            2,
            "are for avvp",
        ),
        (
            ["--decoder-config.combine", "none", "--output-dir", str(tmp_path / "d")],
            2,
            "needs an audio-visual stream",
        ),
        (
            [
                "--decoder",
                "dch",
                "--decoder-config.form",
                "dmrn",
                "--output-dir",
                str(tmp_path / "e"),
            ],
            2,
            "takes ave",
        ),
        (
            ["--labels.embeddings", "nothing.txt", "--output-dir", str(tmp_path / "c")],
            2,
            "neither a source of label embeddings nor a file",
        ),
    ]
    for flags, code, message in cases:
        base = ["train", "--task", "avel", "--cpu"]
        if "--data" not in flags:
            base += ["--data", str(small_stores["avel"])]
        assert main([*base, *flags]) == code
        assert message in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full"]


@pytest.mark.parametrize("lacking", ["validation", "test", "classes"])
def test_data_that_lack_something_are_refused_before_training(
    small_stores, tmp_path, capsys, lacking
):
    store = tmp_path / "store"
    shutil.copytree(small_stores["avel"], store, ignore=shutil.ignore_patterns(".arrays"))
    manifest = json.loads((store / "dataset.json").read_text())
    if lacking == "classes":
        manifest["spec"]["classes"].reverse()
    else:
        del manifest["splits"][lacking]
    (store / "dataset.json").write_text(json.dumps(manifest))
    assert train("avel", store, tmp_path / "run", "--epochs", "1") in (1, 2)
    # Classes may stand in any order, but for background, which comes last.
    said = "'background' is at position 0" if lacking == "classes" else lacking
    assert said in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_data_without_pseudo_labels_are_refused_before_a_folder_is_made(
    small_stores, tmp_path, capsys
):
    store = tmp_path / "store"
    shutil.copytree(small_stores["avvp"], store, ignore=shutil.ignore_patterns(".arrays"))
    manifest = json.loads((store / "dataset.json").read_text())
    for name in ("pseudo_audio", "pseudo_visual"):
        del manifest["spec"]["labels"][name], manifest["spec"]["label_dtypes"][name]
    (store / "dataset.json").write_text(json.dumps(manifest))
    for flags in ((), ("--dry-run",)):
        assert train("avvp", store, tmp_path / "run", "--epochs", "1", *flags) == 1
        assert "--supervision weak" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_validation_every_other_epoch(small_stores, tmp_path):
    flags = ["--epochs", "4", "--validate-every", "2", "--no-save-plots"]
    assert train("avvp", small_stores["avvp"], tmp_path / "run", *flags) == 0
    records = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [r["epoch"] for r in records if r["event"] == "epoch"] == [1, 3]
    assert [r["epoch"] for r in records if r["event"] == "epoch_without_validation"] == [2, 4]


def test_the_last_epoch_is_kept_though_it_is_not_due_for_validation(small_stores, tmp_path):
    flags = ["--epochs", "4", "--validate-every", "2", "--no-save-plots", "--select-on", "last"]
    assert train("avvp", small_stores["avvp"], tmp_path / "run", *flags) == 0
    assert json.loads((tmp_path / "run" / "results.json").read_text())["selection"]["epoch"] == 4


def test_what_a_resume_changed_holds_for_the_next_one(small_stores, tmp_path, monkeypatch, capsys):
    """A run made longer and interrupted again ends at its new end, and says so when finished."""
    out, real = tmp_path / "run", loop.save_state
    flags = ["--epochs", "4", "--max-steps", "2", "--checkpointing.every", "1", "--no-save-plots"]

    def dying(setup, progress):
        real(setup, progress)
        if progress.step in (1, 3):
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_state", dying)
    assert train("avvp", small_stores["avvp"], out, *flags) == 130
    monkeypatch.setattr(loop, "save_state", real)
    longer = ["train", "--resume", str(out), "--max-steps", "5"]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_state", dying)
        assert main(longer) in (0, 130)
    assert main(["train", "--resume", str(out)]) == 0
    assert json.loads((out / "results.json").read_text())["steps"] == 5
    capsys.readouterr()
    assert main(longer) == 0
    assert "is finished after 5 steps" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_ends_the_run_with_the_reason(small_stores, tmp_path, capsys):
    assert (
        train("avel", small_stores["avel"], tmp_path / "run", "--optim.lr", "1e30", "--epochs", "3")
        == 1
    )
    assert "became NaN or infinite in step" in capsys.readouterr().err
    assert not (tmp_path / "run" / "results.json").exists()
