"""`benchmarks/gpu.py` runs from end to end at toy size on the device that there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from avplatform.training import checkpoint
from benchmarks import gpu, gpu_runs, report


@pytest.mark.slow
def test_without_an_accelerator_the_script_runs_at_toy_size_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    assert gpu.main(["--json", str(tmp_path / "gpu.json")]) == 0
    found = report.read(tmp_path / "gpu.json")
    rows = {row.name: row for row in found.rows}
    assert any("bf16, compiled: training step" in name for name in rows)
    assert any(row.unit == "frames/s" and row.value > 0 for row in rows.values())
    assert found.notes[0].startswith("note: no accelerator is available here")
    assert any("not judged at toy size" in note for note in found.notes)
    assert any("on the CPU differ by at most" in note for note in found.notes)


@pytest.mark.parametrize(
    ("full", "half", "why"),
    [
        (0.0, 0.0, "nothing was learned"),
        (25.0, 25.0, "nothing was learned"),
        (35.0, 18.0, "nothing was learned"),
        (35.0, float("nan"), "nothing was learned"),
        (35.0, 31.0, "more than 3.0 points apart"),
    ],
)
def test_scores_that_prove_nothing_or_differ_fail(full, half, why):
    with pytest.raises(ValueError, match=why):
        gpu_runs.judge_scores(full, half, trivial=25.0)


def test_scores_that_are_learned_and_alike_pass():
    gpu_runs.judge_scores(35.0, 33.0, trivial=25.0)
    scores = {"nothing_predicted": 18.0, "class_priors_by_second": 25.0}
    anchors = {name: {gpu_runs.FIGURE: value} for name, value in scores.items()}
    anchors["video_labels_everywhere"] = {gpu_runs.FIGURE: 54.5}
    assert gpu_runs.untrained({"details": {"test": {"anchors": anchors}}}) == 25.0


LOSSES = [0.5, 0.4, 0.3, 0.25, 0.2]


@pytest.mark.parametrize(
    "here",
    [[*LOSSES[:4], 0.201], [*LOSSES[:4], float("nan")], LOSSES[:4], [], [0.51, *LOSSES[1:]]],
)
def test_losses_that_do_not_go_on_fail(here):
    with pytest.raises(ValueError):
        gpu_runs.judge_losses(LOSSES, here)


def test_losses_that_go_on_pass():
    assert gpu_runs.judge_losses(LOSSES, [loss * 1.0005 for loss in LOSSES]) < 1e-3


def test_a_run_without_the_optimisers_state_does_not_go_on(tmp_path, monkeypatch):
    load = checkpoint.load_checkpoint

    def forgetful(path, **options):
        tensors, state = load(path, **options)
        if "cpu" in Path(path).parts:
            for name, values in tensors["optimizer"].items():
                values.mul_(not name.startswith("exp_avg"))
        return tensors, state

    runs = gpu_runs.Runs(folder=tmp_path, steps=10, toy=True)
    monkeypatch.setattr("avplatform.training.state.load_checkpoint", forgetful)
    with pytest.raises(ValueError, match="on the CPU differ by more than"):
        runs.resumes()


def test_no_check_begins_when_the_time_is_over(capsys, monkeypatch):
    bench = gpu.Bench(gpu.SMALL, light=True)
    monkeypatch.setattr(gpu, "LIMIT", -1.0)
    bench.check("late", lambda: pytest.fail("began"))
    assert not bench.failed and "late: left out" in capsys.readouterr().out


def test_an_error_of_a_part_is_kept_and_the_rest_goes_on(capsys):
    bench = gpu.Bench(gpu.SMALL, light=True)

    def broken() -> str:
        raise RuntimeError("out of memory")

    bench.check("one", broken)
    bench.check("two", lambda: "fine")
    assert bench.failed == ["one"] and "two: fine" in capsys.readouterr().out
