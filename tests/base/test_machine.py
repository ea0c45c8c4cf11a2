"""What is written down about the machine and the code."""

import subprocess
from pathlib import Path

import pytest

from avplatform.base.machine import describe

ROOT = Path(__file__).resolve().parents[2]


def test_a_checkout_is_named_by_its_commit():
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    head = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    assert describe()["commit"].removesuffix("+") == head
