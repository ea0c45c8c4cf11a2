"""Training and evaluation read every clip exactly once.

Mapped and streamed, on any number of processes, threads and shards.
"""

import dataclasses
import json
import os
import signal
import time
from collections import Counter
from functools import partial

import pyarrow as pa
import pytest
import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import gather_object
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader

from avplatform.base.machine import leave
from avplatform.data import batch_of, open_data, stream_dataset
from avplatform.data.reading.sampling import eval_batches
from avplatform.data.reading.source import train_loader
from avplatform.models.errors import UsageError
from tests.data.stores import spec_of, write
from tests.posix import needs_posix

SIZES = (402, 649, 1200, 1201)
SHARDS = (1, 3, 5, 7)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Stores of all sizes in uneven shards, whose number 2 or 4 processes do not divide."""
    folder = tmp_path_factory.mktemp("exactly-once")
    for size in SIZES:
        for shards in SHARDS:
            path = folder / f"{size}-{shards}"
            write(path, spec_of(), {"train": size}, rows_per_shard=-(-size // shards))
            assert len(open_data(path, task="avvp").manifest.splits["train"].shards) == shards
    return folder


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("shards", SHARDS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("streaming", [False, True], ids=["mapped", "streamed"])
def test_an_epoch_holds_every_clip_once(stores, streaming, size, shards, processes, workers):
    data, seen, steps = open_data(stores / f"{size}-{shards}", task="avvp"), [], set()
    for index in range(processes):
        loader = train_loader(
            data, ["train"], streaming=streaming, num_workers=workers, batch_size=16, seed=1,
            process_index=index, num_processes=processes,
        )  # fmt: skip
        shares = list(loader.epoch(3))
        assert len(shares) == len(loader) == -(-size // 16)
        steps.add(tuple(share.global_size for share in shares))
        seen += [row for share in shares for row in share.batch.row.tolist()[: share.clips]]
    assert sorted(seen) == list(range(size))
    assert len(steps) == 1 and sum(steps.pop()) == size


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("size", SIZES)
def test_an_evaluation_counts_every_clip_once(stores, size, processes):
    split, seen = open_data(stores / f"{size}-5", task="avvp").split("train"), []
    for index in range(processes):
        seen += [
            row
            for indices in eval_batches(size, 64, index, processes)
            for row in split.batch(indices).row.tolist()
        ]
    assert sorted(seen) == list(range(size))


@pytest.mark.parametrize("batch_size", [1, 3, 7, 16, 500, 649, 2000])
@pytest.mark.parametrize("processes", [1, 3, 5])
def test_a_stream_gives_whole_epochs_and_equal_batches_in_awkward_numbers(
    stores, batch_size, processes
):
    data, batches = open_data(stores / "649-7", task="avvp"), []
    for index in range(processes):
        loader = train_loader(
            data,
            ["train"],
            streaming=True,
            batch_size=batch_size,
            seed=2,
            process_index=index,
            num_processes=processes,
        )
        batches.append([share.batch.row.tolist()[: share.clips] for share in loader.epoch(1)])
    joined = [sum(parts, []) for parts in zip(*batches, strict=True)]
    alone = train_loader(data, ["train"], streaming=True, batch_size=batch_size, seed=2)
    assert joined == [share.batch.row.tolist() for share in alone.epoch(1)]
    assert sorted(sum(joined, [])) == list(range(649))


@pytest.mark.parametrize("streaming", [False, True], ids=["mapped", "streamed"])
def test_a_dropped_remainder_is_all_that_is_left_out(stores, streaming):
    data = open_data(stores / "649-5", task="avvp")
    loader = train_loader(
        data, ["train"], streaming=streaming, batch_size=32, seed=1, drop_last=True
    )
    rows = [row for share in loader.epoch(1) for row in share.batch.row.tolist()]
    assert len(loader) == 20 and len(rows) == len(set(rows)) == 640


@pytest.fixture
def counted(stores, monkeypatch):
    """A stream of 24 row groups and the numbers of the ones it reads."""
    from avplatform.data.reading import streaming

    path = stores / "grouped"
    if not path.exists():
        monkeypatch.setattr(
            "avplatform.data.store.writer.GROUP_BYTES", 50 * 90
        )  # a clip has 90 bytes: row groups of 50
        write(path, spec_of(), {"train": 1200}, rows_per_shard=200)
    read, real = [], streaming.StreamLoader._read
    monkeypatch.setattr(
        streaming.StreamLoader,
        "_read",
        lambda self, number: read.append(number) or real(self, number),
    )
    return open_data(path, task="avvp"), read


def test_a_process_reads_little_more_than_its_part_and_nothing_twice(counted):
    data, read = counted
    for processes, most in ((1, 24), (2, 14), (4, 8)):
        for index in range(processes):
            read.clear()
            loader = train_loader(
                data,
                ["train"],
                streaming=True,
                batch_size=16,
                seed=1,
                process_index=index,
                num_processes=processes,
            )
            assert sum(len(sizes) for sizes in loader.group_sizes) == 24
            list(loader.epoch(1))
            assert max(Counter(read).values()) == 1 and len(read) <= most, (processes, read)


def test_a_stream_knows_all_ids_from_their_column_alone(counted, monkeypatch):
    data, read = counted
    loader = train_loader(data, ["train"], streaming=True, batch_size=16, seed=1)
    sizes, real = [], loader.shards.read
    monkeypatch.setattr(
        loader.shards, "read", lambda *where: sizes.append(where[2]) or real(*where)
    )
    assert loader.clip_ids() == data.split("train").clip_ids and len(loader.clip_ids()) == 1200
    assert not read and sum(sizes) < 2 * 1200 * 20  # bytes of both readings; a clip has 90


def test_a_resumed_stream_reads_nothing_that_lies_behind_it(counted):
    data, read = counted
    loader = train_loader(data, ["train"], streaming=True, batch_size=16, seed=1)
    rest = [share.batch.row.tolist() for share in loader.epoch(1)][68:]
    read.clear()
    assert [share.batch.row.tolist() for share in loader.epoch(1, start=68)] == rest
    assert 0 < len(read) <= 16


def test_a_stream_holds_few_row_groups_at_a_time(counted, monkeypatch):
    from avplatform.data.reading import streaming

    data, _ = counted
    most, real = [], streaming._HeldGroups._take

    def take(self, number):
        found = real(self, number)
        most.append(len(self._held))
        return found

    monkeypatch.setattr(streaming._HeldGroups, "_take", take)
    monkeypatch.setattr("avplatform.data.reading.sampling.LANES", 2)
    list(train_loader(data, ["train"], streaming=True, batch_size=16, seed=1).epoch(1))
    assert max(most) <= 2 * 3  # two lanes, of two row groups and the one they share


def read_epoch(rank, *, store, log, streaming, start, processes):
    """In a process of its own: read the rest of an epoch; one that starts it waits in the midst."""
    data = open_data(store, task="avvp")
    loaders = [
        train_loader(
            data, ["train"], streaming=streaming, num_workers=2, batch_size=16, seed=7,
            process_index=i, num_processes=processes,
        )
        for i in range(processes)
    ]  # fmt: skip
    epochs = zip(*(loader.epoch(5, start=start) for loader in loaders), strict=True)
    with log.open("a") as file:
        for number, shares in enumerate(epochs, start):
            rows = [row for share in shares for row in share.batch.row.tolist()[: share.clips]]
            print(json.dumps([number, rows]), file=file, flush=True)
            if start == 0 and number == 13:
                print("reached", flush=True)
                signal.pause()
    os._exit(0)


@needs_posix
@pytest.mark.parametrize("streaming", [False, True], ids=["mapped", "streamed"])
def test_kill_minus_nine_and_resume_on_other_processes_make_one_epoch(stores, tmp_path, streaming):
    from tests.processes import Launch

    log, said = tmp_path / "log.jsonl", tmp_path / "said"
    reader = partial(read_epoch, store=stores / "649-7", log=log, streaming=streaming)
    killed = Launch([], said, before=partial(reader, start=0, processes=2))
    end = time.monotonic() + 120
    while "reached\n" not in killed.output():
        assert killed.alive and time.monotonic() < end, killed.output()
        time.sleep(0.01)
    killed.kill()
    assert killed.members[0].exitcode == -signal.SIGKILL
    before = [json.loads(line) for line in log.read_text().splitlines()]
    assert [number for number, _ in before] == list(range(14))
    again = Launch([], said, before=partial(reader, start=len(before), processes=3))
    assert again.wait(120) == [0], again.output()
    batches = [json.loads(line) for line in log.read_text().splitlines()]
    assert [number for number, _ in batches] == list(range(41))
    assert sorted(row for _, rows in batches for row in rows) == list(range(649))


def read_own_share(rank, *, store, out):
    """In each of some processes: read the own share of all; the first writes down who read what."""
    accelerator = Accelerator(cpu=True)
    own = {
        "process_index": accelerator.process_index, "num_processes": accelerator.num_processes
    }  # fmt: skip
    data, found = open_data(store, task="avvp"), {"processes": accelerator.num_processes}
    for streaming in (False, True):
        for workers in (0, 2):
            loader = train_loader(
                data, ["train"], streaming=streaming, num_workers=workers, batch_size=16, seed=1,
                **own,
            )  # fmt: skip
            rows = []
            for share in loader.epoch(1):
                rows += share.batch.row.tolist()[: share.clips]
                # As the gradients of every step do: who has no batch hangs here.
                accelerator.wait_for_everyone()
            found[f"{streaming} {workers}"] = gather_object(rows)
    split = data.split("train")
    shares = eval_batches(len(split), 64, *own.values())
    rows = [row for indices in shares for row in split.batch(indices).row.tolist()]
    found["evaluation"] = gather_object(rows)
    if accelerator.is_main_process:
        out.write_text(json.dumps(found))
    leave(accelerator)
    os._exit(0)


@needs_posix
@pytest.mark.parametrize(
    ("store", "processes"),
    [
        ("1201-7", 2),
        pytest.param("649-3", 4, marks=pytest.mark.slow),
        pytest.param("402-5", 2, marks=pytest.mark.slow),
    ],
)
def test_processes_of_their_own_share_every_clip_once(stores, tmp_path, store, processes):
    from tests.processes import Launch

    work = partial(read_own_share, store=stores / store, out=tmp_path / "out.json")
    launch = Launch([], tmp_path / "log", processes=processes, before=work)
    assert launch.wait(240) == [0] * processes, launch.output()
    found = json.loads((tmp_path / "out.json").read_text())
    assert found.pop("processes") == processes and len(found) == 5
    for name, rows in found.items():
        assert sorted(rows) == list(range(int(store.split("-")[0]))), name


@pytest.mark.parametrize("streaming", [False, True], ids=["mapped", "streamed"])
def test_preparing_a_loader_with_accelerate_is_refused(stores, streaming):
    loader = train_loader(
        open_data(stores / "402-3", task="avvp"),
        ["train"],
        streaming=streaming,
        batch_size=16,
        seed=1,
    )
    model = torch.nn.Linear(2, 2)
    for prepare in (
        lambda: Accelerator(cpu=True).prepare(loader),
        lambda: Accelerator(cpu=True).prepare(model, torch.optim.Adam(model.parameters()), loader),
        lambda: Accelerator(cpu=True).prepare_data_loader(loader),
        lambda: prepare_data_loader(loader, num_processes=2, process_index=0),
    ):
        with pytest.raises(UsageError, match="must not be prepared by Accelerate"):
            prepare()
    with pytest.raises(UsageError, match=r"iterate loader.epoch\(n\)"):
        iter(loader)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_stream_for_loops_of_ones_own_is_shared_out_once(stores, processes):
    data = open_data(stores / "649-7", task="avvp")
    parts = [
        stream_dataset(data, "train", process_index=i, num_processes=processes)
        for i in range(processes)
    ]
    rows = [
        row
        for part in parts
        for table in part.iter(batch_size=50)
        for row in table["row"].to_pylist()
    ]
    assert sorted(rows) == list(range(649))


@pytest.mark.parametrize(
    ("splits", "known"), [("train", set()), ("test", {"weak"}), (["train", "test"], set())]
)
def test_a_stream_for_loops_of_ones_own_leaves_out_labels_that_are_not_known(
    tmp_path, splits, known
):
    spec = dataclasses.replace(spec_of(), label_splits={"weak": ["test"]})
    write(tmp_path / "store", spec, {"train": 3, "test": 2})
    stream = stream_dataset(open_data(tmp_path / "store", task="avvp"), splits)
    assert {
        name for table in stream.iter(batch_size=5) for name in batch_of(spec, table).labels
    } == known


def test_a_stream_that_was_split_already_is_refused(stores):
    data = open_data(stores / "649-7", task="avvp")
    whole = stream_dataset(data, "train")
    assert stream_dataset(whole) is whole
    split = split_dataset_by_node(whole, rank=0, world_size=2)
    for again in (split, stream_dataset(data, "train", process_index=1, num_processes=2)):
        with pytest.raises(UsageError, match="already split between 2 processes"):
            stream_dataset(again, process_index=0, num_processes=2)
    with pytest.raises(UsageError, match="already split between 2 processes"):
        stream_dataset(split)
    with pytest.raises(UsageError, match="process_index is 2"):
        stream_dataset(data, process_index=2, num_processes=2)


CHANGES = {
    "as it is": lambda share: share,
    "mapped": lambda share: share.map(lambda table: table),
    "shuffled": lambda share: share.shuffle(seed=1, buffer_size=10),
    "reshuffled": lambda share: share.filter(lambda table: [True] * len(table), batched=True),
}


@pytest.fixture
def no_pause(monkeypatch):
    """Let `datasets` end a shuffled stream at once; it gives its threads five seconds."""
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_share_of_a_stream_is_not_split_by_node_again(stores, no_pause, change):
    share = change(
        stream_dataset(open_data(stores / "649-7", task="avvp"), process_index=1, num_processes=2)
    )
    with pytest.raises(UsageError, match="already one process's share"):
        split_dataset_by_node(share, rank=0, world_size=2)
    alone = split_dataset_by_node(share, rank=0, world_size=1)  # which splits nothing
    assert sum(len(table) for table in alone.iter(batch_size=50)) in (324, 325)


@pytest.mark.parametrize("dispatch", [True, False], ids=["dispatched", "read by each"])
@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_torch_loader_of_a_share_is_read_as_it_is_but_not_prepared(
    stores, no_pause, change, dispatch, processes
):
    share = change(
        stream_dataset(open_data(stores / "649-7", task="avvp"), process_index=0, num_processes=2)
    )
    loader = DataLoader(share, batch_size=50, collate_fn=pa.concat_tables)
    assert sum(len(table) for table in loader) in (324, 325)
    options = dict(
        num_processes=processes, process_index=0, put_on_device=dispatch, dispatch_batches=dispatch
    )
    prepared = prepare_data_loader(loader, **options)
    with pytest.raises(UsageError, match="must not be prepared by Accelerate"):
        next(iter(prepared))
    assert sum(len(table) for table in loader) in (324, 325)  # nothing of the refusal stays


def test_accelerate_may_deal_a_stream_that_was_not_shared_out(stores):
    stream = stream_dataset(open_data(stores / "402-3", task="avvp"))
    rows = []
    for index in range(2):
        loader = DataLoader(
            stream,
            batch_size=16,
            collate_fn=lambda tables: pa.concat_tables(tables)["row"].to_pylist(),
        )
        rows += sum(prepare_data_loader(loader, num_processes=2, process_index=index), [])
    assert sorted(set(rows)) == list(range(402))
