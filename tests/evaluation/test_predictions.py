"""Files of predictions: what goes in comes out, and nothing else is taken for one."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from avplatform.data.adapters.registry import make_task
from avplatform.models.errors import DataError
from avplatform.runs.predictions import Predictions, load_predictions, save_predictions


def predictions(clips=7):
    rng = np.random.default_rng(0)
    state = {"row": np.arange(clips) * 3}
    for name in ("predicted_audio", "predicted_visual", "true_audio", "true_visual"):
        state[name] = rng.random((clips, 10, 25)) < 0.2
    state["video"], state["weak"] = rng.random((2, clips, 25)) < 0.3
    evidence = {
        "audio": rng.random((clips, 10, 25), dtype=np.float32),
        "gate_audio": rng.random((clips, 25)) < 0.5,
    }
    return Predictions(
        split="test", state=state, evidence=evidence, about={"task": "avvp", "seed": 3}
    )


def test_a_file_gives_back_state_exactly_and_evidence_to_half_precision(tmp_path):
    before = predictions()
    after = load_predictions(save_predictions(before, tmp_path / "new" / "p.safetensors"))
    assert (after.split, after.about, len(after)) == ("test", before.about, 7)
    for name, value in before.state.items():
        assert after.state[name].dtype == value.dtype and np.array_equal(after.state[name], value)
    assert np.array_equal(after.evidence["gate_audio"], before.evidence["gate_audio"])
    assert np.abs(after.evidence["audio"] - before.evidence["audio"]).max() <= 2**-12
    task = make_task("avvp")
    assert after.metrics(task).compute() == before.metrics(task).compute()
    assert [f.name for f in (tmp_path / "new").iterdir()] == ["p.safetensors"]


def test_llps_test_split_takes_less_than_two_megabytes(tmp_path):
    state = {
        n: np.zeros((1200, 10, 25), bool)
        for n in ("predicted_audio", "predicted_visual", "true_audio", "true_visual")
    }
    evidence = {name: np.zeros((1200, 10, 25), np.float32) for name in ("audio", "visual")}
    whole = Predictions(split="test", state={"row": np.arange(1200), **state}, evidence=evidence)
    assert save_predictions(whole, tmp_path / "p.safetensors").stat().st_size < 1_500_000


def test_a_task_without_evidence_keeps_its_state(tmp_path):
    plain = Predictions(split="test", state={"row": np.arange(3)}, evidence=None)
    assert load_predictions(save_predictions(plain, tmp_path / "p.safetensors")).evidence is None


def test_what_is_no_file_of_predictions_is_said(tmp_path):
    file = tmp_path / "p.safetensors"
    with pytest.raises(DataError, match="no predictions in .*avplatform eval"):
        load_predictions(file)
    save_file({"row": np.arange(3)}, file)
    with pytest.raises(DataError, match="is not a file of predictions"):
        load_predictions(file)
    save_predictions(predictions(), file)
    whole = file.read_bytes()
    for part in (whole[: len(whole) // 2], whole[:4], b""):
        file.write_bytes(part)
        with pytest.raises(DataError, match="damaged"):
            load_predictions(file)


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the predictions"):
        save_predictions(predictions(), tmp_path / "file" / "p.safetensors")
