"""A run with guide networks: killed, resumed, and what it leaves behind."""

from __future__ import annotations

import json

from safetensors.torch import load_file

from avplatform.cli import main
from avplatform.models.av_model import AVModel
from tests import processes
from tests.end_to_end.test_runs import SMALL, same, train, train_until_killed, weights


def test_a_killed_run_with_guides_resumes_to_the_same_bits(small_stores, tmp_path):
    flags = ["--encoder", "dhhn", "--decoder", "mmil", "--supervision", "weak",
             "--task-config.guides", "--task-config.guide-width", "16", "--epochs", "2",
             "--checkpointing.every", "2", "--no-save-plots"]  # fmt: skip
    store = small_stores["avvp"]
    assert train("avvp", store, tmp_path / "whole", *flags) == 0
    train_until_killed("avvp", store, tmp_path / "killed", *flags, steps=5)
    assert main(["train", "--resume", str(tmp_path / "killed")]) == 0
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    last = [load_file(tmp_path / n / "checkpoints" / "6" / "model.safetensors")
            for n in ("whole", "killed")]  # fmt: skip
    assert same(*last) and any(name.startswith("companion.") for name in last[0])
    assert any(name.endswith("running_var") for name in last[0])
    saved = load_file(tmp_path / "whole" / "model" / "model.safetensors")
    assert saved and not any(name.startswith("companion.") for name in saved)
    results = json.loads((tmp_path / "whole" / "results.json").read_text())
    loaded = AVModel.from_pretrained(tmp_path / "whole")
    assert results["parameters"] == loaded.num_parameters


def test_several_processes_score_the_model_that_is_saved(small_stores, tmp_path):
    """Batch norms count the clips of each process; what one of them has counted is kept."""
    args = ["train", *SMALL["avvp"], "--encoder", "dhhn", "--decoder", "mmil", "--supervision",
            "weak", "--epochs", "1", "--no-save-plots", "--task-config.guides",
            "--task-config.guide-width", "16", "--data", str(small_stores["avvp"]),
            "--output-dir", str(tmp_path / "run")]  # fmt: skip
    processes.run(args, tmp_path / "log", processes=2)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    # The first score is of each process's own model, the second of the saved one.
    assert results["selection"]["value"] == results["validation"]["segment_Type@AV"]
    assert main(["eval", str(tmp_path / "run"), "--split", "validation", "--cpu",
                 "--json", str(tmp_path / "scores.json")]) == 0  # fmt: skip
    alone = json.loads((tmp_path / "scores.json").read_text())["validation"]
    assert alone == results["validation"]
