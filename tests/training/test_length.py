"""A run is made longer, or the reason is said why it cannot be; it is never made shorter."""

import json
import shutil

import pytest
import torch

from avplatform.cli import main
from avplatform.models.av_model import AVModel
from avplatform.training import loop
from tests.training.class_store import FLAGS, make

STEPS = 3  # an epoch of the store


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("length")
    make(folder / "store")
    assert train(folder, folder / "constant", "--epochs", "2", *CONSTANT) == 0
    return folder


CONSTANT = ("--schedule.name", "constant")


def train(place, out, *flags):
    where = ["--decoder", "mmil", "--data", str(place / "store"), "--output-dir", str(out)]
    return main([*FLAGS, *where, *flags])


def weights(run):
    return AVModel.from_pretrained(run / "model").state_dict()


def scores(run):
    content = json.loads((run / "results.json").read_text())
    return {k: content[k] for k in ("selection", "validation", "test", "steps", "epochs")}


@pytest.mark.parametrize(
    "schedule",
    [
        CONSTANT,
        ("--schedule.name", "epoch_decay", "--schedule.every", "1"),
        ("--schedule.name", "milestones", "--schedule.milestones", "1", "3"),
        ("--schedule.name", "step_decay", "--schedule.every", "2"),
    ],
)
def test_a_finished_run_is_made_longer_to_the_bit(place, schedule, tmp_path):
    longer, straight = tmp_path / "longer", tmp_path / "straight"
    assert train(place, longer, "--epochs", "2", *schedule) == 0
    assert main(["train", "--resume", str(longer), "--epochs", "4"]) == 0
    assert train(place, straight, "--epochs", "4", *schedule) == 0
    assert scores(longer) == scores(straight) and scores(longer)["steps"] == 4 * STEPS
    one, other = weights(longer), weights(straight)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert json.loads((longer / f"results-{2 * STEPS}.json").read_text())["epochs"] == 2


def test_a_run_that_is_being_made_longer_is_no_longer_finished(place, tmp_path, monkeypatch):
    out, real = tmp_path / "run", loop.save_state
    shutil.copytree(place / "constant", out)

    def dying(setup, progress):
        real(setup, progress)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_state", dying)
    assert main(["train", "--resume", str(out), "--epochs", "5"]) == 130
    monkeypatch.setattr(loop, "save_state", real)
    assert not (out / "results.json").exists()
    assert main(["train", "--resume", str(out)]) == 0
    assert scores(out)["steps"] == 5 * STEPS


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("late_decay", "its schedule (late_decay) depends on the length"),
        ("warmup_cosine", "its schedule (warmup_cosine) depends on the length"),
    ],
)
def test_a_schedule_that_follows_the_length_cannot_be_made_longer(
    place, schedule, message, tmp_path, capsys
):
    out = tmp_path / "run"
    flags = ("--schedule.name", schedule, "--schedule.warmup-epochs", "1")
    assert train(place, out, "--epochs", "2", *flags) == 0
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert main(["train", "--resume", str(out), "--epochs", "4"]) == 2
    error = capsys.readouterr().err
    assert message in error and "start a new run" in error
    after = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert before == after, "a refused resume changes nothing"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs", "1"], "cannot be made shorter; --epochs 1 would end it after 3"),
        (["--max-steps", "4"], "cannot be made shorter"),
        (["--max-steps", "99"], "cannot be made longer by --epochs 2 with --max-steps 99"),
    ],
)
def test_a_finished_run_is_not_made_shorter(place, flags, message, capsys):
    before = (place / "constant" / "config.yaml").read_bytes()
    assert main(["train", "--resume", str(place / "constant"), *flags]) == 2
    assert message in capsys.readouterr().err
    assert (place / "constant" / "config.yaml").read_bytes() == before


def test_a_stopped_run_is_not_closed_before_the_step_that_it_reached(
    place, tmp_path, monkeypatch, capsys
):
    """A partial epoch must not count as a whole one."""
    out, real = tmp_path / "run", loop.save_state

    def dying(setup, progress):
        real(setup, progress)
        if progress.step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_state", dying)
    assert train(place, out, "--epochs", "3", "--checkpointing.every", "1") == 130
    monkeypatch.setattr(loop, "save_state", real)
    assert main(["train", "--resume", str(out), "--epochs", "1"]) == 2
    assert "has taken 5 steps already" in capsys.readouterr().err
    assert main(["train", "--resume", str(out)]) == 0
    assert scores(out)["steps"] == 3 * STEPS


def test_a_finished_run_without_checkpoints_says_so(place, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(place / "constant", out)
    shutil.rmtree(out / "checkpoints")
    assert main(["train", "--resume", str(out), "--epochs", "3"]) == 1
    assert "its checkpoints are gone" in capsys.readouterr().err
