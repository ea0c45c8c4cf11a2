"""Splits through `datasets`, labels known in some splits only, and the memory of batches."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from accelerate import Accelerator

from avplatform.data import batch_of, open_data
from avplatform.data.reading.arrays import known_labels
from avplatform.data.reading.source import train_loader
from avplatform.evaluation.evaluate import evaluate
from avplatform.models.errors import DataError
from tests.data.stores import spec_of, write


@pytest.fixture(params=["vectors", "maps"])
def data(request, tmp_path):
    spec = spec_of(request.param)
    write(tmp_path / "store", spec, {"train": 30, "test": 9}, rows_per_shard=8)
    return open_data(tmp_path / "store", task=spec.task)


def equal(a, b):
    tensors = [
        (a.audio, b.audio),
        (a.visual, b.visual),
        (a.row, b.row),
        *((a.labels[n], b.labels[n]) for n in b.labels),
    ]
    tensors += [] if b.motion is None else [(a.motion, b.motion)]
    return (
        a.clip_id == b.clip_id
        and a.labels.keys() == b.labels.keys()
        and all(torch.equal(x, y) for x, y in tensors)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_dataset_gives_the_clips_of_the_mapped_split(data, dtype):
    dataset, split = data.as_dataset("train"), data.split("train")
    assert len(dataset) == 30 and str(dataset.split) == "train"
    for indices in ([7, 2, 2, 29], range(4, 9)):
        assert equal(
            batch_of(data.spec, dataset[indices], dtype=dtype),
            split.batch(list(indices), dtype=dtype),
        )
    shuffled = dataset.shuffle(seed=1)[:5]
    assert equal(batch_of(data.spec, shuffled), split.batch(shuffled["row"].to_pylist()))


def test_a_dataset_is_the_mapped_file_itself(data):
    table = data.as_dataset("train").data
    for name, values in data.split("train").columns().items():
        column = table.column(name).chunk(0)
        flat = column.flatten() if values.ndim > 1 else column
        assert flat.buffers()[1].address == values.ctypes.data


def test_other_formats_of_datasets_work(data):
    rows = data.as_dataset("test").with_format("numpy")[:3]
    np.testing.assert_array_equal(
        rows["audio"].reshape(3, -1), data.split("test").columns()["audio"][:3].reshape(3, -1)
    )


@pytest.mark.parametrize("name", ["row", "audio"])
@pytest.mark.parametrize("joined", [False, True], ids=["one piece", "several pieces"])
def test_empty_entries_of_a_table_are_refused(data, name, joined):
    table = data.as_dataset("train")[:4]
    holes = table.set_column(
        table.column_names.index(name),
        name,
        pa.array([None, *table.column(name).to_pylist()[1:]], table.column(name).type),
    )
    with pytest.raises(DataError, match=f"'{name}' .* empty entries"):
        batch_of(data.spec, pa.concat_tables([table, holes]) if joined else holes)


def test_a_batch_shares_its_memory_with_nothing(data):
    split = data.split("train")
    for make in (
        lambda: split.batch(range(5), dtype=torch.float16),
        lambda: batch_of(data.spec, data.as_dataset("train")[:5], dtype=torch.float16),
        lambda: batch_of(data.spec, data.as_dataset("train")[[3, 1, 4]], dtype=torch.float16),
        lambda: next(iter(train_loader(data, ["train"], batch_size=5, seed=0).epoch(1))).batch,
        lambda: (
            next(
                iter(train_loader(data, ["train"], streaming=True, batch_size=5, seed=0).epoch(1))
            ).batch
        ),
    ):
        first = make()
        before, kept = make(), first.visual.clone()
        for tensor in (before.audio, before.visual, *before.labels.values(), before.row):
            tensor.fill_(0)
        assert torch.equal(first.visual, kept) and torch.equal(make().visual, kept)


@pytest.fixture
def partly(data, monkeypatch):
    """The store, one label of which is known in the test split only."""
    name = next(iter(data.spec.labels))
    monkeypatch.setattr(data.spec, "label_splits", {name: ["test"]}, raising=False)
    return data, name


@pytest.mark.parametrize("streaming", [False, True])
def test_a_label_is_given_only_where_it_is_known(partly, streaming):
    data, name = partly
    assert name in known_labels(data.spec, "test") and name not in known_labels(
        data.spec, "train", "test"
    )
    assert (
        name in data.split("test").batch([0]).labels
        and name not in data.split("train").batch([0]).labels
    )
    for splits, known in (
        (["train"], False),
        (["test"], True),
        (["train", "test"], False),
        (["test", "train"], False),
    ):
        for share in train_loader(data, splits, streaming=streaming, batch_size=4, seed=0).epoch(1):
            assert (name in share.batch.labels) is known
    with pytest.raises(DataError, match=f"{name}.* is not known in the split 'train'"):
        data.split("train").labels(name)
    assert name not in data.as_dataset("train").column_names


@pytest.mark.parametrize(("task", "label"), [("avvp", "dense_audio")])
def test_scoring_a_split_without_labels_says_which_are_missing(
    small_stores, monkeypatch, task, label
):
    from avplatform.config.build import build_model, build_task
    from avplatform.config.run import default_config

    data = open_data(small_stores[task], task=task)
    monkeypatch.setattr(data.spec, "label_splits", {label: ["test"]}, raising=False)
    config = default_config(task)
    adapter = build_task(config)
    model = build_model(config, adapter, data.spec)
    with pytest.raises(DataError, match=f"has no .*{label}"):
        evaluate(model, adapter, data.split("validation"), accelerator=Accelerator(cpu=True))
