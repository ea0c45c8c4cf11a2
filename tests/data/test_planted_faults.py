"""Every planted fault of official files and of stores is found, and named with its place."""

from tests.faults.planted import run_all


def test_every_planted_fault_is_found_and_named(tmp_path):
    faults, out = run_all(tmp_path, clips=42, rows=18)
    assert out == []
    assert len(faults) >= 40 and len({fault.kind for fault in faults}) >= 20
