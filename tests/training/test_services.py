"""trackio and wandb without a network: their own files hold the run, also after it was stopped.

They run in a process of their own, since both read their environment when they are imported.
"""

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = """
import sys
from avplatform.cli import main
from avplatform.training import loop

real, steps = loop.optimisation_step, []

def dying(*args, **kwargs):
    steps.append(1)
    if len(steps) == 5:
        raise KeyboardInterrupt
    return real(*args, **kwargs)

loop.optimisation_step = dying
flags = ["--batch-size", "8", "--encoder-config.width", "16", "--encoder-config.hidden", "16"]
flags += ["--cpu", "--precision", "no", "--threads", "1", "--no-save-plots", "--epochs", "2"]
flags += ["--task", "avvp", "--data", sys.argv[1], "--output-dir", "run", "--project", "mine"]
assert main(["train", *flags, "--trackers", sys.argv[2], "--checkpointing.every", "2"]) == 130
loop.optimisation_step = real
assert main(["train", "--resume", "run"]) == 0
"""


def stop_and_resume(tracker, store, folder, **told):
    """Train in `folder`, stop in step 5, and resume; return the id that the run keeps."""
    home = {name: str(folder / "home") for name in ("HOME", "HF_HOME", "XDG_CONFIG_HOME")}
    env = {**os.environ, **home, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **told}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(store), tracker],
        cwd=folder,
        env=env,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return json.loads((folder / "run" / "trackers.json").read_text(encoding="utf-8"))["id"]


def own_records(folder):
    """Return what metrics.jsonl holds of steps and of validations: step and values."""
    lines = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    steps = {r["step"]: r["loss"] for r in records if r["event"] == "step"}
    scores = {r["step"]: r["segment_Type@AV"] for r in records if r["event"] == "epoch"}
    assert sorted(steps) == [1, 2, 3, 4, 5, 6] and sorted(scores) == [3, 6]
    return steps, scores


def logged(data):
    """Yield the records of a .wandb file, which is a log of LevelDB after a header of 7 bytes."""
    at, record = 7, b""
    while at + 7 <= len(data):
        if (room := 32768 - at % 32768) < 7:  # the end of a block is too short for a header
            at += room
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


@pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason="needs trackio")
def test_trackio_has_one_run_with_all_steps_after_a_resume(small_stores, tmp_path):
    store = tmp_path / "trackio"
    key = stop_and_resume("trackio", small_stores["avvp"], tmp_path, TRACKIO_DIR=str(store))
    with sqlite3.connect(store / "mine.db") as base:
        rows = base.execute("SELECT run_id, run_name, step, metrics FROM metrics").fetchall()
        system = base.execute("SELECT count(*) FROM system_metrics").fetchone()
    assert {name for _, name, _, _ in rows} == {f"run-{key}"} and len({id for id, *_ in rows}) == 1
    shown = {group: {} for group in ("train/loss", "validation/segment_Type@AV")}
    for _, _, step, text in rows:
        for name, value in json.loads(text).items():
            if name in shown:  # a step that was taken again has the value that it had
                assert shown[name].setdefault(step, value) == pytest.approx(value)
    steps, scores = own_records(tmp_path)
    assert shown["train/loss"] == pytest.approx(steps)
    assert shown["validation/segment_Type@AV"] == pytest.approx(scores)
    assert system == (0,)  # the machine's load is nobody's business unless it is asked for


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs wandb")
def test_wandb_offline_writes_files_of_one_run_id_before_and_after_a_resume(small_stores, tmp_path):
    from wandb.proto import wandb_internal_pb2

    told = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DISABLE_GIT": "true"}
    key = stop_and_resume("wandb", small_stores["avvp"], tmp_path, **told)
    files = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert [file.name for file in files] == [f"run-{key}.wandb"] * 2
    shown, ids = {}, set()
    for file in files:
        for data in logged(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "run":
                ids.add((record.run.run_id, record.run.project, record.run.display_name))
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                row = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
                for name in {*row} & {"train/loss", "validation/segment_Type@AV"}:
                    shown.setdefault(name, {})[row["_step"]] = row[name]
    assert ids == {(key, "mine", f"run-{key}")}
    steps, scores = own_records(tmp_path)
    assert shown["train/loss"] == pytest.approx(steps)
    assert shown["validation/segment_Type@AV"] == pytest.approx(scores)
