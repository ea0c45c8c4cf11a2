"""Writing a store in several attempts, and its checksum, which is that of its contents."""

import dataclasses
import errno
import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avplatform.data import StoreWriter, open_data
from avplatform.data.store.checksum import content_checksum
from avplatform.data.store.schema import MANIFEST_FILE, Manifest
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import DataError, UsageError
from tests.data.stores import columns_of, spec_of, write

SIZES = {"train": 23, "validation": 7}


def attempt(path, *, stop_at=None, resume="same", block=3, notes=None, **options):
    """Write SIZES clips in blocks up to clip `stop_at`; clips already stored are skipped."""
    spec, start = spec_of(), 0
    note = notes.append if notes is not None else None
    with StoreWriter(path, spec, rows_per_shard=5, resume=resume, note=note, **options) as writer:
        for split, count in SIZES.items():
            stored, closed = writer.stored(split)
            assert stored.tolist() == list(range(start, start + len(stored)))
            for first in range(start + len(stored), start + count, block):
                if closed:
                    break
                if stop_at is not None and first >= stop_at:
                    raise KeyboardInterrupt
                number = min(block, start + count - first)
                writer.add(
                    split,
                    {
                        k: v[first - start :][:number]
                        for k, v in columns_of(spec, count, start).items()
                    },
                )
            start += count
            writer.close_split(split)
    return writer.manifest


def files(folder):
    return {f.name: f.read_bytes() for f in folder.iterdir() if f.is_file()}


@pytest.mark.parametrize("stop_at", [3, 12, 23, 27])
def test_a_second_attempt_goes_on_and_ends_in_the_same_bytes(tmp_path, stop_at):
    attempt(tmp_path / "whole")
    notes = []
    with pytest.raises(KeyboardInterrupt):
        attempt(tmp_path / "store", stop_at=stop_at)
    assert not (tmp_path / "store").exists()
    attempt(tmp_path / "store", notes=notes)
    assert files(tmp_path / "store") == files(tmp_path / "whole")
    assert bool(notes) == (stop_at > 5) and sorted(p.name for p in tmp_path.iterdir()) == [
        "store",
        "whole",
    ]


@pytest.mark.parametrize("out", [".", "inner/..", "../here"])
@pytest.mark.parametrize("resume", ["same", None])
def test_the_folder_one_is_in_is_refused(tmp_path, monkeypatch, out, resume):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UsageError, match="cannot be replaced; give a new folder by its name"):
        attempt(out, resume=resume)
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def test_a_shard_of_the_earlier_attempt_that_is_damaged_is_written_again(tmp_path):
    attempt(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        attempt(tmp_path / "store", stop_at=20)
    file = tmp_path / ".store.partial" / "store" / "train-00001.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    notes = []
    attempt(tmp_path / "store", notes=notes)
    assert (
        "train-00001.parquet of the earlier attempt is damaged" in notes[0]
        and "after 5 clips" in notes[1]
    )
    assert files(tmp_path / "store") == files(tmp_path / "whole")


def test_an_attempt_at_something_else_starts_anew(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        attempt(tmp_path / "store", stop_at=20, resume="one")
    notes = []
    attempt(tmp_path / "store", resume="two", notes=notes)
    assert len(notes) == 1 and "starting again" in notes[0]


def test_two_writers_of_one_store_are_kept_apart(tmp_path):
    with StoreWriter(tmp_path / "store", spec_of(), resume="a") as first:
        with (
            pytest.raises(DataError, match="another process .id .* is writing"),
            StoreWriter(tmp_path / "store", spec_of(), resume="a"),
        ):
            pass
        first.add("train", columns_of(spec_of(), 4))
    assert [p.name for p in tmp_path.iterdir()] == ["store"] and first.manifest.splits[
        "train"
    ].rows == 4


def test_writers_that_keep_nothing_have_folders_of_their_own_whatever_their_process(tmp_path):
    with StoreWriter(tmp_path / "store", spec_of()) as first:
        with StoreWriter(tmp_path / "store", spec_of()) as second:
            assert len(list(tmp_path.glob(".store.partial-*"))) == 2
            second.discard()
        first.add("train", columns_of(spec_of(), 4))
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_a_strangers_folder_is_left_alone(tmp_path):
    (tmp_path / ".store.partial").mkdir()
    (tmp_path / ".store.partial" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="was not made by avplatform; move it"):
        attempt(tmp_path / "store")
    assert (tmp_path / ".store.partial" / "thesis.txt").read_text() == "mine"


def test_a_full_disk_keeps_the_finished_shards(tmp_path, monkeypatch):
    attempt(tmp_path / "whole")
    plain, calls = pq.ParquetWriter.write_table, []

    def full(self, *args, **options):
        calls.append(1)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(self, *args, **options)

    with (
        monkeypatch.context() as patch,
        pytest.raises(DataError, match="is full.*the same command continues"),
    ):
        patch.setattr(pq.ParquetWriter, "write_table", full)
        attempt(tmp_path / "store")
    notes = []
    attempt(tmp_path / "store", notes=notes)
    assert "going on after 15 clips" in notes[0] and files(tmp_path / "store") == files(
        tmp_path / "whole"
    )


def test_a_full_disk_without_a_journal_leaves_nothing(tmp_path, monkeypatch):
    def full(self, *args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(DataError, match="the disk of .* is full; free space"):
        write(tmp_path / "store", spec_of(), {"train": 4})
    assert list(tmp_path.iterdir()) == []


def test_the_checksum_does_not_depend_on_blocks_or_shards_and_can_be_had_from_the_store(tmp_path):
    sums = set()
    for number, (block, rows) in enumerate([(23, 100), (4, 5), (1, 3)]):
        spec, path = spec_of(), tmp_path / str(number)
        columns = columns_of(spec, 23)
        with StoreWriter(path, spec, rows_per_shard=rows) as writer:
            for first in range(0, 23, block):
                writer.add("train", {k: v[first : first + block] for k, v in columns.items()})
        sums |= {writer.manifest.checksum, content_checksum(path, Manifest.read(path))}
    assert len(sums) == 1


def test_the_checksum_is_the_documented_one(tmp_path):
    given = write(tmp_path / "store", spec_of(), {"train": 4, "test": 2}, dtype="float32")
    lines = ""
    for split in ("test", "train"):
        c = given[split]
        ids = "".join(f"{i}\n" for i in c["clip_id"]).encode()
        raw = {"row": c["row"].astype("<i8").tobytes(), "clip_id": ids}
        raw |= {name: c[name].astype("<f4").tobytes() for name in ("audio", "visual", "motion")}
        raw["weak"] = c["weak"].astype("u1").tobytes()
        lines += "".join(
            f"{split} {name} {hashlib.sha256(value).hexdigest()}\n" for name, value in raw.items()
        )
    assert Manifest.read(tmp_path / "store").checksum == hashlib.sha256(lines.encode()).hexdigest()


def test_one_changed_number_changes_the_checksum(tmp_path):
    write(tmp_path / "store", spec_of(), {"train": 4})
    manifest = Manifest.read(tmp_path / "store")
    file = tmp_path / "store" / manifest.splits["train"].shards[0].file
    table = pq.read_table(file)
    row = table.column("row").to_numpy().copy()
    row[2] += 1
    pq.write_table(table.set_column(0, table.schema.field("row"), pa.array(row)), file)
    assert content_checksum(tmp_path / "store", manifest) != manifest.checksum


def test_stores_of_version_1_are_still_read(tmp_path):
    write(tmp_path / "store", spec_of(), {"train": 4})
    file = tmp_path / "store" / MANIFEST_FILE
    data = json.loads(file.read_text())
    for name in ("frames_per_segment", "label_splits"):
        del data["spec"][name]
    file.write_text(json.dumps({**data, "version": 1}))
    data = open_data(tmp_path / "store", task="avvp")
    assert (
        data.manifest.version == 1
        and data.spec.frames_per_segment == 1
        and data.spec.known("weak", "train")
    )
    assert len(data.split("train").batch([0, 3])) == 2


def test_several_frames_a_segment_come_back(tmp_path):
    spec = dataclasses.replace(spec_of(), frames_per_segment=3)
    given = write(tmp_path / "store", spec, {"train": 4}, dtype="float32")["train"]
    batch = open_data(tmp_path / "store", task="avvp").split("train").batch([1])
    assert batch.visual.shape == (1, 15, 4) and np.array_equal(
        batch.visual[0].numpy(), given["visual"][1]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames_per_segment": 0}, "frames_per_segment is 0"),
        (
            {
                "frames_per_segment": 8,
                "features": FeatureSpec(audio_dim=3, visual_dim=4, map_size=(2, 2)),
            },
            "of maps has 1",
        ),
        ({"label_splits": {"waek": ["train"]}}, "did you mean 'weak'"),
        ({"label_splits": {"weak": "train"}}, "give a list of splits"),
    ],
)
def test_frames_and_label_splits_are_checked(change, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(spec_of(), **change)


def test_a_label_is_known_in_the_splits_that_are_named():
    spec = dataclasses.replace(spec_of(), label_splits={"weak": ["test"]})
    assert spec.known("weak", "test") and not spec.known("weak", "train")
    assert spec_of().known("weak", "train")
