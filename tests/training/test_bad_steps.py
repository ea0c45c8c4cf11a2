"""A NaN loss or gradient: the run stops with advice, or skips the step and counts it."""

import json

import pytest
import torch
import torch.nn.functional as F

from avplatform.cli import main
from avplatform.models.av_model import AVModel
from avplatform.tasks.losses import binary_cross_entropy
from avplatform.training import loop
from avplatform.training.loop import MOST_SKIPPED
from tests.models.cells import SMALL

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
FLAGS += [
    "--cpu",
    "--precision",
    "no",
    "--threads",
    "1",
    "--no-save-plots",
    "--checkpointing.every",
    "1",
]


def spoil(monkeypatch, bad_steps, *, kind="loss"):
    """Let the loss, or only its gradient, be NaN in some steps (counted from 1)."""
    real, count = loop.optimisation_step, []

    def step(model, task, batches, *args, **kwargs):
        count.append(1)
        if len(count) not in bad_steps:
            return real(model, task, batches, *args, **kwargs)
        true_loss = task.loss

        def loss(*a):
            terms = true_loss(*a)
            first = next(iter(terms))
            if kind == "loss":
                return {**terms, first: terms[first] * float("nan")}
            zero = terms[first] - terms[first].detach()
            return {
                **terms,
                first: terms[first].detach() + torch.sqrt(zero * 0),
            }  # the value is right, its gradient is NaN

        task.loss = loss
        try:
            return real(model, task, batches, *args, **kwargs)
        finally:
            del task.loss

    monkeypatch.setattr(loop, "optimisation_step", step)


def records(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "cell",
    [
        ("avvp", "han", "mmil", "weak"),
        ("avvp", "han", "leap", "pseudo"),
        *(
            ("avel", "psp", decoder, kind)
            for decoder in ("dch", "leap", "mmil")
            for kind in ("full", "weak")
        ),
    ],
)
@pytest.mark.parametrize("on_nan", ["stop", "skip"])
def test_a_run_whose_weights_diverged_says_so(small_stores, tmp_path, capsys, cell, on_nan):
    """Nothing is spoilt here: the learning rate alone makes all that the model says NaN."""
    task, encoder, decoder, supervision = cell
    flags = [
        "train",
        "--task",
        task,
        "--encoder",
        encoder,
        "--decoder",
        decoder,
        "--supervision",
        supervision,
        "--cpu",
    ]
    flags += [
        "--precision",
        "no",
        "--threads",
        "1",
        "--batch-size",
        "8",
        "--epochs",
        "9",
        "--optim.lr",
        "1e30",
    ]
    for name, value in SMALL[encoder].items():
        flags += [f"--encoder-config.{name.replace('_', '-')}", str(value)]
    flags += [
        "--data",
        str(small_stores[task]),
        "--output-dir",
        str(tmp_path / "run"),
        "--on-nan",
        on_nan,
    ]
    assert main(flags) == 1
    assert "NaN or infinite" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probabilities_that_are_nan_make_loss_and_gradient_nan(dtype):
    values = torch.tensor([0.2, 0.9, 0.4], dtype=dtype, requires_grad=True)
    target = torch.tensor([0.0, 1.0, 1.0])
    ours, real = (
        binary_cross_entropy(values, target),
        F.binary_cross_entropy(values, target.to(dtype)),
    )
    assert ours.dtype == dtype and torch.equal(ours, real)
    assert all(
        torch.equal(a, b)
        for a, b in zip(*(torch.autograd.grad(x, values) for x in (ours, real)), strict=True)
    )
    bad = torch.tensor([0.2, float("nan"), 0.4], dtype=dtype, requires_grad=True)
    loss = binary_cross_entropy(bad, target)
    loss.backward()
    assert loss.isnan() and bad.grad.isnan().any()


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_by_default_the_run_stops_and_keeps_a_whole_state(
    small_stores, tmp_path, monkeypatch, capsys, kind
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        spoil(patch, {4}, kind=kind)
        assert (
            main(
                [
                    *FLAGS,
                    "--data",
                    str(small_stores["avvp"]),
                    "--max-steps",
                    "6",
                    "--output-dir",
                    str(out),
                ]
            )
            == 1
        )
    text = capsys.readouterr().err
    assert (
        "became NaN or infinite" in text
        and "--on-nan skip" in text
        and "step 4" in text
        and "Traceback" not in text
    )
    assert main(["train", "--resume", str(out)]) == 0
    assert [r["resumed_from_step"] for r in records(out) if r["event"] == "resume"] == [3]
    assert all(
        bool(v.isfinite().all())
        for v in AVModel.from_pretrained(out / "model").state_dict().values()
    )


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_on_request_bad_steps_are_skipped_and_counted(
    small_stores, tmp_path, monkeypatch, capsys, kind
):
    out = tmp_path / "run"
    spoil(monkeypatch, {2, 5}, kind=kind)
    flags = [
        *FLAGS,
        "--data",
        str(small_stores["avvp"]),
        "--max-steps",
        "6",
        "--on-nan",
        "skip",
        "--output-dir",
        str(out),
    ]
    assert main(flags) == 0
    assert [r["step"] for r in records(out) if r["event"] == "skipped_step"] == [2, 5]
    assert [r["step"] for r in records(out) if r["event"] == "step"] == [1, 3, 4, 6]
    assert json.loads((out / "results.json").read_text())["skipped_steps"] == 2
    assert "skipped 2 steps" in " ".join(capsys.readouterr().out.split())
    assert all(
        bool(v.isfinite().all())
        for v in AVModel.from_pretrained(out / "model").state_dict().values()
    )


def test_a_skipped_step_leaves_the_weights_as_they_were(small_stores, tmp_path, monkeypatch):
    weights = []
    for bad in ({2}, set()):
        with monkeypatch.context() as patch:
            out = tmp_path / str(len(bad))
            spoil(patch, bad)
            steps = "2" if bad else "1"
            flags = [
                *FLAGS,
                "--data",
                str(small_stores["avvp"]),
                "--max-steps",
                steps,
                "--on-nan",
                "skip",
                "--output-dir",
            ]
            assert (
                main([*flags, str(out), "--select-on", "last", "--schedule.name", "constant"]) == 0
            )
            weights.append(AVModel.from_pretrained(out / "model").state_dict())
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_skipping_has_an_end(small_stores, tmp_path, monkeypatch, capsys):
    spoil(monkeypatch, set(range(1, 99)))
    flags = [
        *FLAGS,
        "--data",
        str(small_stores["avvp"]),
        "--max-steps",
        "60",
        "--epochs",
        "30",
        "--on-nan",
        "skip",
    ]
    assert main([*flags, "--output-dir", str(tmp_path / "run")]) == 1
    assert f"({MOST_SKIPPED} steps in a row)" in capsys.readouterr().err
