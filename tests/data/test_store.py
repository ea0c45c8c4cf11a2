"""The store: what goes in comes out, what is wrong is named, and every clip is read once."""

import multiprocessing
import threading

import numpy as np
import pytest

from avplatform.data import DataSpec, StoreWriter, open_data
from avplatform.data.loader import TrainLoader
from avplatform.data.sampling import eval_batches
from avplatform.data.schema import MANIFEST_FILE, Manifest
from avplatform.data.source import train_loader
from models.config import FeatureSpec
from models.errors import AVError, DataError, UsageError


def spec_of(kind="vectors"):
    if kind == "maps":
        return DataSpec(
            name="maps",
            task="avel",
            classes=["a", "b", "background"],
            features=FeatureSpec(audio_dim=3, visual_dim=4, map_size=(2, 2)),
            labels={"segment": [5], "video": []},
            label_dtypes={"segment": "int64", "video": "int64"},
            segments=5,
            synthetic=True,
        )
    return DataSpec(
        name="vectors",
        task="avvp",
        classes=["a", "b"],
        features=FeatureSpec(audio_dim=3, visual_dim=4, motion_dim=2),
        labels={"weak": [2]},
        label_dtypes={"weak": "uint8"},
        segments=5,
        synthetic=True,
    )


def columns_of(spec, count, start=0, seed=0):
    rng = np.random.default_rng([seed, start])
    out = {"row": np.arange(start, start + count), "clip_id": [f"clip{i}" for i in range(start, start + count)]}
    for name, shape in spec.shapes().items():
        if name in spec.labels:
            out[name] = rng.integers(0, 2, (count, *shape))
        else:
            out[name] = rng.standard_normal((count, *shape)).astype(np.float32)
    return out


def write(path, spec, sizes, **options):
    given, start = {}, 0
    with StoreWriter(path, spec, **options) as writer:
        for split, count in sizes.items():
            given[split] = columns_of(spec, count, start)
            writer.add(split, given[split])
            start += count
    return given


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
    with pytest.raises(UsageError, match="no split 'tset'|no split 'tset'"):
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
    c["audio"][0, 0, 0] = 1e6


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_nan, "audio of clip clip1 .row 1. is NaN"),
        (_wide, "visual has shape"),
        (_label, "weak of clip clip2 .row 2. holds a label"),
        (_missing, "missing: .'motion'"),
        (_twice, "row 0 .clip clip1. is added twice"),
        (_large, "does not fit float16"),
    ],
)
def test_bad_columns_are_named_and_leave_nothing(tmp_path, damage, message):
    spec = spec_of()
    columns = columns_of(spec, 4)
    damage(columns)
    with pytest.raises(DataError, match=message), StoreWriter(tmp_path / "store", spec) as writer:
        writer.add("train", columns)
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


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flip, "sha256 differs"),
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


def test_missing_folders_and_other_tasks_are_named(tmp_path):
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
    processes = [context.Process(target=_open, args=(tmp_path / "store", results)) for _ in range(2)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [40, 40]
    for process in processes:
        process.join()


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sizes")
    for size in (1, 7, 64, 402, 649):
        write(folder / str(size), spec_of(), {"train": size})
    return folder


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("size", [1, 7, 64, 402, 649])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_every_clip_is_read_once_an_epoch(stores, streaming, size, processes):
    data, seen, batches = open_data(stores / str(size), task="avvp"), [], []
    for index in range(processes):
        loader = train_loader(
            data, ["train"], streaming=streaming, batch_size=32, seed=1, process_index=index, num_processes=processes
        )
        mine = list(loader.epoch(1))
        assert len(mine) == len(loader) == -(-size // 32)
        seen += [row for share in mine for row in share.batch.row.tolist()[: share.clips]]
        batches.append([share.global_size for share in mine])
    assert sorted(seen) == list(range(size))
    assert all(b == batches[0] for b in batches) and sum(batches[0]) == size


@pytest.mark.parametrize("streaming", [False, True])
def test_batches_do_not_depend_on_processes_and_differ_between_epochs(stores, streaming):
    data = open_data(stores / "64", task="avvp")

    def rows(processes, epoch):
        parts = []
        for index in range(processes):
            loader = train_loader(
                data, ["train"], streaming=streaming, batch_size=16, seed=1, process_index=index, num_processes=processes
            )
            parts.append([s.batch.row.tolist()[: s.clips] for s in loader.epoch(epoch)])
        return [sum(batch, []) for batch in zip(*parts, strict=True)]

    assert rows(1, 1) == rows(2, 1) == rows(4, 1)
    assert rows(1, 1) != rows(1, 2)


@pytest.mark.parametrize("streaming", [False, True])
def test_starting_later_skips_whole_batches(stores, streaming):
    data = open_data(stores / "402", task="avvp")
    loader = train_loader(data, ["train"], streaming=streaming, batch_size=32, seed=3)
    whole = [s.batch.row.tolist() for s in loader.epoch(2)]
    assert [s.batch.row.tolist() for s in loader.epoch(2, start=9)] == whole[9:]


def test_threads_read_the_same_batches_in_order_and_stop(stores):
    data = open_data(stores / "402", task="avvp")
    plain, threaded = (train_loader(data, ["train"], batch_size=16, seed=3, num_workers=n) for n in (0, 2))
    assert [s.batch.row.tolist() for s in plain.epoch(1)] == [s.batch.row.tolist() for s in threaded.epoch(1)]
    before = threading.active_count()
    for _ in threaded.epoch(1):
        break
    for thread in threading.enumerate():
        if thread.daemon and thread is not threading.main_thread():
            thread.join(timeout=5)
    assert threading.active_count() <= before


def test_an_error_in_a_reading_thread_reaches_the_reader(stores):
    loader = train_loader(open_data(stores / "64", task="avvp"), ["train"], batch_size=16, seed=3, num_workers=2)
    loader._share = lambda batch: (_ for _ in ()).throw(RuntimeError("disk gone"))
    with pytest.raises(RuntimeError, match="disk gone"):
        list(loader.epoch(1))


def test_splits_are_joined_in_the_order_asked_for(tmp_path):
    write(tmp_path / "store", spec_of("maps"), {"train": 10, "background": 4})
    data = open_data(tmp_path / "store", task="avel")
    loader = TrainLoader([data.split("train"), data.split("background")], batch_size=5, seed=0)
    for share in loader.epoch(1):
        for i, row in enumerate(share.batch.row.tolist()):
            split, position = ("train", row) if row < 10 else ("background", row - 10)
            expected = data.split(split).batch([position])
            assert (share.batch.visual[i] == expected.visual[0]).all()


def test_streaming_refuses_threads(stores):
    with pytest.raises(AVError, match="num-workers"):
        train_loader(open_data(stores / "7", task="avvp"), ["train"], streaming=True, num_workers=2, batch_size=4, seed=0)


def test_evaluation_batches_are_dealt_whole():
    whole = [b.tolist() for b in eval_batches(23, 4, 0, 1)]
    dealt = [[b.tolist() for b in eval_batches(23, 4, i, 3)] for i in range(3)]
    assert sorted(sum(dealt, [])) == sorted(whole) and len(whole) == 6
