"""Which function checks which golden case."""

from __future__ import annotations

from collections.abc import Callable

from tests.parity import (
    cases_cmbs,
    cases_cmpae,
    cases_dhhn,
    cases_mgn,
    cases_mmpyr,
    cases_models,
    cases_numbers,
    cases_ovavel,
    cases_ovavel_models,
    cases_psp,
    cases_refine,
    cases_strategies,
    cases_training,
)

HANDLERS: dict[str, Callable[..., None]] = {
    **cases_models.CASES,
    **cases_mmpyr.CASES,
    **cases_numbers.CASES,
    **cases_psp.CASES,
    **cases_refine.CASES,
    **cases_cmbs.CASES,
    **cases_cmpae.CASES,
    **cases_mgn.CASES,
    **cases_dhhn.CASES,
    **cases_training.CASES,
    **cases_strategies.CASES,
    **cases_ovavel.CASES,
    **cases_ovavel_models.CASES,
}
