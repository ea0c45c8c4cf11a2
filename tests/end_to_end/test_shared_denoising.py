"""Labels are dropped among the clips of all processes: 1, 2 and 4 of them drop the same ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from avplatform.data.adapters.registry import adapter_of_task
from avplatform.data.simulate.demo import make_demo
from tests import processes
from tests.models.cells import SMALL

STEPS = 9
FLAGS = {
    "--task": "avvp",
    "--encoder": "han",
    "--decoder": "mmil",
    "--supervision": "weak",
    "--batch-size": "16",
    "--threads": "1",
    "--precision": "float64",
    "--encoder-config.dropout": "0",
    "--task-config.contrast": "jomold",
    "--task-config.denoise": "self",
    "--schedule.name": "constant",
    "--epochs": "100",
    "--max-steps": str(STEPS),
    "--validate-every": "50",
}
CMPAE = {
    "--decoder": "cmpae",
    "--decoder-config.dropout": "0",
    "--decoder-config.visual-dropout": "0",
    "--encoder-config.mixture": "0.8",
    "--encoder-config.stem-activation": "elu",
    "--task-config.class-thresholds": "visual",
}
COUNTS = {"--task-config.denoise": "off", "--task-config.count-terms": "add"}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A store of 43 training clips (16, 16 and 11 per epoch), and ratios that drop many labels."""
    folder = tmp_path_factory.mktemp("denoising")
    make_demo("avvp", folder / "store", sizes={"train": 43, "validation": 9, "test": 10})
    classes = len(adapter_of_task("avvp").classes)
    ratios = np.linspace(0.3, 0.9, classes)
    np.savez(folder / "ratios.npz", audio=ratios, visual=ratios[::-1])
    return folder


def note_labels(rank):
    """Let a run write down which labels of which clips it drops, and in which step."""
    from avplatform.training import loop

    real = loop.optimisation_step

    def step(model, task, batches, *args, **kwargs):
        for batch, share in zip(batches, kwargs["shares"], strict=True):
            for row, clip in enumerate(batch.row.tolist() if share else ()):
                for name in ("audio", "visual"):
                    if f"keep_{name}" in batch.labels:
                        gone = (batch.labels[f"keep_{name}"][row] == 0).nonzero().flatten()
                        print("DROPPED", tuple(batch.moment[:2]), clip, name, gone.tolist())
        return real(model, task, batches, *args, **kwargs)

    loop.optimisation_step = step


def run(given, out, *, count=1, more=(), system=()):
    """Train; return the dropped labels, and the losses of all steps."""
    small = [x for k, v in SMALL["han"].items() for x in (f"--encoder-config.{k}", str(v))]
    options = {**FLAGS, **dict(system)}
    flags = [x for pair in options.items() for x in pair]
    where = ["--data", str(given / "store"), "--output-dir", str(out), "--cpu", "--no-save-plots"]
    if options["--task-config.denoise"] != "off":
        where += ["--task-config.noise-ratios", str(given / "ratios.npz")]
    text = processes.run(
        ["train", *flags, *small, *where, *more],
        out.with_suffix(".log"),
        processes=count,
        before=note_labels,
    )
    assert json.loads((out / "results.json").read_text())["processes"] == count
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    losses = [{k: v for k, v in r.items() if "loss" in k} for r in lines if r["event"] == "step"]
    return sorted(line for line in text.splitlines() if line.startswith("DROPPED")), losses


@pytest.mark.parametrize(
    ("rounding", "system"),
    [
        ("carry", {}),
        pytest.param("truncate", {}, marks=pytest.mark.slow),
        pytest.param("truncate", CMPAE, marks=pytest.mark.slow),
    ],
)
def test_processes_and_micro_batches_drop_the_same_labels_and_have_the_same_losses(
    given, tmp_path, rounding, system
):
    more = ["--task-config.denoise-rounding", rounding]
    dropped, losses = run(given, tmp_path / "one", more=more, system=system)
    assert len(losses) == STEPS and sum("[]" not in line for line in dropped) > 20
    assert not any("DROPPED (1," in line for line in dropped)  # the official warm-up
    others = {"two": (2, []), "four": (4, []), "pieces": (1, ["--accumulation", "3"])}
    for name, (count, flags) in others.items():
        found, other = run(given, tmp_path / name, count=count, more=[*more, *flags], system=system)
        assert found == dropped, name
        for a, b in zip(losses, other, strict=True):
            assert b == pytest.approx(a, rel=0, abs=1e-9), name


def test_a_resumed_run_goes_on_with_the_fractions_that_it_carried(given, tmp_path):
    more = ["--task-config.denoise-rounding", "carry"]
    dropped, losses = run(given, tmp_path / "whole", more=more)
    first, early = run(given, tmp_path / "parts", more=[*more, "--max-steps", "5"])
    text = processes.run(
        ["train", "--cpu", "--resume", str(tmp_path / "parts"), "--max-steps", str(STEPS)],
        tmp_path / "resume.log",
        before=note_labels,
    )
    later = [line for line in text.splitlines() if line.startswith("DROPPED")]
    assert sorted(first + later) == dropped and losses[:5] == early


def test_counts_of_segments_do_not_depend_on_the_number_of_processes(given, tmp_path):
    _, losses = run(given, tmp_path / "one", system=COUNTS)
    plain = run(given, tmp_path / "plain", system={"--task-config.denoise": "off"})[1]
    assert {"loss_count_audio", "loss_count_visual", "loss_count_global"} == (
        losses[0].keys() - plain[0].keys()
    )
    for name, count, flags in (("two", 2, []), ("pieces", 1, ["--accumulation", "3"])):
        other = run(given, tmp_path / name, count=count, more=flags, system=COUNTS)[1]
        for a, b in zip(losses, other, strict=True):
            assert b == pytest.approx(a, rel=0, abs=1e-9), name


@pytest.mark.parametrize(
    "system",
    [pytest.param(CMPAE, id="CMPAE"), pytest.param(COUNTS, id="counts", marks=pytest.mark.slow)],
)
def test_a_resumed_run_ends_as_one_that_was_never_stopped(given, tmp_path, system):
    system = {**system, "--select-on": "last"}  # a run that is cut short validates once more
    run(given, tmp_path / "whole", system=system)
    run(given, tmp_path / "parts", more=["--max-steps", "5"], system=system)
    log = tmp_path / "resume.log"
    resume = ["train", "--resume", str(tmp_path / "parts"), "--max-steps", str(STEPS)]
    processes.run(resume, log, before=note_labels)
    whole, parts = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "parts")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    results = [
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "parts")
    ]
    assert results[0]["test"] == results[1]["test"]
    assert results[0].get("settled") == results[1].get("settled")
    assert ("settled" in results[0]) == ("--task-config.class-thresholds" in system)
