"""torch.compile: the same steps, and a machine that cannot compile is told so."""

import json
import shutil

import pytest
import torch

from avplatform.cli import main

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
    "--encoder",
    "han",
    "--decoder",
    "mmil",
    "--supervision",
    "weak",
    "--encoder-config.dropout",
    "0",
    "--max-steps",
    "3",
]
FLAGS += ["--cpu", "--precision", "no", "--threads", "1", "--no-save-plots"]


def losses(out):
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [r["loss"] for r in records if r["event"] == "step"]


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler"
)
def test_a_compiled_run_takes_the_same_steps(small_stores, tmp_path):
    flags = [*FLAGS, "--data", str(small_stores["avvp"])]
    assert main([*flags, "--output-dir", str(tmp_path / "eager")]) == 0
    assert main([*flags, "--output-dir", str(tmp_path / "compiled"), "--compile"]) == 0
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "eager"), rel=1e-4)
    assert (
        main(
            [
                "eval",
                str(tmp_path / "compiled"),
                "--json",
                str(tmp_path / "scores.json"),
                "--threads",
                "1",
            ]
        )
        == 0
    )
    results = json.loads((tmp_path / "compiled" / "results.json").read_text())
    assert json.loads((tmp_path / "scores.json").read_text())["test"] == results["test"]


def test_a_machine_that_cannot_compile_is_told_so(small_stores, tmp_path, monkeypatch, capsys):
    import torch._inductor.config as config
    import torch._inductor.cpp_builder as builder
    from torch._inductor.exc import InvalidCxxCompiler

    torch.compiler.reset()

    def none(*args, **kwargs):
        raise InvalidCxxCompiler

    monkeypatch.setattr(builder, "get_cpp_compiler", none)
    monkeypatch.setattr(config, "force_disable_caches", True)
    flags = [
        *FLAGS,
        "--data",
        str(small_stores["avvp"]),
        "--output-dir",
        str(tmp_path / "run"),
        "--compile",
    ]
    assert main(flags) == 1
    text = capsys.readouterr().err
    assert "torch.compile failed" in text and "leave --compile out" in text
