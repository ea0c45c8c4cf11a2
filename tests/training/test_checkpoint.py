"""Damaged or deleted checkpoints are detected, and a run falls back to the one before."""

import json
import random
import shutil

import pytest
import torch

from avplatform.cli import main
from avplatform.models.av_model import AVModel
from avplatform.models.errors import DataError
from avplatform.models.files import file_sha256
from avplatform.training import checkpoint
from avplatform.training.checkpoint import (
    check_checkpoint,
    checkpoint_steps,
    load_checkpoint,
    newest_whole,
    prune_checkpoints,
    save_best,
    save_checkpoint,
)

FILES = ["model.safetensors", "optimizer.safetensors", "average.safetensors", "state.json"]


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file):
    file.write_bytes(b"")


def flip(file):
    content = bytearray(file.read_bytes())
    content[random.Random(file.name).randrange(len(content))] ^= 4
    file.write_bytes(bytes(content))


def delete(file):
    file.unlink()


DAMAGES = [truncate, empty, flip, delete]


def save(folder, step, best=None):
    model = {"weight": torch.full((3, 4), float(step)), "bias": torch.arange(3.0)}
    tensors = {"model": model, "optimizer": {"exp_avg/weight": torch.ones(3, 4)}, "average": model}
    return save_checkpoint(folder, tensors=tensors, state={"step": step, "best": best or {}})


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    tensors, state = load_checkpoint(save(tmp_path, 7))
    assert state == {"step": 7, "best": {}}
    assert torch.equal(tensors["model"]["weight"], torch.full((3, 4), 7.0)) and set(tensors) == {
        "model",
        "optimizer",
        "average",
    }


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_damage_to_any_file_is_found(tmp_path, file, damage):
    path = save(tmp_path, 1)
    check_checkpoint(path)
    damage(path / file)
    with pytest.raises(DataError, match="checkpoint .* is damaged"):
        check_checkpoint(path)
    with pytest.raises(DataError, match="checkpoint .* is damaged"):
        load_checkpoint(path)


def test_the_newest_whole_one_is_taken_and_damaged_ones_are_put_aside(tmp_path):
    for step in (2, 4, 6):
        save(tmp_path, step)
    truncate(tmp_path / "6" / "model.safetensors")
    empty(tmp_path / "4" / "state.json")
    said = []
    assert newest_whole(tmp_path, note=said.append) == tmp_path / "2"
    assert [line.split(" is damaged")[0] for line in said] == [
        f"checkpoint {tmp_path / name}" for name in ("6", "4")
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "damaged-4", "damaged-6"]
    assert checkpoint_steps(tmp_path) == [2]


def test_a_resume_compares_the_digest_of_each_file_once(tmp_path, monkeypatch):
    path, read = save(tmp_path, 2), []

    def count(file):
        read.append(file.name)
        return file_sha256(file)

    monkeypatch.setattr(checkpoint, "file_sha256", count)
    assert newest_whole(tmp_path, note=lambda text: None) == path
    assert load_checkpoint(path, checked=True)[1]["step"] == 2
    assert sorted(read) == ["average.safetensors", "model.safetensors", "optimizer.safetensors"]


def test_a_checkpoint_whose_best_weights_are_damaged_is_not_whole(tmp_path):
    save(tmp_path, 2)
    save_best(tmp_path, {"weight": torch.ones(2)}, step=3)
    save(tmp_path, 4, best={"step": 3})
    truncate(tmp_path / "best-3" / "model.safetensors")
    assert newest_whole(tmp_path, note=lambda text: None) == tmp_path / "2"


def test_without_any_whole_one_there_is_none(tmp_path):
    save(tmp_path, 2)
    shutil.rmtree(tmp_path / "2")
    (tmp_path / "2").mkdir()
    assert newest_whole(tmp_path, note=lambda text: None) is None
    assert newest_whole(tmp_path / "nothing", note=lambda text: None) is None


def test_a_kill_between_the_two_renames_of_a_replacement_loses_nothing(tmp_path):
    save(tmp_path, 2)
    (tmp_path / "2").rename(tmp_path / ".2.replaced")
    (tmp_path / ".2.partial-99").mkdir()
    assert newest_whole(tmp_path, note=lambda text: None) == tmp_path / "2"
    assert [p.name for p in tmp_path.iterdir()] == ["2"]


def test_pruning_keeps_the_newest_and_all_best_weights_that_they_refer_to(tmp_path):
    for step in (1, 2, 3):
        save_best(tmp_path, {"weight": torch.ones(2)}, step=step)
        save(tmp_path, step, best={"step": min(step, 2)})
    prune_checkpoints(tmp_path, 1, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["3", "best-2"]


FLAGS = [
    "--task",
    "avvp",
    "--batch-size",
    "8",
    "--encoder-config.width",
    "16",
    "--encoder-config.hidden",
    "16",
    "--ema",
    "0.9",
]
FLAGS += [
    "--cpu",
    "--precision",
    "no",
    "--threads",
    "1",
    "--no-save-plots",
    "--epochs",
    "3",
    "--checkpointing.every",
    "1",
]


@pytest.fixture(scope="module")
def begun(small_stores, tmp_path_factory):
    """A run stopped by an error after step 5, with checkpoints of steps 4 and 5; and a full run."""
    from avplatform.training import loop

    folder = tmp_path_factory.mktemp("runs")
    base = ["train", *FLAGS, "--data", str(small_stores["avvp"])]
    assert main([*base, "--output-dir", str(folder / "whole")]) == 0
    real, steps = loop.optimisation_step, []

    def dying(*args, **kwargs):
        if len(steps) == 5:
            raise KeyboardInterrupt
        steps.append(1)
        return real(*args, **kwargs)

    loop.optimisation_step = dying
    try:
        assert main([*base, "--output-dir", str(folder / "begun")]) == 130
    finally:
        loop.optimisation_step = real
    assert checkpoint_steps(folder / "begun" / "checkpoints") == [4, 5]
    return folder


@pytest.mark.parametrize(
    ("damaged", "expected"),
    [
        ([], 5),
        ([("5/model.safetensors", truncate)], 4),
        ([("5/optimizer.safetensors", empty)], 4),
        ([("5/state.json", truncate)], 4),
        ([("5/average.safetensors", delete)], 4),
        ([("5/state.json", flip), ("4/model.safetensors", flip)], 0),
        ([("best-3/model.safetensors", truncate)], 0),
    ],
)
def test_a_run_resumes_from_the_one_before_and_ends_the_same(
    begun, tmp_path, capsys, damaged, expected
):
    run = tmp_path / "run"
    shutil.copytree(begun / "begun", run)
    for name, damage in damaged:
        damage(run / "checkpoints" / name)
    capsys.readouterr()
    assert main(["train", "--resume", str(run)]) == 0
    text = capsys.readouterr().out
    assert f"resumed from step {expected}" in text
    assert text.count("falling back to the checkpoint before it") == (
        5 - expected if expected else 2 if damaged else 0
    )
    whole, now = (AVModel.from_pretrained(f / "model").state_dict() for f in (begun / "whole", run))
    assert all(torch.equal(whole[k], now[k]) for k in whole)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["resumed_from_step"] for r in records if r["event"] == "resume"] == [expected]
    assert [r["step"] for r in records if r["event"] == "step"] == list(range(1, 10))


def test_a_run_without_any_checkpoint_starts_at_step_0_from_its_config(begun, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(begun / "begun" / "config.yaml", run)
    assert main(["train", "--resume", str(run)]) == 0
    whole, now = (AVModel.from_pretrained(f / "model").state_dict() for f in (begun / "whole", run))
    assert all(torch.equal(whole[k], now[k]) for k in whole)
