"""Time extraction by two nodes of a Ray cluster against one: `python -m benchmarks.scale`.

Each node is a raylet on this machine that is pinned to a core of its own and has one worker of one
thread; the head has no worker. One node and two nodes extract the same rendered videos in turn, and
every store is compared with that of one machine, byte for byte. The rate is that of the files after
the first one of every worker, as all machines begin with loading networks; the time of the whole
command stands beside it. A figure is the median over rounds of the ratio within a round. Run it on
a machine that does nothing else: the driver and the cluster's own processes share the two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from avplatform.base.machine import make_accelerator
from avplatform.features.extract import extract
from avplatform.features.extractor import Extractor
from avplatform.features.recipe import FeatureRecipe
from avplatform.features.sources import Catalogue, find_files
from avplatform.features.spread import spread_pieces
from avplatform.scale.engine import import_ray
from avplatform.scale.options import EngineOptions
from benchmarks.speed.features import make_video, make_weights

STORE = 100 * 2**20
RECIPE = {"audio": "vggish", "visual": "timm:tf_efficientnet_lite0", "motion": None}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        parser.error("two nodes need two cores")
    with tempfile.TemporaryDirectory() as place:
        rounds = measure(Path(place), cores, options.videos, options.rounds)
    ratios = {
        name: [two[name] / one[name] for one, two in rounds] for name in ("rate", "whole rate")
    }
    print(f"{options.videos} videos of 10 s, {options.rounds} rounds, cores {cores[:2]}")
    for name, values in ratios.items():
        one, two = (statistics.median(pair[n][name] for pair in rounds) for n in (0, 1))
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(
            f"{name:<11} one node {one:.3f} videos/s, two nodes {two:.3f} videos/s, "
            f"ratio {statistics.median(values):.2f} ({spread})"
        )
    if options.json:
        content = {"videos": options.videos, "rounds": rounds, "ratios": ratios}
        Path(options.json).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def measure(folder: Path, cores: list[int], videos: int, rounds: int) -> list[Any]:
    """Return, per round, the rates of one node and of two."""
    make = prepare(folder, videos)
    found = find_files([folder / "videos"])
    accelerator = make_accelerator(cpu=True, precision="no", threads=1)

    def run(out: Path, address: str | None, nodes: int) -> dict[str, float]:
        times: list[float] = []
        engine = EngineOptions(engine="ray", address=address)
        begun = time.monotonic()
        extract(
            found,
            out,
            make(device=accelerator.device),
            Catalogue("avvp"),
            name="benchmark",
            spread=spread_pieces(make, engine, accelerator) if address else None,
            advance=lambda: times.append(time.monotonic()),
        )
        rate = (len(times) - nodes) / (times[-1] - times[nodes - 1])
        return {"rate": rate, "whole rate": videos / (time.monotonic() - begun)}

    alone = folder / "alone"
    run(alone, None, 1)
    measured = []
    for number in range(rounds):
        pair = []
        for nodes in (1, 2):
            out = folder / f"round{number}-{nodes}"
            cluster = start(cores[:nodes], cores)
            try:
                pair.append(run(out, cluster.address, nodes))
            finally:
                cluster.shutdown()
            same = all(
                (out / file.name).read_bytes() == file.read_bytes() for file in alone.iterdir()
            )
            assert same, f"the store of {nodes} nodes differs from that of one machine"
            shutil.rmtree(out)
        measured.append(pair)
    return measured


def prepare(folder: Path, videos: int) -> partial[Extractor]:
    """Render a video, copy it, and return what makes the extractor."""
    (folder / "videos").mkdir()
    rendered = make_video(folder / "made.mp4")
    for number in range(videos):
        shutil.copyfile(rendered, folder / "videos" / f"v{number:03d}.mp4")
    weights = make_weights(folder, "tf_efficientnet_lite0")
    return partial(Extractor, FeatureRecipe(name="benchmark", **RECIPE), weights, dtype="float32")


def start(nodes: list[int], cores: list[int]) -> Any:
    """Start a cluster with one node on each of some cores."""
    import_ray()
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for core in nodes:
        os.sched_setaffinity(0, {core})  # what a process starts inherits its cores
        cluster.add_node(num_cpus=1, object_store_memory=STORE)
    os.sched_setaffinity(0, set(cores))
    return cluster


if __name__ == "__main__":
    main()
