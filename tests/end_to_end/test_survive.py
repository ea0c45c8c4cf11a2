"""Runs go on after kills, preemption, and a lack of disk space or memory.

They are killed at random moments and inside checkpoint writes.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from avplatform.models.av_model import AVModel
from tests import processes

resource = pytest.importorskip("resource", reason="limits files as POSIX systems can")

ROOT = Path(__file__).resolve().parent.parent.parent
EVERY, STEPS = 3, 300
FLAGS = [
    *(
        "train",
        "--task",
        "avvp",
        "--encoder-config.width",
        "16",
        "--encoder-config.hidden",
        "16",
        "--batch-size",
        "4",
    ),
    *(
        "--epochs",
        "99",
        "--max-steps",
        str(STEPS),
        "--checkpointing.every",
        str(EVERY),
        "--ema",
        "0.9",
        "--validate-every",
        "7",
    ),
    *("--precision", "no", "--cpu", "--threads", "1", "--no-save-plots"),
]


def weights(folder):
    return AVModel.from_pretrained(folder / "model").state_dict()


def records(folder, event):
    lines = (
        (folder / "metrics.jsonl").read_text().splitlines()
        if (folder / "metrics.jsonl").exists()
        else []
    )
    return [r for r in map(json.loads, lines) if r["event"] == event]


def die_in_write(rank, *, call, chance, seed):
    """Kill the main process before, between or after the calls that write a checkpoint."""
    from avplatform.training import checkpoint

    if rank:
        return
    draw = random.Random(seed)
    owner, name = {
        "tensors": (checkpoint, "save_tensors"),
        "digest": (checkpoint, "file_sha256"),
        "rename": (os, "replace"),
        "delete": (shutil, "rmtree"),
    }[call]
    real = getattr(owner, name)

    def dying(*args, **kwargs):
        if draw.random() < chance:
            if draw.random() < 0.5:
                real(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(owner, name, dying)


def whole_records(out, event):
    """Records of an event, without a line that a kill cut off."""
    found = []
    for line in (
        (out / "metrics.jsonl").read_text().splitlines() if (out / "metrics.jsonl").exists() else []
    ):
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return [r for r in found if r["event"] == event]


def wait_until(true, timeout=120.0):
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.002)


def began(out, steps, draw):
    """Whether a run has logged a step, or, now and then, before it has."""
    return draw.random() < 0.002 or len(whole_records(out, "step")) != steps


WAYS = ["tensors", "digest", "rename", "delete"]


@pytest.mark.parametrize(
    ("kills", "count", "streaming"),
    [
        (5, 1, False),
        *(
            pytest.param(20, c, s, marks=pytest.mark.slow)
            for c, s in [(1, False), (1, True), (2, False), (2, True)]
        ),
    ],
)
def test_killed_many_times_the_weights_are_those_of_a_run_never_stopped(
    small_stores, tmp_path, kills, count, streaming
):
    flags = [*FLAGS, "--data", str(small_stores["avvp"]), *(["--streaming"] if streaming else [])]
    whole, out, log = tmp_path / "whole", tmp_path / "killed", tmp_path / "log"
    processes.run([*flags, "--output-dir", str(whole)], log, processes=count)
    draw = random.Random(f"{count} {streaming}")
    last = resumes = 0
    for kill in range(kills):
        begun = (out / "config.yaml").exists()
        args = ["train", "--resume", str(out)] if begun else [*flags, "--output-dir", str(out)]
        if kill % 2:
            way = partial(
                die_in_write,
                call=draw.choice(WAYS),
                chance=draw.uniform(0.4, 0.9),
                seed=draw.random(),
            )
            launch = processes.Launch(args, log, processes=count, before=way)
            wait_until(lambda launch=launch: not launch.alive)
        else:
            launch = processes.Launch(args, log, processes=count)
            before = len(whole_records(out, "step"))
            wait_until(partial(began, out, before, draw))
            time.sleep(draw.uniform(0, 0.05))
        launch.kill()
        assert not (out / "results.json").exists(), (
            f"the run was through after {kill} kills; make it longer"
        )
        steps = [r["step"] for r in whole_records(out, "step")]
        assert steps == list(range(1, len(steps) + 1)), "a step was lost or done twice"
        now = whole_records(out, "resume")
        if len(now) > resumes:
            assert last - EVERY <= now[-1]["resumed_from_step"] <= last + 1
        last, resumes = len(steps), len(now)
    processes.run(["train", "--resume", str(out)], log, processes=count)
    a, b = weights(whole), weights(out)
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert [r["step"] for r in records(out, "step")] == list(range(1, STEPS + 1))
    assert [r["loss"] for r in records(out, "step")] == [r["loss"] for r in records(whole, "step")]
    first, second = (json.loads((folder / "results.json").read_text()) for folder in (whole, out))
    assert (
        first["test"] == second["test"]
        and first["selection"] == second["selection"]
        and second["processes"] == count
    )
    assert "Traceback" not in log.read_text() or count > 1


def signal_at(rank, *, step, signum, member=0):
    """Let a process be told to stop while it takes a step."""
    from avplatform.training import loop

    real, taken = loop.optimisation_step, []

    def stepping(*args, **kwargs):
        taken.append(1)
        if rank == member and len(taken) == step:
            os.kill(os.getpid(), signum)
        return real(*args, **kwargs)

    loop.optimisation_step = stepping


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_sigterm_saves_and_ends_cleanly(small_stores, tmp_path, count):
    flags = [
        *FLAGS,
        "--data",
        str(small_stores["avvp"]),
        "--max-steps",
        "9",
        "--checkpointing.every",
        "0",
    ]
    whole, out, log = tmp_path / "whole", tmp_path / "told", tmp_path / "log"
    processes.run([*flags, "--output-dir", str(whole)], log, processes=count)
    # The last process is told; all stop after the same step.
    before = partial(signal_at, step=4, signum=signal.SIGTERM, member=count - 1)
    text = processes.run(
        [*flags, "--output-dir", str(out)], tmp_path / "stopped", processes=count, before=before
    )
    assert (
        "stopped by SIGTERM after step 4; all is saved, go on with --resume" in text
        and "Traceback" not in text
    )
    assert (out / "checkpoints" / "4" / "state.json").exists() and not (
        out / "results.json"
    ).exists()
    processes.run(["train", "--resume", str(out)], log, processes=count)
    assert [r["resumed_from_step"] for r in records(out, "resume")] == [4]
    a, b = weights(whole), weights(out)
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_ctrl_c_saves_too_and_says_so_by_its_exit_code(small_stores, tmp_path):
    flags = [
        *FLAGS,
        "--data",
        str(small_stores["avvp"]),
        "--max-steps",
        "9",
        "--output-dir",
        str(tmp_path / "run"),
    ]
    launch = processes.Launch(
        flags, tmp_path / "log", before=partial(signal_at, step=5, signum=signal.SIGINT)
    )
    assert launch.wait() == [130]
    assert (
        "stopped by SIGINT after step 5" in launch.output()
        and (tmp_path / "run" / "checkpoints" / "5").is_dir()
    )


def die_at(rank, *, step, member):
    """Let one process of a run end without a word."""
    signal_at(rank, step=step, signum=signal.SIGKILL, member=member)


@pytest.mark.parametrize("member", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_others_end_with_a_clear_line_when_a_process_is_lost(small_stores, tmp_path, member):
    flags = [
        *FLAGS,
        "--data",
        str(small_stores["avvp"]),
        "--max-steps",
        "9",
        "--output-dir",
        str(tmp_path / "run"),
    ]
    before = partial(die_at, step=5, member=member)
    launch = processes.Launch(flags, tmp_path / "log", processes=2, before=before)
    codes = launch.wait(60)
    assert codes[member] == -signal.SIGKILL and codes[1 - member] == 1
    text = launch.output()
    assert "Traceback" not in text
    assert "another process of this run has ended" in text
    processes.run(["train", "--resume", str(tmp_path / "run")], tmp_path / "again", processes=2)
    assert [r["resumed_from_step"] for r in records(tmp_path / "run", "resume")] == [3]


def fail_alone(rank, *, step):
    """Let the second process meet, alone, data that it cannot read."""
    from avplatform.models.errors import DataError
    from avplatform.training import loop

    real, taken = loop.optimisation_step, []

    def stepping(*args, **kwargs):
        taken.append(1)
        if rank == 1 and len(taken) == step:
            raise DataError("shard 7 cannot be read")
        return real(*args, **kwargs)

    loop.optimisation_step = stepping


def test_what_one_process_met_alone_is_said(small_stores, tmp_path):
    flags = [
        *FLAGS,
        "--data",
        str(small_stores["avvp"]),
        "--max-steps",
        "9",
        "--output-dir",
        str(tmp_path / "run"),
    ]
    launch = processes.Launch(
        flags, tmp_path / "log", processes=2, before=partial(fail_alone, step=5)
    )
    assert launch.wait(60) == [1, 1]
    text = launch.output()
    assert "error of process 1: shard 7 cannot be read" in text and "Traceback" not in text
    assert "another process of this run has ended" in text


def small_disk(rank, *, room):
    """Let no file grow beyond some bytes, which fails a write as a full disk does."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_full_disk_ends_every_process_with_a_clear_line_and_loses_nothing(
    small_stores, tmp_path, count
):
    flags = [
        *FLAGS,
        "--data",
        str(small_stores["avvp"]),
        "--max-steps",
        "9",
        "--output-dir",
        str(tmp_path / "run"),
    ]
    launch = processes.Launch(
        flags, tmp_path / "log", processes=count, before=partial(small_disk, room=20_000)
    )
    assert launch.wait(60) == [1] * count
    text = launch.output()
    assert text.count("cannot write") == 1  # the main process says it for all
    assert "make room, then go on with --resume" in text and "Traceback" not in text
    assert not any((tmp_path / "run" / "checkpoints").glob("*"))
    processes.run(["train", "--resume", str(tmp_path / "run")], tmp_path / "again", processes=count)
    assert [r["step"] for r in records(tmp_path / "run", "step")] == list(range(1, 10))


def test_two_runs_in_one_folder_are_refused(small_stores, tmp_path):
    """The second run finds the folder locked for as long as the first lives, however it ends."""
    flags = [*FLAGS, "--data", str(small_stores["avvp"]), "--output-dir", str(tmp_path / "run")]
    first = processes.Launch(flags, tmp_path / "log")
    wait_until(lambda: len(whole_records(tmp_path / "run", "step")) > 3)
    os.kill(first.members[0].pid, signal.SIGSTOP)
    second = processes.Launch(["train", "--resume", str(tmp_path / "run")], tmp_path / "second")
    assert second.wait() == [2]
    assert "another process is training in" in second.output()
    first.kill()
    processes.run(
        ["train", "--resume", str(tmp_path / "run"), "--max-steps", "30"], tmp_path / "third"
    )


def test_a_launcher_that_starts_its_processes_again_goes_on_with_the_run(
    small_stores, tmp_path, monkeypatch
):
    from avplatform.cli import main

    flags = [
        *FLAGS,
        "--data",
        str(small_stores["avvp"]),
        "--max-steps",
        "9",
        "--output-dir",
        str(tmp_path / "run"),
    ]
    launch = processes.Launch(flags, tmp_path / "log", before=partial(die_at, step=5, member=0))
    assert launch.wait() == [-signal.SIGKILL]
    assert main(flags) == 2  # by hand, a folder in use is refused
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert main(flags) == 0
    assert [r["resumed_from_step"] for r in records(tmp_path / "run", "resume")] == [3]


LAUNCHERS = {
    "torchrun": ["-m", "torch.distributed.run", "--nproc_per_node", "2"],
    "accelerate": [
        "-m",
        "accelerate.commands.launch",
        "--num_processes",
        "1",
        "--num_machines",
        "1",
        "--cpu",
    ],
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_run_whose_launcher_was_killed_saves_and_ends_and_can_be_resumed_at_once(
    small_stores, tmp_path, launcher
):
    out, args = tmp_path / "run", [sys.executable, *LAUNCHERS[launcher], "train.py"]
    flags = [
        *FLAGS[1:],
        "--data",
        str(small_stores["avvp"]),
        "--output-dir",
        str(out),
        "--max-steps",
        "100000",
    ]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*args, *flags], cwd=ROOT, stdout=log, stderr=log)
        wait_until(lambda: len(whole_records(out, "step")) > 3)
        process.kill()
        process.wait()
    before = len(whole_records(out, "step"))
    # The run takes a few more steps before it notices; a resume to fewer steps would be refused.
    processes.run(
        ["train", "--resume", str(out), "--max-steps", str(before + 20)], tmp_path / "again"
    )
    (resumed,) = [r["resumed_from_step"] for r in whole_records(out, "resume")]
    assert resumed >= before - EVERY and "stopped by SIGTERM" in (tmp_path / "log").read_text()
