"""Nodes of a cluster write the bytes of one machine, whatever ends in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avplatform.cli import main
from avplatform.models.errors import DataError, UsageError
from avplatform.scale import engine
from avplatform.scale.engine import share
from avplatform.scale.options import EngineOptions
from tests.posix import needs_posix
from tests.scale import works
from tests.scale.conftest import FILES, add_node, bytes_of, environment, on, start

pytestmark = needs_posix


def extract(place, out, cluster, *flags):
    folder, recipe = place
    args = ["extract", str(folder / "videos"), "--out", str(out), *recipe, *flags]
    return [*args, *on(cluster)]


def test_nodes_write_the_bytes_of_one_machine_and_list_the_damaged_video(
    place, alone, cluster, tmp_path, capsys
):
    assert main(extract(place, tmp_path / "nodes", cluster)) == 1
    assert "damaged.mp4" in capsys.readouterr().out
    assert bytes_of(tmp_path / "nodes") == bytes_of(alone)
    report = json.loads((tmp_path / "nodes" / "extract_report.json").read_text())
    assert len(report["sources"]) == FILES - 1 and len(report["bad"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["nodes"]


def test_items_are_answered_once_each_whatever_they_do(cluster):
    kinds = ["good", "bad", "crash", *["good"] * 5]
    items = [{"key": str(n), "name": f"{n}", "kind": kind} for n, kind in enumerate(kinds)]
    done = []
    options = EngineOptions(engine="ray", address=cluster.address)
    found = share(works_begin, items, options, told=lambda key, _: done.append(key))
    assert [found[str(n)].status for n in range(8)] == ["done", "bad", "bad", *["done"] * 5]
    assert sorted(done) == sorted(found)


def works_begin():
    return works.work


def test_an_error_that_every_item_has_ends_the_work(cluster):
    options = EngineOptions(engine="ray", address=cluster.address)
    with pytest.raises(DataError, match="cannot write there"):
        share(works.begin, [{"key": "1", "name": "1", "kind": "usage"}], options)


@pytest.mark.slow
def test_an_item_that_ends_its_worker_each_time_ends_the_work_with_a_sentence(cluster, monkeypatch):
    for name in ("RESTARTS", "RETRIES", "PASSES"):
        monkeypatch.setattr(engine, name, 1)
    options = EngineOptions(engine="ray", address=cluster.address)
    items = [{"key": "1", "name": "1", "kind": "end the worker"}]
    with pytest.raises(DataError, match=r"the cluster gave up .* run the same command again$"):
        share(works_begin, items, options)


def test_a_cluster_without_room_for_a_worker_is_refused(cluster):
    options = EngineOptions(engine="ray", address=cluster.address, worker_cpus=3)
    with pytest.raises(UsageError, match="no node of the cluster has room for a worker of 3 CPUs"):
        share(works.begin, [{"key": "1", "name": "1", "kind": "good"}], options)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["node", "worker", "child", "driver"])
def test_what_is_killed_in_mid_extraction_costs_only_unfinished_files(
    place, alone, cluster, tmp_path, victim, capsys
):
    out = tmp_path / "nodes"
    args = extract(place, out, cluster)
    log = tmp_path / "log.txt"
    driver = start(args, log)
    try:
        pieces = wait_for_pieces(tmp_path, 4, driver)
        assert pieces < FILES - 2, "it is too late to kill anything"
        kill(victim, driver, cluster)
        driver.wait(400)
    finally:
        driver.kill()
    if victim == "driver":
        assert not out.exists() and driver.returncode == -signal.SIGKILL
        assert main(args) == 1
        assert "had been extracted by an earlier attempt" in capsys.readouterr().out
    else:
        assert driver.returncode == 1, log.read_text()
        assert "1 file of 24 left out" in log.read_text()
    assert bytes_of(out) == bytes_of(alone)


@pytest.mark.slow
def test_one_damaged_video_in_a_hundred_is_listed_and_costs_no_other(
    place, cluster, tmp_path, capsys
):
    from tests.features.clips import beep, render

    videos = tmp_path / "videos"
    videos.mkdir()
    for n in range(100):
        grey = np.full((48, 64, 3), 2 * n, np.uint8)
        render(videos / f"v{n:02d}.mp4", pictures=[grey] * 4, fps=4, sound=beep(1, 0, 0.01 * n))
    whole = (videos / "v57.mp4").read_bytes()
    (videos / "v57.mp4").write_bytes(whole[: len(whole) // 3])
    args = ["extract", str(videos), *place[1], "--out"]
    assert main([*args, str(tmp_path / "alone")]) == 1
    assert main([*args, str(tmp_path / "nodes"), *on(cluster)]) == 1
    assert "1 file of 100 left out" in capsys.readouterr().out
    assert bytes_of(tmp_path / "nodes") == bytes_of(tmp_path / "alone")
    report = json.loads((tmp_path / "nodes" / "extract_report.json").read_text())
    assert len(report["sources"]) == 99 and "v57" not in report["sources"]
    [(file, reason)] = report["bad"]
    assert file == str(videos / "v57.mp4") and reason


@pytest.mark.slow
def test_a_video_that_needs_more_memory_than_a_worker_may_take_costs_no_other(
    place, cluster, tmp_path, capsys
):
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("v00", "v01", "v02", "long"):
        shutil.copyfile(place[0] / "videos" / f"{name}.mp4", videos / f"{name}.mp4")
    args = ["extract", str(videos), "--long", "first", *place[1], "--out"]
    assert main([*args, str(tmp_path / "alone")]) == 0
    write_hour(videos / "hour.mka")
    args += [str(tmp_path / "nodes"), *on(cluster), "--worker-memory", "2"]
    assert main(args) == 1
    assert "1 file of 5 left out" in capsys.readouterr().out
    alone, nodes = (bytes_of(tmp_path / name) for name in ("alone", "nodes"))
    shards = [name for name in alone if name.endswith(".parquet")]
    assert shards and [nodes[name] for name in shards] == [alone[name] for name in shards]
    [(file, reason)] = json.loads(nodes["extract_report.json"])["bad"]
    assert file == str(videos / "hour.mka") and "more memory" in reason


def write_hour(path: Path, *, rate: int = 8, seconds: int = 3590) -> None:
    """Write 58 kB of sound in one frame, which becomes 230 MB of samples, in several copies."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, rate * seconds), np.int16), format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def wait_for_pieces(folder: Path, count: int, driver: subprocess.Popen) -> int:
    """Wait until some files are extracted, and return their number."""
    until = time.monotonic() + 400
    while time.monotonic() < until and driver.poll() is None:
        found = len(list(folder.glob(".nodes.extract/*.safetensors")))
        if found >= count:
            return found
        time.sleep(0.1)
    raise AssertionError("no file was extracted")


def kill(victim: str, driver: subprocess.Popen, cluster) -> None:
    """End a process of the cluster with SIGKILL, as the system does where memory runs out."""
    if victim == "driver":
        driver.kill()
    elif victim == "node":
        cluster.remove_node(cluster.ours.pop(), allow_graceful=False)
        cluster.ours.append(add_node(cluster))
    else:
        child = works.processes(cluster.mark, "avplatform.scale.child")[0]
        actor = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(child if victim == "child" else actor, signal.SIGKILL)


def test_options_of_a_cluster_without_a_cluster_are_refused(tmp_path, capsys):
    args = ["extract", str(tmp_path), "--out", str(tmp_path / "o"), "--address", "auto"]
    assert main(args) == 2
    assert "--address is for work on a Ray cluster" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--threads", "2"], "on a cluster, give --worker-cpus"),
        (["--worker-gpus", "1.5"], "above 1, give a whole number"),
    ],
)
def test_options_that_a_cluster_cannot_keep_are_refused(tmp_path, capsys, flags, said):
    args = ["extract", str(tmp_path), "--out", str(tmp_path / "o"), "--engine", "ray"]
    assert main([*args, *flags]) == 2
    assert said in capsys.readouterr().err


def test_without_the_engine_nothing_of_ray_is_imported(place, tmp_path):
    folder, recipe = place
    video = str(folder / "videos" / "v00.mp4")
    code = (
        "import sys; from avplatform.cli import main; assert main(sys.argv[1:]) == 0; "
        "print([name for name in sys.modules if name.split('.')[0] in ('ray', 'fsspec', 's3fs')])"
    )
    args = ["extract", video, "--out", str(tmp_path / "o"), *recipe]
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_where_ray_is_missing_a_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install \"avplatform\[scale\]\""):
        share(works.begin, [{"key": "1"}], EngineOptions(engine="ray"))
