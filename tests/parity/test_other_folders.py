"""The harness reads any folder of the same format: fewer cases, fewer tensors, other numbers."""

import json
import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.forked import run_forked
from tests.parity.golden_case import DEFAULT_GOLDEN

ROOT = Path(__file__).resolve().parent.parent.parent


def run(folder):
    flags = ["-q", "-p", "no:cacheprovider", "--golden", str(folder)]
    code = "import sys, pytest; raise SystemExit(pytest.main(sys.argv[1:]))"
    test = "tests/parity/test_parity.py"
    done = run_forked(code, test, *flags, env=dict(os.environ), cwd=ROOT, timeout=600)
    lines = [
        line for line in done.stdout.splitlines() if line.startswith(("parity:", "not covered:"))
    ]
    return done.returncode, lines


def copy(folder, *names):
    for name in names:
        for file in DEFAULT_GOLDEN.glob(f"{name}.*"):
            shutil.copy(file, folder / file.name)


@pytest.mark.slow
def test_fewer_cases_and_fewer_tensors_are_compared_on_what_there_is(tmp_path):
    copy(tmp_path, "han_loss", "mmil_pool")
    (tmp_path / "a_case_of_tomorrow.json").write_text("{}")
    stored = load_file(tmp_path / "mmil_pool.safetensors")
    save_file({"a_prob": stored["a_prob"]}, tmp_path / "mmil_pool.safetensors")
    assert run(tmp_path) == (
        0,
        ["not covered: a_case_of_tomorrow", "parity: 2 passed, 0 failed, 1 not covered"],
    )


def test_a_wrong_number_fails(tmp_path):
    copy(tmp_path, "mmil_pool")
    stored = load_file(tmp_path / "mmil_pool.safetensors")
    stored["a_prob"][0, 0] += 0.01
    save_file(stored, tmp_path / "mmil_pool.safetensors")
    assert run(tmp_path) == (1, ["parity: 0 passed, 1 failed, 0 not covered"])


@pytest.mark.slow
def test_another_seed_is_another_case(tmp_path):
    copy(tmp_path, "ave_att")
    data = json.loads((tmp_path / "ave_att.json").read_text())
    (tmp_path / "ave_att.json").write_text(json.dumps({**data, "case_seed": data["case_seed"] + 1}))
    assert run(tmp_path) == (1, ["parity: 0 passed, 1 failed, 0 not covered"])


def test_a_case_without_tensors_fails(tmp_path):
    copy(tmp_path, "mmil_pool")
    (tmp_path / "mmil_pool.safetensors").unlink()
    assert run(tmp_path) == (1, ["parity: 0 passed, 1 failed, 0 not covered"])
