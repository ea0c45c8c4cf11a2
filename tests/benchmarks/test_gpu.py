"""`benchmarks/gpu.py` runs from end to end at toy size on the device that there is."""

from __future__ import annotations

import pytest

from benchmarks import gpu, report


@pytest.mark.slow
def test_the_script_runs_at_toy_size(tmp_path):
    assert gpu.main(["--small", "--json", str(tmp_path / "gpu.json")]) == 0
    rows = {row.name: row for row in report.read(tmp_path / "gpu.json").rows}
    assert any("bf16, compiled: training step" in name for name in rows)
    assert any(row.unit == "frames/s" and row.value > 0 for row in rows.values())


def test_without_an_accelerator_the_full_size_says_what_to_do(capsys, monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    assert gpu.main([]) == 2 and "--small" in capsys.readouterr().out


def test_an_error_of_a_part_is_kept_and_the_rest_goes_on(capsys):
    bench = gpu.Bench(gpu.SMALL, light=True)

    def broken() -> str:
        raise RuntimeError("out of memory")

    bench.check("one", broken)
    bench.check("two", lambda: "fine")
    assert bench.failed == ["one"] and "two: fine" in capsys.readouterr().out
