"""What stops an evaluation stops all of its processes, with the same error."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from avplatform.config.build import build_model, build_task
from avplatform.config.run import default_config
from avplatform.data import open_data

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 90  # a process that waits for another would wait for half an hour

WORKER = """
import sys
from pathlib import Path
from accelerate import Accelerator
from avplatform.tasks.registry import task_of_model
from avplatform.data import open_data
from avplatform.base.machine import leave
from avplatform.evaluation.evaluate import evaluate
from avplatform.models.av_model import AVModel
model, store, out, broken, kind = \
sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
accelerator = Accelerator(cpu=True)
model = AVModel.from_pretrained(model)
split = open_data(store, task="avvp").split("test")
batch = split.batch
def breaking(indices):
    if accelerator.process_index == broken and kind == "stranger":
        raise OSError("the disk is gone")
    found = batch(indices)
    if accelerator.process_index == broken:
        del found.labels["dense_audio"]
    return found
split.batch = breaking
try:
    evaluate(model, task_of_model(model.config), split, accelerator=accelerator, batch_size=5)
    text = "nothing"
except Exception as error:
    text = f"{type(error).__name__}: {error}"
(out / f"{accelerator.process_index}.txt").write_text(text)
leave(accelerator)
"""


@pytest.fixture(scope="module")
def model(small_stores, tmp_path_factory):
    """A model of random weights, saved."""
    config, folder = default_config("avvp"), tmp_path_factory.mktemp("model")
    spec = open_data(small_stores["avvp"], task="avvp").spec
    build_model(config, build_task(config), spec).save_pretrained(str(folder))
    return folder


def torchrun(*args):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("AVP_", "PYTEST"))}
    env.update(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        *map(str, args),
    ]
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=SECONDS
    )


@pytest.mark.parametrize("broken", [pytest.param(0, marks=pytest.mark.slow), 1])
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("label", "DataError: the split has no 'dense_audio' labels"),
        ("stranger", "RuntimeError: OSError: the disk is gone"),
    ],
)
def test_an_error_of_one_process_is_raised_on_all(
    model, small_stores, tmp_path, broken, kind, text
):
    (tmp_path / "worker.py").write_text(WORKER)
    done = torchrun(tmp_path / "worker.py", model, small_stores["avvp"], tmp_path, broken, kind)
    assert done.returncode == 0, done.stderr[-2000:]
    texts = [(tmp_path / f"{index}.txt").read_text() for index in range(2)]
    assert texts[0] == texts[1] and texts[0].startswith(text)


def test_a_split_without_labels_ends_the_command_on_two_processes(model, small_stores, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(small_stores["avvp"], store, ignore=shutil.ignore_patterns(".arrays"))
    manifest = json.loads((store / "dataset.json").read_text())
    manifest["spec"]["label_splits"] = {"dense_audio": ["test"]}
    (store / "dataset.json").write_text(json.dumps(manifest))
    # All clips are in the first process's batch: the second has none, and goes straight to where
    # it would wait.
    done = torchrun(
        "-m", "avplatform", "eval", model, "--data", store, "--split", "validation", "--cpu"
    )
    assert done.returncode == 1
    assert done.stderr.count("error: the split has no 'dense_audio' labels") == 1
    assert "Traceback" not in done.stderr.split("torch/distributed")[0]
