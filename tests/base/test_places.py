"""A place is a path, or an object at a URL, with the same methods where both need them."""

import pickle
from pathlib import Path

import pytest

from avplatform.base.places import PlaceError, Remote, identity, located
from avplatform.models.errors import DataError, UsageError

pytest.importorskip("fsspec", reason="needs fsspec (pip install avplatform[scale])")


@pytest.fixture
def folder():
    folder = Remote("memory://bucket/folder/")
    yield folder
    folder.remove()


def test_a_url_is_remote_and_anything_else_a_path():
    assert located("s3://bucket/a b") == Remote("s3://bucket/a b")
    assert located("a/b.mp4") == Path("a/b.mp4")
    assert located("C://x") == Path("C:/x")
    assert located(Remote("s3://b/c")) == Remote("s3://b/c")


def test_names_are_those_of_paths():
    file = Remote("s3://bucket/videos") / "one.mp4"
    assert (file.name, file.stem, file.suffix, str(file)) == (
        *("one.mp4", "one", ".mp4"),
        "s3://bucket/videos/one.mp4",
    )
    assert str(file.with_name(".one")) == "s3://bucket/videos/.one"
    assert pickle.loads(pickle.dumps(file)) == file
    with pytest.raises(UsageError, match="whole bucket"):
        Remote("s3://bucket").with_name("x")


def test_objects_are_listed_in_the_order_of_paths(folder):
    for name in ("b.mp4", "a-b/z.mp4", "a/x.mp4"):
        (folder / name).write(b"x")
    assert [file.parts_after(folder) for file in folder.files()] == [
        *(("a", "x.mp4"), ("a-b", "z.mp4"), ("b.mp4",))
    ]
    folder.remove()
    assert folder.files() == [] and not folder.exists()
    folder.remove()


def test_a_new_object_never_replaces_one(folder, tmp_path):
    (folder / "x").write(b"first", new=True)
    with pytest.raises(FileExistsError):
        (folder / "x").write(b"second", new=True)
    assert (folder / "x").read_bytes() == b"first"
    assert (folder / "x").fetch(tmp_path).read_bytes() == b"first"
    (folder / "x").write(tmp_path / "x")
    assert (folder / "x").is_file() and not folder.is_file()


def test_the_identity_of_a_file_changes_with_its_content(folder, tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"one")
    before = identity(file)
    file.write_bytes(b"other")
    assert before != identity(file) and before[0] == str(file)
    (folder / "x").write(b"one")
    assert identity(folder / "x")[:2] == ["memory://bucket/folder/x", 3]


def test_what_is_missing_is_a_fault_of_the_data_and_a_store_that_is_silent_is_not(
    folder, monkeypatch
):
    with pytest.raises(DataError, match="there is nothing at memory://bucket/folder/x") as caught:
        (folder / "x").read_bytes()
    assert not isinstance(caught.value, PlaceError)

    def fail(*args, **kwargs):
        raise RuntimeError("timeout")

    place = folder / "x"
    monkeypatch.setattr(type(place.system), "cat_file", fail)
    with pytest.raises(PlaceError, match="timeout"):
        place.read_bytes()


def test_an_address_that_no_package_reads_is_refused():
    with pytest.raises(UsageError, match="pip install"):
        Remote("nonsense://bucket/x").read_bytes()
