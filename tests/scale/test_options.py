"""What the nodes of a cluster are asked for, and what their loss may not hide."""

from types import SimpleNamespace

import pytest

pytest.importorskip("pyarrow")

from avplatform.scale.engine import room
from avplatform.scale.options import EngineOptions
from avplatform.sweeps.nodes import NodePool


@pytest.mark.parametrize(("cpu", "gpus", "workers"), [(False, 1.0, 2), (True, 0.0, 8)])
def test_a_worker_has_a_gpu_where_there_are_some_unless_the_work_stays_on_the_cpu(
    cpu, gpus, workers
):
    node = {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}}
    ray = SimpleNamespace(nodes=lambda: [node])
    assert room(ray, EngineOptions(engine="ray"), 100, cpu=cpu) == (workers, gpus)


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
