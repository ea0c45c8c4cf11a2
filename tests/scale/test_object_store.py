"""Input and output on an object store: the bytes of a local store, and the manifest last."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from avplatform.base.places import Remote
from avplatform.cli import main
from avplatform.data.store.writer import StoreWriter
from avplatform.models.errors import UsageError
from tests.scale.conftest import bytes_of, environment


@pytest.fixture(scope="module")
def videos(bucket, place):
    """The videos on the object store."""
    folder = Remote(f"{bucket}/videos")
    for file in (place[0] / "videos").iterdir():
        (folder / file.name).write(file)
    return folder


@pytest.fixture
def out(bucket, request):
    return Remote(f"{bucket}/{request.node.name.replace('[', '-').replace(']', '')}")


def objects_of(folder: Remote) -> dict[str, bytes]:
    return {"/".join(file.parts_after(folder)): file.read_bytes() for file in folder.files()}


def assert_same(out: Remote, videos: Remote, alone, place) -> None:
    """The store has the bytes of the local one, but for the addresses of files in its report."""
    expected, found = bytes_of(alone), objects_of(out)
    report = expected.pop("extract_report.json").decode()
    report = report.replace(str(place[0] / "videos"), str(videos))
    assert found.pop("extract_report.json").decode() == report
    assert found == expected


def test_a_store_on_s3_is_the_local_one(videos, out, alone, place, capsys):
    args = ["extract", str(videos), "--out", str(out), *place[1]]
    assert main(args) == 1
    assert f"{videos}/damaged.mp4" in capsys.readouterr().out
    assert_same(out, videos, alone, place)
    assert not out.with_name(f".{out.name}.extract").exists()
    assert main(args) == 2
    assert "holds a store (dataset.json); give a new address" in capsys.readouterr().err


def test_a_stopped_extraction_goes_on_from_its_pieces(
    videos, out, alone, place, capsys, monkeypatch
):
    args = ["extract", str(videos), "--out", str(out), *place[1]]
    add, added = StoreWriter.add, []

    def stop(self, split, columns):
        if len(added) == 3:
            raise KeyboardInterrupt
        added.append(1)
        add(self, split, columns)

    monkeypatch.setattr(StoreWriter, "add", stop)
    assert main(args) == 130 and not (out / "dataset.json").exists()
    monkeypatch.setattr(StoreWriter, "add", add)
    assert main(args) == 1
    assert "had been extracted by an earlier attempt" in capsys.readouterr().out
    assert_same(out, videos, alone, place)


def test_a_place_that_holds_something_else_is_refused(videos, out, place, capsys):
    (out / "notes.txt").write(b"mine")
    assert main(["extract", str(videos), "--out", str(out), *place[1]]) == 2
    assert "is not empty (notes.txt)" in capsys.readouterr().err
    assert objects_of(out) == {"notes.txt": b"mine"}


def test_of_two_writers_the_second_is_refused(out, alone):
    from avplatform.data.store.partial import RemoteFolder
    from avplatform.models.errors import DataError

    def written() -> RemoteFolder:
        folder = RemoteFolder(out)
        folder.open()
        for name, content in bytes_of(alone).items():
            (folder.folder / name).write_bytes(content)
        return folder

    first, second = written(), written()
    first.publish()
    with pytest.raises(DataError, match="another process has written a store"):
        second.publish()
    assert objects_of(out) == bytes_of(alone)
    with pytest.raises(UsageError, match="holds a store"):
        written()
    first.close(keep=False)
    second.close(keep=False)


@pytest.mark.slow
def test_nodes_write_to_s3_and_a_driver_that_was_killed_is_followed_by_another(
    videos, out, alone, place, cluster, tmp_path, capsys
):
    args = ["extract", str(videos), "--out", str(out), *place[1]]
    args += ["--engine", "ray", "--address", cluster.address]
    pieces, log = out.with_name(f".{out.name}.extract"), tmp_path / "log.txt"
    with log.open("w") as file:
        driver = subprocess.Popen(
            [sys.executable, "-m", "avplatform", *args],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment(),
        )
    until = time.monotonic() + 400
    while len(pieces.files()) < 4:
        assert time.monotonic() < until and driver.poll() is None, log.read_text()
        time.sleep(0.2)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL and not out.exists()
    assert main(args) == 1
    assert "had been extracted by an earlier attempt" in capsys.readouterr().out
    assert_same(out, videos, alone, place)
