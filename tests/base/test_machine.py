"""What is written down about the machine and the code."""

import subprocess
from pathlib import Path

import pytest
import torch

from avplatform.base import machine
from avplatform.base.machine import available_cores, describe, make_accelerator, set_threads

ROOT = Path(__file__).resolve().parents[2]


def test_a_checkout_is_named_by_its_commit():
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    head = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    assert describe()["commit"].removesuffix("+") == head


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("told", "local", "expected"), [
    ("1", "1", 1), ("3", "1", 3), ("2,1", "1", 2), ("", "1", None), ("x", "1", None),
    ("1", "2", "shared"),
])  # fmt: skip
def test_the_variable_for_threads_is_obeyed_without_a_launcher(
    monkeypatch, threads, told, local, expected
):
    """A launcher of several processes sets it to 1 itself."""
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    cores = available_cores()
    wanted = {None: cores, "shared": max(1, cores // 2)}.get(expected, expected)
    assert set_threads(0) == wanted and set_threads(2) == 2


@pytest.mark.parametrize(("told", "mode"), [("no", "no"), ("bf16", "bf16"), (None, "bf16")])
def test_auto_precision_is_what_the_launcher_was_told(monkeypatch, threads, told, mode):
    monkeypatch.setattr(machine, "cpu_has_bf16", lambda: True)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if told is not None:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", told)
    assert make_accelerator(cpu=True, precision="auto", threads=1).mixed_precision == mode
    assert make_accelerator(cpu=True, precision="no", threads=1).mixed_precision == "no"
