"""What launchers say in the environment is checked before anything else."""

import subprocess
from pathlib import Path

import pytest

from avplatform.base.machine import describe
from avplatform.cli import main


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORLD_SIZE", "x"),
        ("WORLD_SIZE", "0"),
        ("WORLD_SIZE", ""),
        ("RANK", "-1"),
        ("LOCAL_RANK", "one"),
        ("LOCAL_WORLD_SIZE", "²"),
    ],
)
def test_a_launchers_variable_that_is_no_number_is_refused_by_name(
    monkeypatch, capsys, tmp_path, name, value
):
    monkeypatch.setenv(name, value)
    out = tmp_path / "run"
    assert (
        main(["train", "--task", "avel", "--cpu", "--max-steps", "1", "--output-dir", str(out)])
        == 2
    )
    assert f"the environment variable {name} is {value!r}" in capsys.readouterr().err
    assert not out.exists()


def test_results_of_a_checkout_name_its_commit():
    root = Path(__file__).resolve().parent.parent
    head = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True
    )
    if head.returncode:
        pytest.skip("not a git checkout")
    assert describe()["commit"].removesuffix("+") == head.stdout.strip()
