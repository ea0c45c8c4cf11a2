"""Trackers by name: none by default, csv always, others where installed; resumed runs go on."""

import csv
import errno
import importlib.util
import json
from pathlib import Path

import pytest

from avplatform.cli import main
from avplatform.models.errors import UsageError
from avplatform.training import loop
from avplatform.training.tracking import CsvTracker, check_trackers

FLAGS = [
    "train",
    "--task",
    "avvp",
    "--batch-size",
    "8",
    "--encoder-config.width",
    "16",
    "--encoder-config.hidden",
    "16",
]
FLAGS += ["--cpu", "--precision", "no", "--threads", "1", "--no-save-plots", "--epochs", "2"]


def rows(file: Path):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_none_by_default(small_stores, tmp_path):
    out = tmp_path / "run"
    assert main([*FLAGS, "--data", str(small_stores["avvp"]), "--output-dir", str(out)]) == 0
    assert not (out / "trackers").exists() and not (out / "trackers.json").exists()


def test_csv_holds_what_the_run_logs(small_stores, tmp_path):
    out = tmp_path / "run"
    assert (
        main(
            [
                *FLAGS,
                "--data",
                str(small_stores["avvp"]),
                "--output-dir",
                str(out),
                "--trackers",
                "csv",
            ]
        )
        == 0
    )
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [r for r in records if r["event"] == "step"]
    logged = rows(out / "trackers" / "csv" / "train.csv")
    assert [int(r["step"]) for r in logged] == [r["step"] for r in steps]
    assert [float(r["loss"]) for r in logged] == [r["loss"] for r in steps]
    scores = rows(out / "trackers" / "csv" / "validation.csv")
    epochs = [r for r in records if r["event"] == "epoch"]
    assert [float(r["segment_Type@AV"]) for r in scores] == [r["segment_Type@AV"] for r in epochs]


def test_a_resumed_run_keeps_its_id_and_repeats_no_row(small_stores, tmp_path, monkeypatch):
    out = tmp_path / "run"
    real, steps = loop.optimisation_step, []

    def dying(*args, **kwargs):
        steps.append(1)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "optimisation_step", dying)
        flags = [
            *FLAGS,
            "--data",
            str(small_stores["avvp"]),
            "--output-dir",
            str(out),
            "--trackers",
            "csv",
        ]
        assert main([*flags, "--checkpointing.every", "2"]) == 130
    identity = (out / "trackers.json").read_text()
    assert (out / "trackers" / "csv" / "train.csv").exists()
    assert main(["train", "--resume", str(out)]) == 0
    assert (out / "trackers.json").read_text() == identity
    assert [int(r["step"]) for r in rows(out / "trackers" / "csv" / "train.csv")] == list(
        range(1, 7)
    )


def test_a_validation_that_is_made_again_has_one_row(small_stores, tmp_path, monkeypatch):
    """A run that is stopped between the scores of an epoch and its checkpoint makes both again."""
    out, real = tmp_path / "run", loop.save_best

    def dying(*args, **kwargs):
        real(*args, **kwargs)
        raise KeyboardInterrupt

    flags = [
        *FLAGS,
        "--data",
        str(small_stores["avvp"]),
        "--output-dir",
        str(out),
        "--trackers",
        "csv",
    ]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_best", dying)
        assert main([*flags, "--checkpointing.every", "1"]) == 130
    assert len(rows(out / "trackers" / "csv" / "validation.csv")) == 1
    assert main(["train", "--resume", str(out)]) == 0
    steps = [int(r["step"]) for r in rows(out / "trackers" / "csv" / "validation.csv")]
    assert steps and steps == sorted(set(steps))


@pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed"
)
@pytest.mark.parametrize("every", ["1", "99"])
def test_tensorboard_shows_each_step_and_validation_once_after_a_resume(
    small_stores, tmp_path, monkeypatch, every
):
    """Killed between an epoch's scores and their checkpoint, a run makes them again.

    The run repeats its second epoch, or all from step 0 on.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out, real, saved = tmp_path / "run", loop.save_best, []

    def dying(*args, **kwargs):
        saved.append(1)
        real(*args, **kwargs)
        if every == "99" or len(saved) == 2:
            raise KeyboardInterrupt

    flags = [
        *FLAGS,
        "--data",
        str(small_stores["avvp"]),
        "--output-dir",
        str(out),
        "--trackers",
        "tensorboard",
    ]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_best", dying)
        assert main([*flags, "--checkpointing.every", every, "--select-on", "last"]) == 130
    assert main(["train", "--resume", str(out)]) == 0
    shown = EventAccumulator(str(out / "trackers" / "avplatform"))
    shown.Reload()
    assert [event.step for event in shown.Scalars("validation/segment_Type@AV")] == [3, 6]
    for name in ("loss", "lr"):
        assert [event.step for event in shown.Scalars(f"train/{name}")] == list(range(1, 7))


def test_a_tracker_whose_package_is_not_there_is_refused_before_anything_is_written(
    small_stores, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="wandb needs the package wandb; pip install wandb"):
        check_trackers(("csv", "wandb"))
    assert (
        main(
            [
                *FLAGS,
                "--data",
                str(small_stores["avvp"]),
                "--output-dir",
                str(tmp_path / "run"),
                "--trackers",
                "wandb",
            ]
        )
        == 2
    )
    assert "pip install wandb" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_tracker_that_cannot_be_closed_does_not_hide_how_the_run_ended(
    small_stores, tmp_path, monkeypatch, capsys
):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(CsvTracker, "log", full)
    monkeypatch.setattr(CsvTracker, "finish", full)
    out = tmp_path / "run"
    assert (
        main(
            [
                *FLAGS,
                "--data",
                str(small_stores["avvp"]),
                "--output-dir",
                str(out),
                "--trackers",
                "csv",
            ]
        )
        == 1
    )
    said = capsys.readouterr()
    assert (
        "make room, then go on with --resume" in said.err
        and "the tracker csv could not be closed" in said.out
    )


def test_an_unknown_tracker_gets_the_nearest_name(small_stores, tmp_path, capsys):
    flags = [
        *FLAGS,
        "--data",
        str(small_stores["avvp"]),
        "--output-dir",
        str(tmp_path / "run"),
        "--trackers",
        "tensorbord",
    ]
    assert main(flags) == 2
    assert "did you mean 'tensorboard'?" in " ".join(capsys.readouterr().err.split())


@pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed"
)
def test_tensorboard_writes_its_events_into_the_run(small_stores, tmp_path):
    out = tmp_path / "run"
    assert (
        main(
            [
                *FLAGS,
                "--data",
                str(small_stores["avvp"]),
                "--output-dir",
                str(out),
                "--trackers",
                "tensorboard",
            ]
        )
        == 0
    )
    assert list((out / "trackers").rglob("events.out.tfevents*"))
