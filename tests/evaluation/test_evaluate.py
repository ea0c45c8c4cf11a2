"""What stops an evaluation stops all of its processes, with the same error."""

import json
import shutil
from functools import partial

import pytest
from accelerate import Accelerator

from avplatform.base.machine import leave
from avplatform.config.build import build_model, build_task
from avplatform.config.run import default_config
from avplatform.data import open_data
from avplatform.evaluation.evaluate import evaluate
from avplatform.models.av_model import AVModel
from avplatform.tasks.registry import task_of_model

SECONDS = 90  # a process that waits for another would wait for half an hour


def evaluate_broken(rank, *, model, store, out, broken, kind):
    """In each of two processes: evaluate where one fails; write down what was raised."""
    accelerator = Accelerator(cpu=True)
    model = AVModel.from_pretrained(model)
    split = open_data(store, task="avvp").split("test")
    batch = split.batch

    def breaking(indices):
        if rank == broken and kind == "stranger":
            raise OSError("the disk is gone")
        found = batch(indices)
        if rank == broken:
            del found.labels["dense_audio"]
        return found

    split.batch = breaking
    task = task_of_model(model.config)
    try:
        evaluate(model, task, split, accelerator=accelerator, batch_size=5)
        text = "nothing"
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    (out / f"{accelerator.process_index}.txt").write_text(text)
    leave(accelerator)
    raise SystemExit(0)


@pytest.fixture(scope="module")
def model(small_stores, tmp_path_factory):
    """A model of random weights, saved."""
    config, folder = default_config("avvp"), tmp_path_factory.mktemp("model")
    spec = open_data(small_stores["avvp"], task="avvp").spec
    build_model(config, build_task(config), spec).save_pretrained(str(folder))
    return folder


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
    from tests import processes

    store = small_stores["avvp"]
    given = dict(model=model, store=store, out=tmp_path, broken=broken, kind=kind)
    worker = partial(evaluate_broken, **given)
    launch = processes.Launch([], tmp_path / "log", processes=2, before=worker)
    assert launch.wait(SECONDS) == [0, 0], launch.output()
    texts = [(tmp_path / f"{index}.txt").read_text() for index in range(2)]
    assert texts[0] == texts[1] and texts[0].startswith(text)


def test_a_split_without_labels_ends_the_command_on_two_processes(model, small_stores, tmp_path):
    from tests import processes

    store = tmp_path / "store"
    shutil.copytree(small_stores["avvp"], store, ignore=shutil.ignore_patterns(".arrays"))
    manifest = json.loads((store / "dataset.json").read_text())
    manifest["spec"]["label_splits"] = {"dense_audio": ["test"]}
    (store / "dataset.json").write_text(json.dumps(manifest))
    # All clips are in the first process's batch: the second has none, and goes straight to where
    # it would wait.
    command = ["eval", str(model), "--data", str(store), "--split", "validation", "--cpu"]
    launch = processes.Launch(command, tmp_path / "log", processes=2)
    assert launch.wait(SECONDS) == [1, 1]
    said = launch.output()
    assert said.count("error: the split has no 'dense_audio' labels") == 1
    assert "Traceback" not in said
