"""Results to make cards of, and a stand-in for the Hub."""

import pytest

from tests.hub.fake_hub import FakeHub

RESULTS = {
    "task": "avel",
    "encoder": "ave",
    "decoder": "leap",
    "supervision": "full",
    "preset": None,
    "data": "demo-avel-1",
    "synthetic": True,
    "data_checksum": "abc",
    "seed": 1,
    "selection": {
        "split": "validation",
        "metric": "accuracy",
        "epoch": 3,
        "step": 75,
        "value": 61.25,
    },
    "validation": {"accuracy": 61.25},
    "test": {"accuracy": 59.876},
    "parameters": 1234567,
    "steps": 350,
    "epochs": 14,
    "batch_size": 32,
    "precision": "bf16",
    "environment": {"command": "train.py --task avel"},
}


def results_of(task: str, encoder: str, decoder: str, **changes) -> dict:
    return {**RESULTS, "task": task, "encoder": encoder, "decoder": decoder, **changes}


@pytest.fixture
def hub():
    server = FakeHub()
    yield server
    server.close()
