"""What the nodes of a cluster are asked for, and what their loss may not hide."""

import contextlib
from types import SimpleNamespace

import pytest

pytest.importorskip("pyarrow")

from avplatform.models.errors import DataError
from avplatform.scale import engine
from avplatform.scale.child import Answer
from avplatform.scale.engine import room, share
from avplatform.scale.options import EngineOptions
from avplatform.sweeps.nodes import NodePool


@pytest.mark.parametrize(("cpu", "gpus", "workers"), [(False, 1.0, 2), (True, 0.0, 8)])
def test_a_worker_has_a_gpu_where_there_are_some_unless_the_work_stays_on_the_cpu(
    cpu, gpus, workers
):
    node = {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}}
    ray = SimpleNamespace(nodes=lambda: [node])
    assert room(ray, EngineOptions(engine="ray"), 100, cpu=cpu) == (workers, gpus)


@pytest.mark.parametrize(
    ("reason", "passes", "remedy"),
    [
        ("2 worker(s) were killed due to the node running low on memory", 1, "--worker-memory"),
        ("the worker died; causes include: killed by the OOM killer due to high memory", 5, ""),
    ],
    ids=["memory", "any other"],
)
def test_a_cluster_that_gives_up_is_asked_again_unless_memory_ran_out(
    monkeypatch, reason, passes, remedy
):
    asked = []

    def rows(ray, make, items, options, cpu):
        asked.append(len(items))
        if len(items) > 2:
            yield items[0]["key"], Answer(status="done")
        raise RuntimeError(reason)

    monkeypatch.setattr(engine, "connected", lambda options: contextlib.nullcontext())
    monkeypatch.setattr(engine, "_rows", rows)
    items = [{"key": str(number), "name": str(number)} for number in range(4)]
    with pytest.raises(DataError, match="what is done stays: run the same command again") as error:
        share(lambda: str, items, EngineOptions(engine="ray"))
    assert asked == [4, 3, *[2] * passes]  # calls that bring something on do not count
    assert str(error.value).endswith(remedy or "again")


def test_ending_the_runs_of_a_lost_cluster_hides_no_earlier_error(tmp_path):
    def lost(*args, **more):
        raise ConnectionError("the cluster is lost")

    pool = NodePool(logs=tmp_path, parallel=1, ray=SimpleNamespace(cancel=lost), task=None)
    pool.running = [SimpleNamespace(answer=None, job=SimpleNamespace(name="one"))]
    with pytest.raises(KeyboardInterrupt):
        try:
            raise KeyboardInterrupt
        finally:
            pool.stop()
    assert pool.names() == set()
