"""`avplatform extract` into a finished store adds, replaces and keeps, and never loses a store."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from avplatform.base import files as base_files
from avplatform.base.locks import Lock
from avplatform.cli import main
from avplatform.data import open_data
from avplatform.data.adapters.llp.annotations import read_annotations
from avplatform.data.adapters.table.splits import split_videos
from avplatform.data.store.schema import Manifest
from avplatform.data.store.writer import StoreWriter
from avplatform.data.verify import verify_data
from avplatform.features import earlier as earlier_store
from avplatform.features.pieces import Pieces
from avplatform.models.errors import DataError
from tests import processes
from tests.features.clips import beep, bits_of, render, standard
from tests.features.networks import small_weights
from tests.tasks.test_avvp import write_llp

TABLE = """video,onset,offset,label,stream
a,1,2,tone,audio
a,2,3,flash,visual
b,0.5,2.5,tone,audio
c,0,1,flash,visual
long,4,5,tone,audio
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Videos to choose from, and the flags of a small recipe."""
    place = tmp_path_factory.mktemp("again")
    videos = place / "all"
    videos.mkdir()
    standard(videos / "a.mp4", seconds=3, beep_at=1, flash_at=2)
    render(videos / "b.m4a", sound=beep(3, 0.5, 2.5))
    render(videos / "c.mkv", pictures=[bits_of(3)] * 75)
    standard(videos / "long.mp4", seconds=8)
    standard(videos / "other.mp4", seconds=3, beep_at=2, flash_at=0)
    weights = small_weights(place)
    named = [f"vggish={weights['vggish']}", f"visual={weights['visual']}"]
    recipe = ["--backbones", "lite", "--audio", "vggish", "--visual", "timm:test_resnet"]
    return place, [*recipe, "--weights", *named, "--cpu", "--segments", "3", "--dtype", "float32"]


@pytest.fixture
def folder(place, tmp_path):
    """A folder of two videos."""
    videos = tmp_path / "videos"
    videos.mkdir()
    give(place, videos, "a", "b")
    return videos


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that are decoded."""
    names, make = [], Pieces.make

    def noted(self, file):
        names.append(file.stem)
        make(self, file)

    monkeypatch.setattr(Pieces, "make", noted)
    return names


def give(place, videos, *names, as_name=None):
    for name in names:
        (file,) = (place[0] / "all").glob(f"{name}.*")
        shutil.copyfile(file, videos / f"{as_name or name}{file.suffix}")


def listed(*names, rows=TABLE):
    """The rows of some videos."""
    head, *others = rows.splitlines()
    return "\n".join([head, *(row for row in others if row.split(",")[0] in names), ""])


def extract(place, folder, out, *flags, events=True, table=None, split="test"):
    """Run the command; the table holds the rows of the given videos, or is `table`."""
    given = []
    if events:
        names = {file.stem for file in folder.iterdir()}
        (folder.parent / "events.csv").write_text(table or listed(*names))
        given = ["--events", str(folder.parent / "events.csv"), "--split", split]
    return main(["extract", str(folder), "--out", str(out), *place[1], *given, *flags])


def content(store):
    """Clips by id: split, row, features and labels."""
    data, found = open_data(str(store), task="avvp"), {}
    for split in data.splits:
        arrays = data.split(split)
        batch = arrays.batch(range(len(arrays)))
        for n, clip_id in enumerate(batch.clip_id):
            found[clip_id] = {
                "split": split,
                "row": int(batch.row[n]),
                "audio": np.asarray(batch.audio[n]),
                "visual": np.asarray(batch.visual[n]),
                **{name: np.asarray(values[n]) for name, values in batch.labels.items()},
            }
    return found


def assert_same(one, other):
    """Rows, order, splits and labels are equal, and features but for their last digits."""
    first, second = content(one), content(other)
    assert list(first) == list(second)
    for clip_id, clip in first.items():
        assert clip.keys() == second[clip_id].keys()
        for name, value in clip.items():
            if name in ("audio", "visual"):
                assert np.allclose(value, second[clip_id][name], atol=1e-5), (clip_id, name)
            else:
                assert np.array_equal(value, second[clip_id][name]), (clip_id, name)
    specs = [Manifest.read(store).spec for store in (one, other)]
    assert specs[0].classes == specs[1].classes and specs[0].label_splits == specs[1].label_splits
    assert verify_data(one).ok


@pytest.mark.parametrize("events", [True, False])
def test_new_files_are_added_and_changed_ones_replaced(
    events, place, folder, tmp_path, decoded, capsys
):
    store = tmp_path / "store"
    assert extract(place, folder, store, events=events) == 0
    before = content(store)
    give(place, folder, "c", "long")
    give(place, folder, "other", as_name="a")
    os.utime(folder / "b.m4a", (1, 1))  # another time, the same content
    decoded.clear(), capsys.readouterr()
    assert extract(place, folder, store, events=events) == 0
    assert decoded == ["a", "c", "long"]
    output = " ".join(capsys.readouterr().out.split())
    said = "2 files added (c, long); 1 file replaced, as the content differs (a); 1 file untouched"
    assert said in output
    assert extract(place, folder, tmp_path / "once", "--name", "store", events=events) == 0
    assert_same(store, tmp_path / "once")
    after = content(store)
    assert np.array_equal(after["b"]["audio"], before["b"]["audio"])
    assert not np.allclose(after["a"]["visual"], before["a"]["visual"])
    report = json.loads((store / "extract_report.json").read_text())
    assert report["changes"]["added"] == ["c", "long"] and list(report["sources"]) == [
        "a", "b", "c", "long"
    ]  # fmt: skip
    assert not list(tmp_path.glob(".store*"))


def test_an_edited_table_replaces_the_labels_without_decoding(
    place, folder, tmp_path, decoded, capsys
):
    store = tmp_path / "store"
    assert extract(place, folder, store) == 0
    edited = listed("a", "b").replace("a,2,3,flash", "a,0,1,blink").replace("b,0.5,2.5", "b,0,1")
    decoded.clear(), capsys.readouterr()
    assert extract(place, folder, store, table=edited) == 0 and decoded == []
    assert "2 files untouched; the labels of all made again" in capsys.readouterr().out
    assert Manifest.read(store).spec.classes == ["blink", "tone"]
    assert content(store)["b"]["dense_audio"][:, 1].tolist() == [1, 0, 0]
    assert extract(place, folder, tmp_path / "once", "--name", "store", table=edited) == 0
    assert_same(store, tmp_path / "once")


def test_nothing_new_leaves_the_files_of_the_store(place, folder, tmp_path, decoded, capsys):
    store = tmp_path / "store"
    assert extract(place, folder, store) == 0
    times = {file: file.stat().st_mtime_ns for file in store.iterdir()}
    decoded.clear(), capsys.readouterr()
    assert extract(place, folder, store) == 0 and decoded == []
    assert "2 files untouched" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in store.iterdir()} == times


def test_files_that_are_not_given_again_stay_unless_they_are_pruned(
    place, folder, tmp_path, capsys
):
    store = tmp_path / "store"
    give(place, folder, "long")
    assert extract(place, folder, store) == 0
    (folder / "a.mp4").unlink()
    give(place, folder, "c")
    assert extract(place, folder, store, table=TABLE) == 0
    assert "1 file not given again and kept (a; --prune removes such)" in capsys.readouterr().out
    ids = ["a", "b", "c", "long_0_3", "long_3_6", "long_6_9"]
    assert sorted(content(store)) == ids and verify_data(store).ok
    assert extract(place, folder, store, "--prune") == 0
    assert "1 file removed (a); 3 files untouched" in capsys.readouterr().out
    assert extract(place, folder, tmp_path / "once", "--name", "store") == 0
    assert_same(store, tmp_path / "once")


def test_a_kept_file_without_labels_refuses_and_changes_nothing(place, folder, tmp_path, capsys):
    store = tmp_path / "store"
    assert extract(place, folder, store) == 0
    before = (store / "dataset.json").read_bytes()
    (folder / "a.mp4").unlink()
    assert extract(place, folder, store) == 1
    assert "'a' is in" in (said := capsys.readouterr().err) and "--prune" in said
    assert (store / "dataset.json").read_bytes() == before


def test_a_file_that_is_no_longer_listed_is_removed_only_if_that_is_asked_for(
    place, folder, tmp_path, capsys
):
    store = tmp_path / "store"
    assert extract(place, folder, store) == 0
    before = (store / "dataset.json").read_bytes()
    assert extract(place, folder, store, table=listed("b")) == 1
    assert "'a' is in" in (said := capsys.readouterr().err) and "nothing was changed" in said
    assert (store / "dataset.json").read_bytes() == before
    assert extract(place, folder, store, "--prune", table=listed("b")) == 1
    output = " ".join(capsys.readouterr().out.split())
    assert "the list of events does not have 'a'" in output and "1 file removed (a)" in output
    assert list(content(store)) == ["b"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--segments", "4"], "segments 3, now 4"),
        (["--dtype", "float16"], "dtype float32, now float16"),
        (["--covered", "0.3"], "covered 0.5, now 0.3"),
        (["--long", "first"], "long split, now first"),
        (["--name", "another"], "name store, now another"),
    ],
)
def test_other_options_are_refused_with_the_remedy(place, folder, tmp_path, flags, said, capsys):
    store = tmp_path / "store"
    assert extract(place, folder, store) == 0
    before = (store / "dataset.json").read_bytes()
    give(place, folder, "c")
    assert extract(place, folder, store, *flags) == 2
    error = capsys.readouterr().err
    assert said in error and "or a new folder" in error
    assert (store / "dataset.json").read_bytes() == before


def test_other_weights_and_other_labels_are_other_options(place, folder, tmp_path, capsys):
    store = tmp_path / "store"
    assert extract(place, folder, store, events=False) == 0
    assert extract(place, folder, store) == 2
    error = capsys.readouterr().err
    assert "labels none, now from --events" in error and "avplatform data import table" in error
    manifest = json.loads((store / "dataset.json").read_text())
    manifest["spec"]["provenance"]["extraction"]["options"]["weights of audio"] = "0" * 64
    (store / "dataset.json").write_text(json.dumps(manifest))
    assert extract(place, folder, store, events=False) == 2
    assert "other options (weights of audio)" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["extract_report.json", "dataset.json"])
def test_a_store_without_a_list_of_its_files_is_not_touched(file, place, folder, tmp_path, capsys):
    store = tmp_path / "store"
    assert extract(place, folder, store) == 0
    (store / file).unlink()
    names = sorted(path.name for path in store.iterdir())
    assert extract(place, folder, store) == 2
    assert "give a new folder" in capsys.readouterr().err
    assert sorted(path.name for path in store.iterdir()) == names


def test_an_interrupted_call_leaves_the_old_store_and_is_resumed(
    place, folder, tmp_path, decoded, monkeypatch
):
    store = tmp_path / "store"
    assert extract(place, folder, store) == 0
    before = content(store)
    give(place, folder, "c", "long")
    save = Pieces.save

    def stop(self, piece, file, clips):
        if file.stem == "long":
            raise KeyboardInterrupt
        save(self, piece, file, clips)

    monkeypatch.setattr(Pieces, "save", stop)
    assert extract(place, folder, store) == 130
    monkeypatch.setattr(Pieces, "save", save)
    assert list(content(store)) == list(before) and verify_data(store).ok
    add = StoreWriter.add

    def fail(self, split, columns):
        if columns["clip_id"] == ["c"]:
            raise KeyboardInterrupt
        add(self, split, columns)

    monkeypatch.setattr(StoreWriter, "add", fail)
    decoded.clear()
    assert extract(place, folder, store) == 130 and decoded == ["long"]
    monkeypatch.setattr(StoreWriter, "add", add)
    assert list(content(store)) == list(before) and verify_data(store).ok
    decoded.clear()
    assert extract(place, folder, store) == 0 and decoded == []
    assert extract(place, folder, tmp_path / "once", "--name", "store") == 0
    assert_same(store, tmp_path / "once")


def test_a_kill_between_the_two_renames_loses_nothing(
    place, folder, tmp_path, decoded, monkeypatch
):
    store = tmp_path / "store"
    assert extract(place, folder, store) == 0
    give(place, folder, "c")

    class Killed(BaseException):
        pass

    replace = os.replace

    def kill(temporary, path):
        if path == store:
            raise Killed
        replace(temporary, path)

    monkeypatch.setattr(base_files.os, "replace", kill)
    with pytest.raises(Killed):
        extract(place, folder, store)
    assert not store.exists() and (tmp_path / ".store.replaced" / "dataset.json").is_file()
    monkeypatch.undo()
    assert extract(place, folder, store) == 0
    assert set(content(store)) == {"a", "b", "c"} and verify_data(store).ok
    assert not (tmp_path / ".store.replaced").exists()


def test_a_damaged_shard_is_not_carried_over(place, folder, tmp_path, capsys):
    store = tmp_path / "store"
    assert extract(place, folder, store) == 0
    give(place, folder, "c")
    (shard,) = store.glob("*.parquet")
    whole = bytearray(shard.read_bytes())
    whole[len(whole) // 2] ^= 1
    shard.write_bytes(whole)
    assert extract(place, folder, store) == 1
    assert f"{shard} is missing or damaged" in capsys.readouterr().err
    assert shard.read_bytes() == bytes(whole)


def test_other_files_in_the_folder_of_the_store_stay(place, folder, tmp_path):
    store = tmp_path / "store"
    assert extract(place, folder, store) == 0
    (store / "notes").mkdir()
    (store / "notes" / "mine.txt").write_text("mine")
    give(place, folder, "c")
    assert extract(place, folder, store) == 0
    assert (store / "notes" / "mine.txt").read_text() == "mine" and "c" in content(store)


def test_a_second_process_does_not_extend_the_same_store(place, folder, tmp_path, capsys):
    store = tmp_path / "store"
    assert extract(place, folder, store) == 0
    with Lock(store, lambda owner: DataError(owner)):
        assert extract(place, folder, store) == 1
    assert "another process is extracting into" in capsys.readouterr().err


def test_a_second_process_does_not_write_the_same_new_store(place, folder, tmp_path, capsys):
    store, pieces = tmp_path / "store", tmp_path / ".store.extract"
    pieces.mkdir()
    with Lock(pieces, lambda owner: DataError(owner)):
        assert extract(place, folder, store) == 1
    assert "another process is extracting into" in capsys.readouterr().err and not store.exists()
    assert extract(place, folder, store) == 0 and not pieces.exists()


def test_a_store_is_not_put_back_while_the_process_that_moved_it_is_at_it(
    place, folder, tmp_path, capsys, monkeypatch
):
    store, aside = tmp_path / "store", tmp_path / ".store.replaced"
    monkeypatch.setattr(earlier_store, "PUTTING_BACK", 0.1)
    assert extract(place, folder, store) == 0
    with Lock(store, lambda owner: DataError(owner)):
        store.rename(aside)  # the other process is between its two renames
        assert extract(place, folder, store) == 1
        assert "another process is extracting into" in capsys.readouterr().err
        assert not store.exists() and (aside / "dataset.json").is_file()
    assert extract(place, folder, store) == 0 and not aside.exists()


def test_a_store_that_changed_since_it_was_read_is_not_replaced(place, folder, tmp_path):
    store = tmp_path / "store"
    assert extract(place, folder, store) == 0
    read = earlier_store.open_earlier(store)
    give(place, folder, "c")
    assert extract(place, folder, store) == 0
    with pytest.raises(DataError, match="another process has extracted into .* meanwhile"):
        earlier_store.lock_unchanged(read)
    lock = earlier_store.lock_unchanged(earlier_store.open_earlier(store))  # the lock was released
    lock.release()
    store.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="another process is extracting into"):
        earlier_store.lock_unchanged(read)
    assert not store.exists()  # no lock file lies in its place


def test_two_processes_extend_a_store(place, folder, tmp_path):
    store = tmp_path / "store"
    assert extract(place, folder, store) == 0
    give(place, folder, "c", "long")
    (tmp_path / "events.csv").write_text(TABLE)
    given = ["--events", str(tmp_path / "events.csv"), "--split", "test"]
    command = ["extract", str(folder), "--out", str(store), *place[1], *given]
    launch = processes.Launch(command, tmp_path / "log", processes=2)
    assert launch.wait() == [0, 0], launch.output()
    assert launch.output().count("2 files added (c, long); 2 files untouched") == 1
    assert extract(place, folder, tmp_path / "once", "--name", "store") == 0
    assert_same(store, tmp_path / "once")


def test_clips_keep_their_split_and_new_ones_fill_up(place, folder, tmp_path, capsys):
    store, shares = tmp_path / "store", "0.5,0.25,0.25"
    table = TABLE + "d,0,1,tone,audio\ne,1,2,flash,visual\nf\ng\n"
    for name in ("d", "e"):
        give(place, folder, "a", as_name=name)
    first = listed("a", "b", "d", "e", rows=table)
    assert extract(place, folder, store, table=first, split=shares) == 0
    before = {name: clip["split"] for name, clip in content(store).items()}
    for name in ("f", "g"):
        give(place, folder, "other", as_name=name)
    give(place, folder, "long", "c")
    capsys.readouterr()
    assert extract(place, folder, store, table=table, split=shares) == 0
    after = {name: clip["split"] for name, clip in content(store).items()}
    assert {name: after[name] for name in before} == before
    assert "new videos divided by 0.5,0.25,0.25 (seed 0): train 2, validation 1, test 1" in (
        capsys.readouterr().out
    )
    assert extract(place, folder, store, table=table, split=shares) == 0
    assert {name: clip["split"] for name, clip in content(store).items()} == after


def test_fixed_videos_count_for_the_shares_and_their_classes():
    videos = {f"v{n}": {"x"} if n % 2 else {"y"} for n in range(20)}
    fixed = {f"v{n}": "train" for n in range(10)}
    shares = {"train": 0.5, "validation": 0.25, "test": 0.25}
    found = split_videos(videos, shares, fixed=fixed)
    assert {name: found[name] for name in fixed} == fixed and set(found) == set(videos)
    new = [split for name, split in found.items() if name not in fixed]
    assert sorted(new) == ["test"] * 5 + ["validation"] * 5
    assert split_videos(videos, shares, fixed={"gone": "test"}) == split_videos(videos, shares)


def test_official_annotations_are_read_again(place, tmp_path):
    (tmp_path / "llp").mkdir()
    write_llp(tmp_path / "llp")
    data = read_annotations(tmp_path / "llp")
    names = [data.filenames[int(row)] for row in data.splits["test"][:2]]
    videos, flags = tmp_path / "videos", ["--annotations", str(tmp_path / "llp")]
    videos.mkdir()
    for name in names:
        give(place, videos, "c", as_name=name)
        assert extract(place, videos, tmp_path / "store", *flags, events=False) == 0
    found = content(tmp_path / "store")
    assert set(found) == set(names) and verify_data(tmp_path / "store").ok
    for row in data.splits["test"][:2]:
        assert (found[data.filenames[int(row)]]["weak"] == data.weak[row]).all()


def test_a_file_that_changes_while_it_is_read_is_left_out(
    place, folder, tmp_path, capsys, monkeypatch
):
    clips = Pieces._clips

    def change(self, file):
        found = clips(self, file)
        if file.stem == "a":
            os.utime(file, ns=(1, 1))
        return found

    monkeypatch.setattr(Pieces, "_clips", change)
    assert extract(place, folder, tmp_path / "store") == 1
    assert "a.mp4 was changed while it was read" in " ".join(capsys.readouterr().out.split())
    assert list(content(tmp_path / "store")) == ["b"]
