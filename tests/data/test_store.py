"""The store returns what was put in, names what is wrong; half-written never passes as whole."""

import dataclasses
import json
import multiprocessing
import threading
import time
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
import torch

from avplatform.data import StoreWriter, open_data
from avplatform.data.reading import arrays
from avplatform.data.reading.source import train_loader
from avplatform.data.store.schema import MANIFEST_FILE, Manifest
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import DataError, UsageError
from tests.data.stores import columns_of, spec_of, write


@pytest.mark.parametrize("kind", ["vectors", "maps"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_goes_in_comes_out(tmp_path, kind, dtype):
    spec = spec_of(kind)
    given = write(tmp_path / "store", spec, {"train": 7, "test": 3}, dtype=dtype)
    data = open_data(tmp_path / "store", task=spec.task)
    assert data.spec == spec and data.synthetic and data.splits == ["train", "test"]
    batch = data.split("train").batch([4, 0, 4])
    assert batch.clip_id == ["clip4", "clip0", "clip4"] and batch.row.tolist() == [4, 0, 4]
    for name in spec.shapes():
        found = batch.labels[name] if name in spec.labels else getattr(batch, name)
        expected = given["train"][name][[4, 0, 4]]
        if name not in spec.labels:
            expected = expected.astype(dtype)
        np.testing.assert_array_equal(found.numpy(), expected.astype(found.numpy().dtype))


def test_val_is_understood_and_other_splits_are_not(tmp_path):
    write(tmp_path / "store", spec_of(), {"validation": 2})
    data = open_data(tmp_path / "store", task="avvp")
    assert len(data.split("val")) == 2
    with pytest.raises(UsageError, match="no split 'tset'"):
        data.split("tset")


def _nan(c):
    c["audio"][1, 2, 0] = np.nan


def _wide(c):
    c["visual"] = c["visual"][..., :3]


def _label(c):
    c["weak"][2] = 3


def _missing(c):
    del c["motion"]


def _twice(c):
    c["row"][1] = c["row"][0]


def _large(c):
    c["audio"][2, 0, 0] = 1e6


def _texts(c):
    c["audio"] = c["audio"].astype(str)


def _ragged(c):
    c["audio"] = [[1.0, 2.0], [3.0]]


def _fewer(c):
    c["row"] = c["row"][:3]


def _half(c):
    c["weak"] = c["weak"] * 0.5 + 0.25


def _none(c):
    for name in c:
        c[name] = c[name][:0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_nan, "audio of clip clip1 .row 1. is NaN"),
        (_wide, "visual has shape"),
        (_label, "weak of clip clip2 .row 2. holds a label"),
        (_missing, "missing: .'motion'"),
        (_twice, "row 0 .clip clip1. is added twice"),
        (_large, "audio of clip clip2 .row 2. does not fit float16"),
        (_texts, "audio is of type <U"),
        (_ragged, "audio is ragged"),
        (_fewer, "one integer for each of 4 clips"),
        (_half, "weak of clip clip0 .row 0. holds a label"),
        (_none, "no clips"),
    ],
)
def test_bad_columns_are_named_and_leave_nothing(tmp_path, damage, message):
    spec = spec_of()
    columns = columns_of(spec, 4)
    damage(columns)
    with pytest.raises(DataError, match=message), StoreWriter(tmp_path / "store", spec) as writer:
        writer.add("train", columns)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [-1, 3, 0.5, np.nan])
def test_class_positions_outside_the_classes_are_refused(tmp_path, value):
    spec = spec_of("maps")
    columns = columns_of(spec, 4)
    columns["segment"] = columns["segment"].astype(float)
    columns["segment"][1, 2] = value
    with (
        pytest.raises(DataError, match="segment of clip clip1 .row 1. holds a label"),
        StoreWriter(tmp_path / "store", spec) as writer,
    ):
        writer.add("train", columns)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": []}, "holds 0 names"),
        ({"classes": ["a", "a"]}, "each once"),
        ({"segments": 0}, "segments is 0"),
        ({"label_dtypes": {}}, "labels are .'weak'"),
        ({"label_dtypes": {"weak": "float64"}}, "choose from uint8, int64"),
        ({"labels": {"../weak": [2]}, "label_dtypes": {"../weak": "uint8"}}, "has the name"),
    ],
)
def test_a_specification_that_cannot_be_written_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(spec_of(), **change)


@pytest.mark.parametrize(
    "option", [{"dtype": "float61"}, {"compression": "zst"}, {"rows_per_shard": 0}]
)
def test_options_of_the_writer_are_checked(tmp_path, option):
    with pytest.raises(UsageError, match=next(iter(option))):
        StoreWriter(tmp_path / "store", spec_of(), **option)


def test_a_split_whose_name_leaves_the_folder_is_refused(tmp_path):
    with (
        pytest.raises(DataError, match="../evil"),
        StoreWriter(tmp_path / "store", spec_of()) as writer,
    ):
        writer.add("../evil", columns_of(spec_of(), 2))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), StoreWriter(tmp_path / "store", spec_of()) as writer:
        writer.add("train", columns_of(spec_of(), 4))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        StoreWriter(tmp_path, spec_of())


def _flip(store):
    file = next(store.glob("*.parquet"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(data)


def _cut(store):
    file = next(store.glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-9])


def _change(edit):
    def damage(store):
        manifest = json.loads((store / MANIFEST_FILE).read_text())
        edit(manifest)
        (store / MANIFEST_FILE).write_text(json.dumps(manifest))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flip, "sha256 differs"),
        (_cut, "bytes, in the manifest"),
        (_change(lambda m: m["splits"]["train"].update(rows=9)), "has 9 rows, its shards 4"),
        (_change(lambda m: m["splits"]["train"].update(rows=0, shards=[])), "is empty"),
        (
            _change(lambda m: m["splits"]["train"]["shards"][0].update(file="../x.parquet")),
            "does not lie in",
        ),
        (_change(lambda m: m.update(checksum="../../../x")), "is not a sha256"),
        (_change(lambda m: m.update(dtype="float61")), "choose from float16, float32"),
        (_change(lambda m: m.update(version=99)), "reads up to"),
        (_change(lambda m: m["spec"]["features"].update(audio_dim=0)), "audio_dim is 0"),
        (_change(lambda m: m["spec"]["features"].update(audio_dim=4)), "column audio is"),
        (lambda s: next(s.glob("*.parquet")).unlink(), "is missing"),
        (lambda s: (s / MANIFEST_FILE).unlink(), "has no dataset.json"),
        (lambda s: (s / MANIFEST_FILE).write_text("{"), "cannot be read"),
        (lambda s: (s / MANIFEST_FILE).write_text('{"_type": "other"}'), "cannot be read"),
    ],
)
def test_a_damaged_store_is_named(tmp_path, damage, message):
    write(tmp_path / "store", spec_of(), {"train": 4})
    damage(tmp_path / "store")
    with pytest.raises(DataError, match=message):
        open_data(tmp_path / "store", task="avvp").split("train")


@pytest.mark.parametrize(
    ("damage", "message"),
    [(_cut, "bytes"), (lambda s: next(s.glob("*-00001.*")).unlink(), "is missing")],
)
def test_streaming_names_a_damaged_shard_before_it_reads(tmp_path, damage, message):
    write(tmp_path / "store", spec_of(), {"train": 20}, rows_per_shard=8)
    damage(tmp_path / "store")
    with pytest.raises(DataError, match=message):
        train_loader(
            open_data(tmp_path / "store", task="avvp"),
            ["train"],
            streaming=True,
            batch_size=4,
            seed=0,
        )


def test_datasets_that_cut_the_same_clips_differently_do_not_share_arrays(tmp_path):
    for name, second in (("one", "train"), ("two", "test")):
        with StoreWriter(tmp_path / name, spec_of()) as writer:
            writer.add("train", columns_of(spec_of(), 4))
            writer.add(second, columns_of(spec_of(), 4, 4))
    sizes = [
        len(open_data(tmp_path / n, task="avvp", cache_dir=tmp_path / "cache").split("train"))
        for n in ("one", "two")
    ]
    assert sizes == [8, 4]


def test_missing_folders_and_other_tasks_are_named(tmp_path):
    with pytest.raises(
        DataError, match="dataset.json cannot be read: File name too long; check the disk"
    ):
        Manifest.read("x" * 300)
    with pytest.raises(DataError, match="no data folder"):
        open_data(tmp_path / "nothing", task="avvp")
    write(tmp_path / "store", spec_of(), {"train": 4})
    with pytest.raises(UsageError, match="are for avvp, not avel"):
        open_data(tmp_path / "store", task="avel")


def test_the_checksum_is_of_the_contents(tmp_path):
    sums = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        with StoreWriter(tmp_path / name, spec_of()) as writer:
            writer.add("train", columns_of(spec_of(), 5, seed=seed))
        sums.append(Manifest.read(tmp_path / name).checksum)
    assert sums[0] == sums[1] != sums[2]


def _open(store, results):
    results.put(len(open_data(store, task="avvp").split("train")))


def test_two_processes_may_open_at_once(tmp_path):
    write(tmp_path / "store", spec_of(), {"train": 40})
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=_open, args=(tmp_path / "store", results)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [40, 40]
    for process in processes:
        process.join()


def test_arrays_that_several_ask_for_at_once_are_built_once(tmp_path, monkeypatch):
    write(tmp_path / "store", spec_of(), {"train": 40})
    built, copy, sizes = [], arrays._copy, []

    def slow_copy(*args):
        built.append(args)
        time.sleep(0.3)  # long enough for the other thread to ask, had it no lock to wait for
        return copy(*args)

    monkeypatch.setattr(arrays, "_copy", slow_copy)
    threads = [
        threading.Thread(
            target=lambda: sizes.append(
                len(open_data(tmp_path / "store", task="avvp").split("train"))
            )
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1 and sizes == [40, 40]


def test_shards_hold_the_rows_asked_for_and_compression_changes_only_bytes(tmp_path):
    write(tmp_path / "plain", spec_of(), {"train": 25}, rows_per_shard=10)
    write(tmp_path / "zstd", spec_of(), {"train": 25}, rows_per_shard=10, compression="zstd")
    plain, zstd = (Manifest.read(tmp_path / name) for name in ("plain", "zstd"))
    assert [shard.rows for shard in plain.splits["train"].shards] == [10, 10, 5]
    assert plain.checksum == zstd.checksum and plain.fingerprint != zstd.fingerprint
    batches = [
        open_data(tmp_path / name, task="avvp").split("train").batch(range(25))
        for name in ("plain", "zstd")
    ]
    assert torch.equal(batches[0].visual, batches[1].visual) and batches[0].row.tolist() == list(
        range(25)
    )


def test_features_come_in_the_precision_asked_for(tmp_path):
    write(tmp_path / "store", spec_of(), {"train": 4})
    split = open_data(tmp_path / "store", task="avvp").split("train")
    batch = split.batch([1, 2], dtype=torch.bfloat16)
    assert batch.audio.dtype == batch.visual.dtype == batch.motion.dtype == torch.bfloat16
    assert batch.labels["weak"].dtype == torch.float32
    assert torch.equal(batch.audio, split.batch([1, 2]).audio.bfloat16())


def test_writing_and_mapping_take_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("avplatform.data.store.writer.GROUP_BYTES", 2**16)
    spec = dataclasses.replace(spec_of(), features=FeatureSpec(audio_dim=128, visual_dim=256))
    columns = {k: v for k, v in columns_of(spec, 100).items() if k != "row"}
    held, before = [], pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        with StoreWriter(tmp_path / "store", spec, rows_per_shard=500) as writer:
            for start in range(0, 4000, 100):
                writer.add("train", {**columns, "row": np.arange(start, start + 100)})
                held.append(pa.total_allocated_bytes() - before)
        data = open_data(tmp_path / "store", task="avvp", cache_dir=tmp_path / "cache")
        assert len(data.split("train")) == 4000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    total = 4000 * 5 * (128 + 256) * 2
    assert peak < total / 4 and max(held) < total / 4, (peak, max(held), total)
