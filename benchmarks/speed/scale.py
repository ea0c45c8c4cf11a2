"""Extraction by two nodes of a Ray cluster against one node, each on a core of its own.

Each node is a raylet on this machine that is pinned to a core and has one worker of one thread; the
head has no worker. Both sides extract the same rendered videos, and every store is compared with
that of this process alone, byte for byte. The work is the seconds per video after the first one of
every worker, as all begin with loading networks; the start of the cluster is not counted either.
Run it on a machine that does nothing else: the driver and the cluster's own processes share the two
cores.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from avplatform.base.machine import available_cores, make_accelerator
from avplatform.features.extract import extract
from avplatform.features.extractor import Extractor
from avplatform.features.recipe import FeatureRecipe
from avplatform.features.sources import Catalogue, find_files
from avplatform.features.spread import spread_pieces
from avplatform.scale.engine import import_ray
from avplatform.scale.options import EngineOptions
from benchmarks.speed.features import make_video, make_weights
from benchmarks.timing import Comparison, Setting, Side

STORE = 100 * 2**20
RECIPE = FeatureRecipe(name="benchmark", audio="vggish", visual="timm:tf_efficientnet_lite0")
VIDEOS = 12


def left_out() -> str:
    """Return why this machine cannot tell, or nothing."""
    if importlib.util.find_spec("ray") is None:
        return "Ray is not installed, see the extra `scale`"
    return "" if available_cores() > 1 else "two nodes need two cores"


def comparisons(setting: Setting) -> dict[str, Callable[[], Iterable[Comparison]]]:
    """Return what is timed."""
    return {"two nodes": partial(both, setting.folder)}


def both(folder: Path, videos: int = VIDEOS) -> Iterable[Comparison]:
    """Yield two nodes against one."""
    extraction = Extraction(folder, videos)
    side = Side(
        name=f"{videos} videos of 10 s to features, two Ray nodes to one",
        run=partial(extraction.seconds_per_video, 2),
        floor=1.7,
        aim=1.95,
    )
    plain = partial(extraction.seconds_per_video, 1)
    yield Comparison(title=side.name, plain=plain, sides=[side], clock="own")


class Extraction:
    """Copies of one rendered video, and the store that this process makes of them."""

    def __init__(self, folder: Path, videos: int) -> None:
        self.folder, self.alone = folder, folder / "alone"
        rendered = make_video(folder / "made.mp4")
        (folder / "videos").mkdir()
        for number in range(videos):
            shutil.copyfile(rendered, folder / "videos" / f"v{number:03d}.mp4")
        weights = make_weights(folder, RECIPE)
        self.make = partial(Extractor, RECIPE, weights, dtype="float32")
        self.accelerator = make_accelerator(cpu=True, precision="no", threads=1)
        self.run(self.alone)

    def seconds_per_video(self, nodes: int) -> float:
        """Extract by some nodes; return the seconds per video after the first one of each.

        Raises:
            RuntimeError: the store is not that of this process alone.
        """
        out = self.folder / f"by {nodes}"
        cluster = start(nodes)
        try:
            times = self.run(out, cluster.address)
        finally:
            cluster.shutdown()
        files = [file.name for file in self.alone.iterdir()]
        same = all((out / n).read_bytes() == (self.alone / n).read_bytes() for n in files)
        shutil.rmtree(out)
        if not same:
            raise RuntimeError(f"the store of {nodes} nodes differs from that of one machine")
        return (times[-1] - times[nodes - 1]) / (len(times) - nodes)

    def run(self, out: Path, address: str | None = None) -> list[float]:
        """Extract here, or by a cluster; return the time at which each video was done."""
        times: list[float] = []
        engine = EngineOptions(engine="ray", address=address)
        extract(
            find_files([self.folder / "videos"]),
            out,
            self.make(device=self.accelerator.device),
            Catalogue("avvp"),
            name="benchmark",
            spread=spread_pieces(self.make, engine, self.accelerator) if address else None,
            advance=lambda: times.append(time.monotonic()),
        )
        return times


def start(nodes: int) -> Any:
    """Start a cluster with some nodes, each on a core of its own."""
    import_ray()
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
    cores = os.sched_getaffinity(0)
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for core in sorted(cores)[:nodes]:
            os.sched_setaffinity(0, {core})  # what a process starts inherits its cores
            cluster.add_node(num_cpus=1, object_store_memory=STORE)
    finally:
        os.sched_setaffinity(0, cores)
    return cluster
