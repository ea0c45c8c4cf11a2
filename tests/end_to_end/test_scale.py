"""1, 2 and 4 processes take the same steps; processes that do not know of each other are joined."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from avplatform.data.simulate.demo import make_demo
from avplatform.models.av_model import AVModel
from tests import processes
from tests.forked import run_forked
from tests.models.cells import SMALL

ROOT = Path(__file__).resolve().parent.parent.parent
STEPS = 50
CELLS = [
    ("avvp", "han", "mmil", "weak"),
    pytest.param(("avvp", "mmpyr", "leap", "pseudo"), marks=pytest.mark.slow),
    pytest.param(("avel", "ave", "leap", "full"), marks=pytest.mark.slow),
    pytest.param(("avel", "psp", "dch", "full"), marks=pytest.mark.slow),
    pytest.param(("avel", "cmbs", "dch", "weak"), marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Training clips that 2 and 4 processes share unevenly: 8 per step, 3 in an epoch's last."""
    folder = tmp_path_factory.mktemp("stores")
    for task in ("avel", "avvp"):
        make_demo(task, folder / task, sizes={"train": 43, "validation": 9, "test": 10})
    return {task: folder / task for task in ("avel", "avvp")}


def no_dropout(encoder, decoder, task, supervision):
    """Flags that put every dropout of a cell to 0."""
    from avplatform.config.run import default_config
    from avplatform.config.values import to_dict

    config = to_dict(default_config(task, encoder, decoder, supervision))
    flags = []
    for part in ("encoder_config", "decoder_config"):
        for name, value in config[part].items():
            if "dropout" in name and not isinstance(value, bool):
                flags += [f"--{part}.{name}".replace("_", "-"), "0"]
    return flags


def flags_of(cell, stores, out, *more):
    task, encoder, decoder, supervision = cell
    small = [
        x
        for k, v in SMALL[encoder].items()
        for x in (f"--encoder-config.{k.replace('_', '-')}", str(v))
    ]
    return [
        *(
            "train",
            "--task",
            task,
            "--encoder",
            encoder,
            "--decoder",
            decoder,
            "--supervision",
            supervision,
            *small,
        ),
        *(
            "--data",
            str(stores[task]),
            "--output-dir",
            str(out),
            "--batch-size",
            "8",
            "--cpu",
            "--threads",
            "1",
        ),
        *(
            "--no-save-plots",
            "--epochs",
            "100",
            "--max-steps",
            str(STEPS),
            "--validate-every",
            "3",
            *more,
        ),
    ]


def records(out, event):
    return [
        r
        for r in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
        if r["event"] == event
    ]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: "-".join(cell))
def test_any_number_of_processes_takes_the_same_steps(stores, tmp_path, cell):
    task, encoder, decoder, supervision = cell
    flags = [*no_dropout(encoder, decoder, task, supervision), "--precision", "float64"]
    for count in (1, 2, 4):
        processes.run(
            flags_of(cell, stores, tmp_path / str(count), *flags),
            tmp_path / f"{count}.log",
            processes=count,
        )
        assert (
            json.loads((tmp_path / str(count) / "results.json").read_text())["processes"] == count
        )
    one, *others = (records(tmp_path / str(count), "step") for count in (1, 2, 4))
    assert len(one) == STEPS and one[0]["loss"] != pytest.approx(one[-1]["loss"], rel=1e-3)
    for other in others:
        for a, b in zip(one, other, strict=True):
            assert {k: v for k, v in b.items() if isinstance(v, float)} == pytest.approx(
                {k: v for k, v in a.items() if isinstance(v, float)}, rel=0, abs=1e-9
            )
    results = [
        json.loads((tmp_path / str(count) / "results.json").read_text()) for count in (1, 2, 4)
    ]
    for other in results[1:]:
        assert (
            other["test"] == results[0]["test"] and other["validation"] == results[0]["validation"]
        )


def test_dropout_differs_between_processes_and_repeats_to_the_last_bit(stores, tmp_path):
    cell = ("avvp", "han", "mmil", "weak")
    for name in ("first", "second"):
        flags = flags_of(
            cell, stores, tmp_path / name, "--max-steps", "9", "--precision", "no", "--ema", "0.9"
        )
        processes.run(flags, tmp_path / f"{name}.log", processes=2)
    first, second = (
        AVModel.from_pretrained(tmp_path / name / "model").state_dict()
        for name in ("first", "second")
    )
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
    seeds = set()
    for rank in (0, 1):
        from avplatform.training.loop import seed_step

        seed_step(1, 5, rank)
        seeds.add(float(torch.rand(1)))
    assert len(seeds) == 2


def test_a_batch_size_for_each_process_is_multiplied_and_said(stores, tmp_path):
    cell = ("avvp", "han", "mmil", "weak")
    more = [
        "--max-steps",
        "5",
        "--batch-size",
        "4",
        "--batch-scope",
        "process",
        "--precision",
        "float64",
    ]
    more += no_dropout("han", "mmil", "avvp", "weak")
    text = processes.run(
        flags_of(cell, stores, tmp_path / "two", *more), tmp_path / "two.log", processes=2
    )
    assert "of 8 clips over all processes" in text
    single = [*more, "--batch-scope", "global", "--batch-size", "8"]
    processes.run(flags_of(cell, stores, tmp_path / "one", *single), tmp_path / "one.log")
    a, b = ([r["loss"] for r in records(tmp_path / name, "step")] for name in ("one", "two"))
    assert a == pytest.approx(b, rel=0, abs=1e-9)


def test_learning_rate_scaling_is_asked_for_and_said(stores, tmp_path):
    cell = ("avvp", "han", "mmil", "weak")
    scaling = ["--optim.lr", "1e-3", "--optim.lr-scaling", "linear", "--optim.lr-batch-size", "4"]
    text = processes.run(
        flags_of(cell, stores, tmp_path / "on", "--max-steps", "1", *scaling), tmp_path / "on.log"
    )
    assert "learning rate 0.002 (linear scaling of 0.001 for 4 clips per step)" in " ".join(
        text.split()
    )
    assert records(tmp_path / "on", "step")[0]["lr"] == pytest.approx(2e-3)
    processes.run(
        flags_of(cell, stores, tmp_path / "off", "--max-steps", "1", *scaling[:2]),
        tmp_path / "off.log",
    )
    assert records(tmp_path / "off", "step")[0]["lr"] == pytest.approx(1e-3)


def clean_environment():
    env = {k: v for k, v in os.environ.items() if not k.startswith(("AVP_", "PYTEST"))}
    return {**env, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.skipif(
    torch.accelerator.is_available(), reason="the config asks for accelerators, and here they are"
)
def test_a_launch_for_several_gpus_joins_its_processes_where_there_are_none(stores, tmp_path):
    """Without accelerators, Accelerate leaves the shipped config's 2 processes unconnected."""
    flags = flags_of(("avel", "ave", "leap", "full"), stores, tmp_path / "run", "--max-steps", "6")
    flags = [flag for flag in flags[1:] if flag != "--cpu"]
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        "accelerate_config.yaml",
    ]
    command += ["--main_process_port", str(processes.free_port()), "train.py", *flags]
    done = subprocess.run(
        command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 processes work together on the CPU" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    content = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (
        content["processes"] == 2
        and content["steps"] == 6
        and content["details"]["test"]["clips"] == 10
    )
    assert [r["step"] for r in records(tmp_path / "run", "step")] == list(range(1, 7))


def note_clips(rank):
    """Let a run write down which clips it trains on."""
    from avplatform.training import loop

    real = loop.optimisation_step

    def step(model, task, batches, *args, **kwargs):
        for batch, share in zip(batches, kwargs["shares"], strict=True):
            if share:
                print("CLIPS", rank, *batch.row.tolist())
        return real(model, task, batches, *args, **kwargs)

    loop.optimisation_step = step


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow), 2, 4])
def test_every_clip_is_trained_on_once_an_epoch(stores, tmp_path, count):
    flags = flags_of(("avvp", "han", "mmil", "weak"), stores, tmp_path / "run", "--max-steps", "6")
    text = processes.run(flags, tmp_path / "log", processes=count, before=note_clips)
    lines = [line.split()[1:] for line in text.splitlines() if line.startswith("CLIPS")]
    rows = Counter(int(row) for _, *rest in lines for row in rest)
    assert len(rows) == 43 and set(rows.values()) == {1}
    assert {rank for rank, *_ in lines} == {str(rank) for rank in range(count)}


@pytest.mark.parametrize("cpu", [True, False])
@pytest.mark.parametrize(("rank", "made"), [("0", True), ("1", False)])
def test_of_processes_that_cannot_reach_each_other_the_first_goes_on(
    stores, tmp_path, rank, made, cpu
):
    flags = flags_of(("avel", "ave", "leap", "full"), stores, tmp_path / "run", "--max-steps", "1")
    flags = [flag for flag in flags if cpu or flag != "--cpu"]
    env = {**clean_environment(), "WORLD_SIZE": "2", "RANK": rank}
    code = f"from avplatform.cli import main; raise SystemExit(main({flags!r}))"
    done = run_forked(code, env=env, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run").exists() == made
    assert ("cannot reach each other" in done.stderr) == made and "Traceback" not in done.stderr
