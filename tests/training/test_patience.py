"""A run ends when its patience is over, and selects by the figures that it was told."""

from __future__ import annotations

import json

from avplatform.config.compose import compose
from avplatform.training.loop import Run
from tests.models.cells import SMALL


def test_a_run_without_progress_ends_early_and_is_complete(small_stores, tmp_path):
    options = {
        "task": "avvp",
        "encoder": "han",
        "decoder": "mmil",
        "supervision": "weak",
        "data": str(small_stores["avvp"]),
        "output_dir": str(tmp_path / "run"),
        "epochs": 9,
        "batch_size": 12,
        "optim": {"lr": 1e-12},
        "ties": "first",
        "patience": 2,
        "select_by": "event_A+event_V",
        "cpu": True,
        "save_plots": False,
        "encoder_config": SMALL["han"],
    }
    content = Run(compose(("test", options))).train()
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    epochs = [r for r in lines if r["event"] == "epoch"]
    assert [r["epoch"] for r in epochs] == [1, 2, 3] and content["selection"]["epoch"] == 1
    mean = (epochs[0]["event_A"] + epochs[0]["event_V"]) / 2
    assert content["selection"]["metric"] == "event_A+event_V"
    assert content["selection"]["value"] == mean
