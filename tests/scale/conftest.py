"""Two nodes on this machine, videos, and the store that one machine makes of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avplatform.base.places import Remote
from avplatform.cli import main
from tests.scale import works

ROOT = Path(__file__).resolve().parents[2]
STORE = 100 * 2**20
FILES = 24


@pytest.fixture(scope="package")
def endpoint():
    """The address of an S3 server on this machine, in the variables that its clients read."""
    patch, port = pytest.MonkeyPatch(), free_port()
    patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    patch.setenv("AWS_ACCESS_KEY_ID", "test")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    yield port
    patch.undo()


@pytest.fixture(scope="package")
def bucket(endpoint, tmp_path_factory):
    """An empty bucket of an S3 server on this machine."""
    pytest.importorskip("moto", reason="needs moto (pip install moto[server])")
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs (pip install avplatform[scale])")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(endpoint)]
    log = tmp_path_factory.mktemp("moto") / "log.txt"
    with log.open("w") as file:
        server = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    until = time.monotonic() + 120
    while time.monotonic() < until and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", endpoint), 1):
            break
        time.sleep(0.1)
    try:
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("bucket")
        yield "s3://bucket"
    finally:
        server.kill()
        server.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="package")
def cluster(endpoint, tmp_path_factory):
    """A Ray cluster: a head without cores, two nodes of one core, and the mark of its processes."""
    pytest.importorskip("ray", reason="needs Ray (pip install avplatform[scale])")
    if sys.platform != "linux":
        pytest.skip("clusters on one machine are tested on Linux")
    from avplatform.scale.engine import import_ray

    patch = pytest.MonkeyPatch()
    mark = str(tmp_path_factory.mktemp("cluster"))
    patch.setenv(works.MARK, mark)
    patch.setenv("PYTHONPATH", str(ROOT))
    patch.setenv("OMP_NUM_THREADS", "1")
    import_ray()
    from ray.cluster_utils import Cluster

    cluster = start_cluster(Cluster)
    cluster.mark = mark
    yield cluster
    cluster.shutdown()
    patch.undo()


def start_cluster(kind, tries=5):
    """Start a cluster; Ray gives a node 30 s, which a machine that is busy may not keep to.

    What it then raises depends on which of its processes was late.
    """
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
    for left in reversed(range(tries)):
        cluster = kind()
        try:
            cluster.add_node(**head)
            cluster.ours = [add_node(cluster) for _ in range(2)]
            return cluster
        except Exception:
            cluster.shutdown()
            if not left:
                raise
    raise AssertionError


def add_node(cluster):
    return cluster.add_node(num_cpus=1, object_store_memory=STORE)


@pytest.fixture(scope="package")
def place(tmp_path_factory):
    """A folder of videos, one of them damaged, and the flags of a small recipe."""
    pytest.importorskip("av", reason="needs PyAV (pip install avplatform[media])")
    from tests.features.clips import beep, render, standard
    from tests.features.networks import small_weights

    place = tmp_path_factory.mktemp("scale")
    videos = place / "videos"
    videos.mkdir()
    rendered = [
        standard(place / f"{n}.mp4", seconds=3, beep_at=n, flash_at=(n + 1) % 3) for n in range(3)
    ]
    for n in range(FILES - 3):
        shutil.copyfile(rendered[n % 3], videos / f"v{n:02d}.mp4")
    standard(videos / "long.mp4", seconds=8)
    render(videos / "sound.m4a", sound=beep(3, 0.5, 2.5))
    data = rendered[0].read_bytes()
    (videos / "damaged.mp4").write_bytes(data[: len(data) // 3])
    weights = small_weights(place)
    named = [f"vggish={weights['vggish']}", f"visual={weights['visual']}"]
    recipe = ["--backbones", "lite", "--audio", "vggish", "--visual", "timm:test_resnet"]
    return place, [*recipe, "--weights", *named, "--cpu", "--segments", "3", "--name", "x"]


@pytest.fixture(scope="package")
def alone(place):
    """The store that one machine writes."""
    folder, flags = place
    out = folder / "alone"
    assert main(["extract", str(folder / "videos"), "--out", str(out), *flags]) == 1
    return out


@pytest.fixture(scope="package")
def trained(tmp_path_factory):
    """A folder of videos, and a run that was trained on their features."""
    pytest.importorskip("av", reason="needs PyAV (pip install avplatform[media])")
    from tests.journey import make_folder

    folder = make_folder(tmp_path_factory.mktemp("trained"), videos=8)
    weights = [f"vggish={folder / 'vggish.pth'}", f"visual={folder / 'test_resnet.safetensors'}"]
    recipe = ["--audio", "vggish", "--visual", "timm:test_resnet", "--motion", "none"]
    args = [str(folder / "videos"), "--events", str(folder / "events.csv"), "--segments", "2"]
    args += ["--out", str(folder / "data"), *recipe, "--weights", *weights, "--cpu"]
    assert main(["extract", *args]) == 0
    train = ["--task", "avvp", "--encoder", "han", "--decoder", "mmil", "--data"]
    train += [str(folder / "data"), "--output-dir", str(folder / "run"), "--max-steps", "2"]
    assert main(["train", *train, "--batch-size", "4", "--cpu", "--threads", "1"]) == 0
    return folder, ["--model", str(folder / "run"), "--weights", *weights, "--cpu"]


def on(cluster):
    return ["--engine", "ray", "--address", cluster.address]


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Return the content of all files of a store."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def objects_of(folder: Remote) -> dict[str, bytes]:
    """Return the content of all objects below a place."""
    return {"/".join(file.parts_after(folder)): file.read_bytes() for file in folder.files()}


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def start(args: list[str], log: Path) -> subprocess.Popen:
    """Start a command of the platform, which writes to a log."""
    with log.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "avplatform", *args],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment(),
        )
