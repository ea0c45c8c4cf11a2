"""Errors that a run can meet become messages for a person; what one process does, all learn of."""

import errno

import pytest
import torch
from accelerate import Accelerator
from safetensors import SafetensorError

from avplatform.base.processes import explain, mean_over_processes, on_main
from avplatform.models.errors import DataError


@pytest.fixture
def alone():
    return Accelerator(cpu=True)


class Many:
    num_processes = 2


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "make room, then go on with --resume"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "make room"),
        (
            torch.OutOfMemoryError("CUDA out of memory"),
            "lower --batch-size, or raise --accumulation",
        ),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            "lower --batch-size",
        ),
        (MemoryError(), "lower --batch-size"),
    ],
)
def test_errors_of_the_machine_say_what_to_do(alone, error, message):
    explained = explain(error, alone)
    assert isinstance(explained, DataError) and message in str(explained)


def test_a_lost_process_is_told_from_other_errors():
    lost = RuntimeError(
        "[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1234"
    )
    assert "another process of this run has ended" in str(explain(lost, Many()))
    other = RuntimeError("shape '[3]' is invalid")
    assert explain(other, Many()) is other


def test_an_error_of_the_program_stays_what_it_is(alone):
    for error in (
        ValueError("x"),
        OSError(errno.ENOENT, "gone"),
        RuntimeError("Connection closed by peer"),
    ):
        assert explain(error, alone) is error


def test_the_main_process_acts_and_its_error_is_raised(alone):
    assert on_main(alone, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        on_main(alone, lambda: 1 / 0)


def test_means_are_taken_in_float64(alone):
    value = torch.tensor(0.1, dtype=torch.float64)
    assert mean_over_processes(alone, {"a": value, "stop": 1.0}) == {"a": 0.1, "stop": 1.0}
