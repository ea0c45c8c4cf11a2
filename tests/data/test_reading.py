"""Reading gives every clip once per epoch.

The batches are the same on any number of processes and threads, mapped or streamed.
"""

import threading
import time

import pytest
import torch

from avplatform.data import open_data
from avplatform.data.reading.loader import TrainLoader, read_ahead
from avplatform.data.reading.sampling import eval_batches
from avplatform.data.reading.source import train_loader
from tests.data.stores import spec_of, write


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sizes")
    for size in (1, 7, 64, 402, 649):
        # Shards of uneven sizes: the last one of 649 holds 49 clips.
        write(folder / str(size), spec_of(), {"train": size}, rows_per_shard=100)
    return folder


@pytest.mark.parametrize("kind", ["vectors", "maps"])
def test_a_stream_gives_the_clips_of_the_map_style_reader(tmp_path, kind):
    spec = spec_of(kind)
    write(tmp_path / "store", spec, {"train": 50, "background": 13}, rows_per_shard=20)
    data = open_data(tmp_path / "store", task=spec.task)
    loader = train_loader(data, ["train", "background"], streaming=True, batch_size=8, seed=5)
    seen = 0
    for share in loader.epoch(1):
        for i, row in enumerate(share.batch.row.tolist()):
            expected = (
                data.split("train").batch([row])
                if row < 50
                else data.split("background").batch([row - 50])
            )
            assert share.batch.clip_id[i] == expected.clip_id[0]
            for name in ("audio", "visual") + (("motion",) if kind == "vectors" else ()):
                assert torch.equal(getattr(share.batch, name)[i], getattr(expected, name)[0])
            for name in spec.labels:
                assert torch.equal(share.batch.labels[name][i], expected.labels[name][0])
            seen += 1
    assert seen == 63


def test_a_stream_mixes_shards(stores):
    loader = train_loader(
        open_data(stores / "649", task="avvp"), ["train"], streaming=True, batch_size=32, seed=3
    )
    first = {
        row // 100
        for epoch in range(8)
        for row in next(iter(loader.epoch(epoch))).batch.row.tolist()
    }
    assert len(first) > 3
    rows = next(iter(loader.epoch(0))).batch.row
    assert (rows.diff() < 0).any()  # and clips of a batch are not in the order of the file


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("size", [1, 7, 64, 402, 649])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_every_clip_is_read_once_an_epoch(stores, streaming, size, processes):
    data, seen, batches = open_data(stores / str(size), task="avvp"), [], []
    for index in range(processes):
        loader = train_loader(
            data,
            ["train"],
            streaming=streaming,
            batch_size=32,
            seed=1,
            process_index=index,
            num_processes=processes,
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
                data,
                ["train"],
                streaming=streaming,
                batch_size=16,
                seed=1,
                process_index=index,
                num_processes=processes,
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


@pytest.mark.parametrize("streaming", [False, True])
def test_threads_read_the_same_batches_in_order_and_stop(stores, streaming):
    data = open_data(stores / "402", task="avvp")
    plain, threaded = (
        train_loader(data, ["train"], streaming=streaming, batch_size=16, seed=3, num_workers=n)
        for n in (0, 2)
    )
    assert [s.batch.row.tolist() for s in plain.epoch(1)] == [
        s.batch.row.tolist() for s in threaded.epoch(1)
    ]
    before = set(threading.enumerate())
    for _ in threaded.epoch(1):
        started = set(threading.enumerate()) - before
        break
    for thread in started:
        thread.join(timeout=5)
    assert len(started) == 2 and not any(thread.is_alive() for thread in started)


def test_an_error_in_a_reading_thread_reaches_the_reader(stores):
    loader = train_loader(
        open_data(stores / "64", task="avvp"), ["train"], batch_size=16, seed=3, num_workers=2
    )
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


def test_evaluation_batches_are_dealt_whole():
    whole = [b.tolist() for b in eval_batches(23, 4, 0, 1)]
    dealt = [[b.tolist() for b in eval_batches(23, 4, i, 3)] for i in range(3)]
    assert sorted(sum(dealt, [])) == sorted(whole) and len(whole) == 6


@pytest.mark.parametrize("taken", [1, 20])
def test_reading_ahead_leaves_no_thread_behind(taken):
    before = threading.active_count()
    reader = read_ahead([lambda i=i: time.sleep(0.01) or i for i in range(20)], 2)
    assert [next(reader) for _ in range(taken)] == list(range(taken))
    reader.close()
    assert threading.active_count() == before
