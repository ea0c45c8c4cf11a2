"""Every golden case that the code covers is met within its tolerance."""

from __future__ import annotations

from tests.parity.golden_case import Case


def test_golden(golden_case: Case, handlers: dict) -> None:
    handlers[golden_case.name](golden_case)
