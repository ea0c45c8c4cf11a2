"""Input and output on an object store: the bytes of a local store, and the manifest last."""

from __future__ import annotations

import signal
import time

import pytest

from avplatform.base.places import Remote
from avplatform.cli import main
from avplatform.data.store.partial import RemoteFolder
from avplatform.data.store.writer import StoreWriter
from avplatform.features.pieces import Pieces
from avplatform.models.errors import DataError, UsageError
from tests.posix import needs_posix
from tests.scale.conftest import bytes_of, objects_of, start

pytestmark = needs_posix


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


def test_a_second_command_with_other_options_is_refused_while_the_first_one_runs(
    videos, out, alone, place, capsys, monkeypatch
):
    args = ["extract", str(videos), "--out", str(out), *place[1]]
    other = ["extract", str(videos), "--out", str(out), *place[1], "--segments", "2"]
    pieces, make, codes = out.with_name(f".{out.name}.extract"), Pieces.make, []

    def make_beside_another(self, file):
        if not codes:
            codes.append(main(other))
        make(self, file)

    monkeypatch.setattr(Pieces, "make", make_beside_another)
    assert main(args) == 1 and codes == [1]
    assert f"has begun in {pieces}" in capsys.readouterr().err
    assert_same(out, videos, alone, place)
    assert pieces.files() == []


def test_after_a_command_that_was_stopped_another_may_have_other_options(
    videos, out, alone, place, capsys, monkeypatch
):
    args = ["extract", str(videos), "--out", str(out), *place[1]]
    pieces, make = out.with_name(f".{out.name}.extract"), Pieces.make

    def stop(self, file):
        make(self, file)
        raise KeyboardInterrupt

    monkeypatch.setattr(Pieces, "make", stop)
    assert main([*args, "--segments", "2"]) == 130
    monkeypatch.setattr(Pieces, "make", make)
    [left] = pieces.files()
    mark = pieces / "options.json"
    mark.write(b"of one that was killed")
    assert main(args) == 1
    assert f"if it was killed, remove {mark}" in capsys.readouterr().err
    assert pieces.files() == [left, mark] and out.files() == []
    mark.remove()
    assert main(args) == 1
    assert "by an earlier attempt" not in capsys.readouterr().out
    assert_same(out, videos, alone, place)
    assert pieces.files() == []


def test_a_place_that_holds_something_else_is_refused(videos, out, place, capsys):
    (out / "notes.txt").write(b"mine")
    assert main(["extract", str(videos), "--out", str(out), *place[1]]) == 2
    assert "is not empty (notes.txt)" in capsys.readouterr().err
    assert objects_of(out) == {"notes.txt": b"mine"}


def written(out: Remote, content: dict[str, bytes]) -> RemoteFolder:
    """Return a store that is written, but not published."""
    folder = RemoteFolder(out)
    folder.open()
    for name, some in content.items():
        (folder.folder / name).write_bytes(some)
    return folder


def test_of_two_writers_the_second_is_refused_and_changes_nothing(out, alone):
    content = bytes_of(alone)
    other = {name: some[::-1] for name, some in content.items()}
    first, second = written(out, content), written(out, other | {"a-00000.parquet": b"more"})
    first.publish()
    with pytest.raises(DataError, match=r"another process has written .* meanwhile"):
        second.publish()
    first.close(keep=False)
    second.close(keep=True)
    assert objects_of(out) == content
    with pytest.raises(UsageError, match="holds a store"):
        written(out, content)


def test_of_two_writers_that_write_in_turn_none_publishes_what_the_other_wrote(out, alone):
    content = bytes_of(alone)
    shard = next(name for name in content if name.endswith(".parquet"))
    state = {"splits": {"test": {"shards": [{"file": shard}]}}}
    first = written(out, content)
    first.record(state)
    second = written(out, {name: some[::-1] for name, some in content.items()})
    second.record(state)
    with pytest.raises(DataError, match="another process has written"):
        first.publish()
    assert "dataset.json" not in objects_of(out)
    first.close(keep=True)
    second.close(keep=True)


def test_what_a_stopped_attempt_has_left_is_removed_and_nothing_else(out, alone):
    content = bytes_of(alone)
    stopped = written(out, {"old-00007.parquet": b"old"})
    stopped.record({"splits": {"old": {"shards": [{"file": "old-00007.parquet"}]}}})
    stopped.close(keep=True)
    assert list(objects_of(out)) == ["old-00007.parquet"]
    again = written(out, content)
    again.publish()
    again.close(keep=False)
    assert objects_of(out) == content

    mine = out.with_name(f"{out.name}-mine")
    for name in ("README.md", "train-00000.parquet"):
        (mine / name).write(b"mine")
    with pytest.raises(UsageError, match=r"is not empty \(README.md\)"):
        written(mine, content)
    assert set(objects_of(mine).values()) == {b"mine"}


def test_the_mark_of_an_empty_folder_is_no_file(out, alone):
    bucket, name = out.key.split("/")
    out.system.call_s3("put_object", Bucket=bucket, Key=f"{name}/", Body=b"")
    assert out.files() == []
    folder = written(out, bytes_of(alone))
    folder.publish()
    folder.close(keep=False)
    assert objects_of(out) == bytes_of(alone)


def test_addresses_that_are_no_object_store_are_refused(tmp_path, capsys):
    pytest.importorskip("fsspec")
    args = ["extract", f"file://{tmp_path}", "--out", str(tmp_path / "o")]
    assert main(args) == 2
    assert "such addresses cannot be used; give s3://" in capsys.readouterr().err


@pytest.mark.slow
def test_nodes_write_to_s3_and_a_driver_that_was_killed_is_followed_by_another(
    videos, out, alone, place, cluster, tmp_path, capsys
):
    args = ["extract", str(videos), "--out", str(out), *place[1]]
    args += ["--engine", "ray", "--address", cluster.address]
    pieces, log = out.with_name(f".{out.name}.extract"), tmp_path / "log.txt"
    driver = start(args, log)
    until = time.monotonic() + 400
    while len(pieces.files()) < 4:
        assert time.monotonic() < until and driver.poll() is None, log.read_text()
        time.sleep(0.2)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL and not out.exists()
    assert main(args) == 1
    assert "had been extracted by an earlier attempt" in capsys.readouterr().out
    assert_same(out, videos, alone, place)
