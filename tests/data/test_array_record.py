"""Mapped arrays that are not the ones built are found on opening, reported, and built again."""

import json
import os
import re
import shutil

import numpy as np
import pytest

from avplatform.data import open_data
from avplatform.data.reading import array_record
from avplatform.data.reading.array_record import RECORD
from avplatform.models.errors import DataError
from tests.data.stores import spec_of, write

CLIPS = 3000  # audio has 90 KB: more than a sample


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Two stores of the same shape and other values, with their arrays."""
    folder = tmp_path_factory.mktemp("arrays")
    for name, first in (
        ("one", {}),
        ("two", {"validation": 1}),
    ):  # which moves the values of the other splits
        write(folder / name, spec_of(), {**first, "train": CLIPS, "test": CLIPS})
        for split in ("train", "test"):
            open_data(folder / name, task="avvp").split(split)
    return folder


@pytest.fixture
def store(stores, tmp_path):
    """A copy of the first store, as it lay there."""
    return shutil.copytree(stores / "one", tmp_path / "store")  # with the times of the files


def arrays_of(store, split="train"):
    (folder,) = store.glob(f".arrays/*/{split}")
    return folder


def keeping_time(change):
    """Return a damage after which the file has the time that it had."""

    def damage(file, *others):
        before = file.stat()
        change(file, *others)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    return damage


def flip(file, *_):
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size // 2 + 1234)
        (value,) = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([value ^ 1]))


def half(file, *_):
    size = file.stat().st_size
    os.truncate(file, size // 2)
    os.truncate(file, size)  # a copy that reserved its room and was stopped


def copy(file, other):
    shutil.copyfile(other / file.name, file)


def other_split(file, *_):
    train, test = file.parent, file.parent.with_name("test")
    (
        train.rename(train.with_name("aside")),
        test.rename(train),
        train.with_name("aside").rename(test),
    )


DAMAGES = {
    "cut": (
        lambda file, other: os.truncate(file, file.stat().st_size - 9),
        r"audio.npy has \d+ bytes instead of \d+",
    ),
    "gone": (lambda file, other: file.unlink(), "audio.npy cannot be read"),
    "flipped": (flip, "the checksum of audio.npy differs"),
    "half copied": (keeping_time(half), "the checksum of audio.npy differs"),
    "another store's file": (
        lambda file, other: shutil.copyfile(other / file.name, file),
        "the checksum of audio.npy differs",
    ),
    "another store's file, its time kept": (
        keeping_time(copy),
        "the checksum of audio.npy differs",
    ),
    "another store's folder": (
        lambda file, other: shutil.copytree(other, file.parent, dirs_exist_ok=True),
        "they are those of train of other data",
    ),
    "another split's folder": (other_split, "they are those of test of other data"),
    "ids overwritten": (
        lambda file, other: (file.parent / "clip_id.json").write_text("[]"),
        r"clip_id.json has \d+ bytes instead of \d+",
    ),
    "an array overwritten": (
        lambda file, other: np.save(file, np.load(file) + 1),
        "the checksum of audio.npy differs",
    ),
    "record empty": (
        lambda file, other: (file.parent / RECORD).write_text(""),
        "their checksums are missing",
    ),
    "record of something else": (
        lambda file, other: (file.parent / RECORD).write_text("[]"),
        "their checksums are missing",
    ),
    "no record": (lambda file, other: (file.parent / RECORD).unlink(), "they are incomplete"),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_arrays_are_said_and_built_again(stores, store, damage, reason):
    damage(arrays_of(store) / "audio.npy", arrays_of(stores / "two"))
    said = []
    split = open_data(store, task="avvp", progress=said.append).split("train")
    damaged, built = said
    assert damaged.endswith("; building them again") and built.startswith(
        "mapped vectors train: 3,000 clips"
    )
    assert re.search(rf"\({reason}.*\); building", damaged), damaged
    whole = open_data(stores / "one", task="avvp").split("train")
    assert split.clip_ids == whole.clip_ids
    for name, values in whole.columns().items():
        np.testing.assert_array_equal(split.columns()[name], values)
    said.clear()
    open_data(store, task="avvp", progress=said.append).split("train")
    assert said == []


def test_opening_reads_a_sample_and_a_file_of_another_time_once(store, monkeypatch):
    read, real = [], array_record.file_sha256
    monkeypatch.setattr(
        array_record, "file_sha256", lambda file: read.append(file.name) or real(file)
    )
    open_data(store, task="avvp").split("train")
    assert read == []
    os.utime(arrays_of(store) / "visual.npy")
    said = []
    for _ in range(2):
        open_data(store, task="avvp", progress=said.append).split("train")
    assert read == ["visual.npy"] and said == []


def test_arrays_copied_without_their_times_stay(store, tmp_path):
    shutil.copytree(store, tmp_path / "copy", copy_function=shutil.copyfile)
    said = []
    open_data(tmp_path / "copy", task="avvp", progress=said.append).split("train")
    assert said == []


def test_a_record_names_every_file_of_the_arrays(store):
    folder = arrays_of(store)
    record = json.loads((folder / RECORD).read_text())
    assert set(record["files"]) | {RECORD} == {file.name for file in folder.iterdir()}


def test_damaged_arrays_of_damaged_shards_name_the_shard(store):
    flip(arrays_of(store) / "audio.npy")
    flip(store / "train-00000.parquet")
    with pytest.raises(DataError, match=r"train-00000.parquet.*sha256"):
        open_data(store, task="avvp").split("train")
