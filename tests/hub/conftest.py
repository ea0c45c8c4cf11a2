"""Results to make cards of, and a stand-in for the Hub."""

import json

import pytest

from avplatform.hub.cards import render_model_card
from tests.hub.fake_hub import FakeHub
from tests.models.cells import build

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


HUB_DATA = {
    "training_data": {
        "dataset": "AVE",
        "clips": {"train": 3339, "validation": 402, "test": 402},
        "labels": None,
        "hub": {"repo": "owner/clips", "revision": "0" * 40},
    }
}
"""What results.json holds beside `RESULTS` where the data were read from the Hub."""
INTERVALS = {
    "confidence": {
        "level": 0.95,
        "resamples": 1000,
        "seed": 0,
        "videos": 402,
        "test": {"accuracy": {"value": 59.876, "low": 57.125, "high": 62.5, "error": 1.4}},
    }
}


def results_of(task: str, encoder: str, decoder: str, **changes) -> dict:
    return {**RESULTS, "task": task, "encoder": encoder, "decoder": decoder, **changes}


@pytest.fixture
def hub():
    server = FakeHub()
    yield server
    server.close()


@pytest.fixture
def run(tmp_path):
    """A finished run's folder, as training writes it."""
    model, folder = build("avel", "ave", "leap"), tmp_path / "run"
    model.save_pretrained(folder / "model")
    (folder / "model" / "README.md").write_text(render_model_card(RESULTS, model.config.to_dict()))
    (folder / "results.json").write_text(json.dumps(RESULTS))
    (folder / "config.yaml").write_text("task: avel\n")
    return folder
