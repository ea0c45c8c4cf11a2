"""Importing AVE's h5 files: rows, orders, background clips, compared label files, and damage."""

import functools
import json
import os
import tracemalloc
import weakref

import h5py
import numpy as np
import pytest
import torch

from avplatform.cli import main
from avplatform.data import open_data
from avplatform.data.adapters.ave import derived
from avplatform.data.adapters.ave.annotations import read_annotations
from avplatform.data.adapters.ave.classes import BACKGROUND
from avplatform.data.importing.report import count_kinds
from avplatform.data.simulate import simulate
from avplatform.data.store.card import render_dataset_card
from avplatform.data.store.schema import Manifest
from avplatform.models.errors import DataError, UsageError
from tests.data import official
from tests.data.official import AVE_LINES, AVE_ORDERS, ave_arrays, ave_tree, files, write_h5
from tests.tasks.test_avel import write_ave

real = pytest.mark.skipif(
    "AVP_AVE_DIR" not in os.environ,
    reason="AVP_AVE_DIR is not set: the real annotations are not here",
)


bring_in = functools.partial(official.bring_in, "ave")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return ave_tree(tmp_path_factory.mktemp("official") / "ave")


@pytest.fixture
def own_tree(tmp_path):
    return ave_tree(tmp_path / "ave")


def test_rows_come_in_the_order_of_the_order_files_with_background_behind(tree, tmp_path):
    report = bring_in(tree, tmp_path / "store", dtype="float32")
    assert (
        report.stored == {"train": 8, "validation": 2, "test": 2, "background": 2}
        and not report.left_out
    )
    data, given, noisy = (
        open_data(tmp_path / "store", task="avel"),
        ave_arrays(12),
        ave_arrays(2, seed=1),
    )
    train = data.split("train")
    assert train.rows.tolist() == AVE_ORDERS["train"]
    assert train.clip_ids[0] == "video_00004" and not data.synthetic
    batch = train.batch(range(8))
    np.testing.assert_array_equal(
        batch.visual.numpy(), given["visual"][AVE_ORDERS["train"]].astype(np.float32)
    )
    np.testing.assert_array_equal(
        batch.audio.numpy(), given["audio"][AVE_ORDERS["train"]].astype(np.float32)
    )
    assert train.labels("video").tolist() == [0, 0, 0, 0, 2, 2, 2, 2]
    assert train.labels("segment")[0].tolist() == [28, *[0] * 9]
    extra = data.split("background")
    assert extra.rows.tolist() == [12, 13] and set(extra.labels("segment").ravel().tolist()) == {
        BACKGROUND
    }
    np.testing.assert_array_equal(
        extra.batch([1]).visual[0].numpy(), noisy["visual"][1].astype(np.float32)
    )


@pytest.mark.parametrize(
    "layout",
    [
        {"chunks": (5, 10, 7, 7, 64)},
        {"chunks": (5, 10, 7, 7, 512)},
        {"chunks": (5, 10, 7, 7, 512), "shuffle": True},
        {"chunks": (1, 10, 7, 7, 512), "compression": "gzip"},
        {"chunks": (12, 1, 7, 7, 8)},
    ],
)
def test_the_layout_inside_the_h5_file_changes_nothing(tree, tmp_path, layout):
    bring_in(tree, tmp_path / "one")
    bring_in(ave_tree(tmp_path / "ave", **layout), tmp_path / "two")
    assert Manifest.read(tmp_path / "one").checksum == Manifest.read(tmp_path / "two").checksum


def test_without_files_of_background_clips_there_is_no_such_split(own_tree, tmp_path):
    (own_tree / "visual_feature_noisy.h5").unlink()
    report = bring_in(own_tree, tmp_path / "store")
    assert "background" not in report.stored and "no visual_feature_noisy.h5" in report.remarks[0]
    assert (
        bring_in(own_tree, tmp_path / "two", noisy_audio_file="none")
        .remarks[0]
        .endswith("left out (none)")
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_a_bad_row_is_left_out_and_named_with_its_file(own_tree, tmp_path, value):
    with h5py.File(own_tree / "visual_feature.h5", "r+") as h5:
        h5["avadataset"][5, 3, 2, 1, 7] = value
    with h5py.File(own_tree / "audio_feature_noisy.h5", "r+") as h5:
        h5["avadataset"][1, 0, 0] = value
    assert main(["data", "import", "ave", str(own_tree), "--out", str(tmp_path / "store")]) == 1
    report = json.loads((tmp_path / "store" / "import_report.json").read_text())
    found = [
        (item["clip_id"], os.path.basename(item["file"]), item["reason"][:5])
        for item in report["left_out"]
    ]
    assert found == [
        ("video_00005", "visual_feature.h5", "row 5"),
        ("background_001", "audio_feature_noisy.h5", "row 1"),
    ]
    assert 5 not in open_data(tmp_path / "store", task="avel").split("train").rows


@pytest.mark.parametrize("chunks", [(1, 10, 7, 7, 512), (3, 10, 7, 7, 512)])
def test_a_damaged_chunk_costs_only_the_rows_in_it(tmp_path, chunks):
    source = ave_tree(tmp_path / "ave", chunks=chunks, compression="gzip", compression_opts=1)
    file = source / "visual_feature.h5"
    with h5py.File(file) as h5:
        where = h5["avadataset"].id.get_chunk_info(2).byte_offset
    data = bytearray(file.read_bytes())
    data[where : where + 200] = b"\xff" * 200
    file.write_bytes(data)
    report = bring_in(source, tmp_path / "store")
    lost = set(range(2 * chunks[0], 3 * chunks[0]))
    assert {int(item.reason.split()[1]) for item in report.left_out} == lost
    assert all("cannot be read" in item.reason for item in report.left_out)


def test_strict_writes_nothing(own_tree, tmp_path, capsys):
    with h5py.File(own_tree / "audio_feature.h5", "r+") as h5:
        h5["avadataset"][3] = np.nan
    assert (
        main(["data", "import", "ave", str(own_tree), "--out", str(tmp_path / "store"), "--strict"])
        == 1
    )
    assert "video_00003" in capsys.readouterr().out and [p.name for p in tmp_path.iterdir()] == [
        "ave"
    ]


def _cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _labels(name, shape):
    return lambda t: write_h5(t / name, np.zeros(shape))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda t: _cut(t / "visual_feature.h5"),
            "cannot read 'avadataset' of .*visual_feature.h5",
        ),
        (
            lambda t: (t / "audio_feature.h5").write_bytes(b"no h5"),
            "cannot read 'avadataset' of .*audio_feature.h5",
        ),
        (
            lambda t: (t / "audio_feature.h5").unlink(),
            "no audio_feature.h5 in .*; give the file with --audio-file",
        ),
        (
            _labels("visual_feature.h5", (12, 10, 512, 7, 7)),
            "instead of .12, 10, 7, 7, 512.; channels come last",
        ),
        (_labels("visual_feature.h5", (11, 10, 7, 7, 512)), "one row per line of Annotations.txt"),
        (
            _labels("audio_feature.h5", (12, 10, 64)),
            "audio_feature.h5 has shape .12, 10, 64. instead of .12, 10, 128.",
        ),
        (
            lambda t: write_h5(t / "audio_feature.h5", np.full((12, 10, 128), b"x")),
            "holds .S1, not numbers",
        ),
        (
            _labels("audio_feature_noisy.h5", (3, 10, 128)),
            "audio_feature_noisy.h5 has shape .3, 10, 128. instead of .2, 10, 128.",
        ),
        (_labels("labels_noisy.h5", (2, 29)), "one-hot label of background"),
        (lambda t: _cut(t / "train_order.h5"), "cannot read 'order' of .*train_order.h5"),
        (lambda t: (t / "Annotations.txt").write_text("Brak&x&good&0&1\n"), "did you mean 'Bark'"),
        (lambda t: (t / "Annotations.txt").unlink(), "no Annotations.txt"),
    ],
)
def test_what_makes_the_whole_impossible_is_one_error_and_leaves_nothing(
    own_tree, tmp_path, damage, message
):
    damage(own_tree)
    with pytest.raises(DataError, match=message):
        bring_in(own_tree, tmp_path / "store")
    assert [p.name for p in tmp_path.iterdir()] == ["ave"]


def test_options_of_the_other_dataset_are_refused(tree, tmp_path):
    for options in ({"vggish": "x"}, {"frames": 80}, {"visual": "clip"}):
        with pytest.raises(UsageError, match="does nothing for ave"):
            bring_in(tree, tmp_path / "store", **options)


def write_derived(folder, data):
    write_h5(folder / "labels.h5", derived.segment_onehot(data.segment).astype(np.float64))
    write_h5(folder / "right_labels.h5", derived.segment_onehot(data.segment))
    write_h5(folder / "prob_label.h5", derived.proportions(data.segment))
    write_h5(folder / "mil_labels.h5", derived.mil_labels(data.class_index))
    write_h5(folder / "labels_closs.h5", derived.event_mask(data.segment))


def test_derived_labels_that_agree_are_no_defect(own_tree, tmp_path):
    write_derived(own_tree, read_annotations(own_tree))
    report = bring_in(own_tree, tmp_path / "store")
    assert count_kinds(report.defects) == {derived.NOTE: 2}
    assert all(d.text == "0 of 12 rows differ from ours" for d in report.defects)


def test_derived_labels_that_disagree_are_listed_by_row_and_ours_are_stored(own_tree, tmp_path):
    write_derived(own_tree, read_annotations(own_tree))
    for name, row in (
        ("labels", 3),
        ("mil_labels", 4),
        ("labels_closs", 5),
        ("right_labels", 6),
        ("prob_label", 7),
    ):
        with h5py.File(own_tree / f"{name}.h5", "r+") as h5:
            h5["avadataset"][row] = (
                h5["avadataset"][row][..., ::-1] if name != "labels_closs" else np.nan
            )
    report = bring_in(own_tree, tmp_path / "store")
    listed = {(d.file, d.line) for d in report.defects if d.kind == derived.DISAGREES}
    assert listed == {("labels.h5", 3), ("mil_labels.h5", 4), ("labels_closs.h5", 5)}
    notes = {d.file: d.text for d in report.defects if d.kind == derived.NOTE}
    assert notes == {
        name: f"1 of 12 rows differ from ours: {row}"
        for name, row in (("right_labels.h5", 6), ("prob_label.h5", 7))
    }
    assert (
        open_data(tmp_path / "store", task="avel").split("train").labels("video").tolist()
        == [0] * 4 + [2] * 4
    )


def test_label_files_that_cannot_be_compared_are_listed(own_tree, tmp_path):
    write_h5(own_tree / "labels.h5", np.zeros((12, 10, 28)))
    (own_tree / "mil_labels.h5").write_bytes(b"no h5")
    report = bring_in(own_tree, tmp_path / "store")
    assert {d.file for d in report.defects if d.kind == derived.UNREADABLE} == {
        "labels.h5",
        "mil_labels.h5",
    } and report.written


def test_repeated_ids_and_clips_in_no_split_stand_in_the_card(own_tree, tmp_path):
    lines = [*AVE_LINES[:11], "Bark&video_00000&good&3&3"]
    orders = {"train": [4, 1, 0, 3, 8, 5, 7], "val": [2], "test": [10, 11, 9]}
    write_ave(own_tree, ["Category&VideoID&Quality&StartTime&EndTime", *lines], orders)
    report = bring_in(own_tree, tmp_path / "store", card=render_dataset_card)
    found = {d.kind: (d.line, d.text) for d in report.defects}
    assert found == {
        "event of no length": (13, lines[11]),
        "video id of several clips": (2, "video_00000 (2)"),
        "clip in no split": (8, "video_00006"),
        "video id in several splits": (2, "video_00000 (train, test)"),
    }
    card = (tmp_path / "store" / "README.md").read_text()
    assert (
        "video id in several splits, Annotations.txt: 1 case: video_00000 (train, test) (line 2)"
        in card
    )
    assert (
        json.loads((tmp_path / "store" / "import_report.json").read_text())["defects"][0]["kind"]
        == "event of no length"
    )


def test_simulated_official_files_come_in_as_the_simulated_store(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    write_ave(source, AVE_LINES, AVE_ORDERS)
    write_h5(source / "labels_noisy.h5", np.eye(29, dtype=np.float32)[[28, 28]])
    simulate("avel", source, tmp_path / "official", layout="official")
    simulate("avel", source, tmp_path / "drawn")
    report = bring_in(tmp_path / "official", tmp_path / "store")
    assert report.defects == []
    drawn, store = (open_data(tmp_path / name, task="avel") for name in ("drawn", "store"))
    assert store.synthetic and store.name == "ave-synthetic" and store.splits == drawn.splits
    for split in store.splits:
        a, b = drawn.split(split), store.split(split)
        assert a.clip_ids == b.clip_ids and a.rows.tolist() == b.rows.tolist()
        one, two = a.batch(range(len(a))), b.batch(range(len(b)))
        torch.testing.assert_close(one.visual, two.visual, rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(one.audio, two.audio, rtol=2e-3, atol=2e-3)
        assert all(np.array_equal(a.labels(name), b.labels(name)) for name in ("segment", "video"))


def test_simulated_official_files_keep_the_rows_of_clips_in_no_split(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    write_ave(source, AVE_LINES, {"train": [4, 1, 0], "val": [2], "test": [6]})
    write_h5(source / "labels_noisy.h5", np.eye(29, dtype=np.float32)[[28, 28]])
    simulate("avel", source, tmp_path / "official", layout="official")
    report = bring_in(tmp_path / "official", tmp_path / "store")
    assert (
        report.stored == {"train": 3, "validation": 1, "test": 1, "background": 2}
        and not report.bad
    )
    assert report.in_no_split == len(AVE_LINES) - 5


def test_an_import_that_failed_goes_on_and_ends_in_the_same_bytes(tree, tmp_path, monkeypatch):
    from avplatform.data.adapters.ave.importing import AVEPlan

    monkeypatch.setattr("avplatform.data.adapters.ave.importing.BLOCK", 1)
    bring_in(tree, tmp_path / "whole", rows_per_shard=2)
    plain, calls = AVEPlan.read, []

    def read(self, *args):
        calls.append(args)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return plain(self, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(AVEPlan, "read", read)
        bring_in(tree, tmp_path / "store", rows_per_shard=2, workers=1)
    notes = []
    bring_in(tree, tmp_path / "store", rows_per_shard=2, note=notes.append)
    assert notes == ["going on after 4 clips that an earlier attempt wrote"]
    assert files(tmp_path / "store") == files(tmp_path / "whole")


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("avplatform.data.adapters.ave.importing.BLOCK", 2)
    count = 96
    lines = [f"Bark&video_{i:05d}&good&0&10" for i in range(count)]
    write_ave(
        tmp_path, lines, {"train": list(range(count - 2)), "val": [count - 2], "test": [count - 1]}
    )
    for name, shape in (("audio", (10, 128)), ("visual", (10, 7, 7, 512))):
        with h5py.File(
            tmp_path / f"{name}_feature.h5", "w"
        ) as h5:  # never written, so it takes no disk: zeros
            h5.create_dataset("avadataset", (count, *shape), dtype="f8", chunks=(1, *shape))
    tracemalloc.start()
    try:
        bring_in(tmp_path, tmp_path / "store", workers=2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < count * 10 * 7 * 7 * 512 * 8 / 6, peak


def test_whole_numbers_are_taken_as_they_stand_and_noted_once(own_tree, tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (12, 10, 128), dtype=np.uint8)
    write_h5(own_tree / "audio_feature.h5", values)
    report = bring_in(own_tree, tmp_path / "store")
    found = [(d.kind, d.file, d.text) for d in report.defects if d.kind.startswith("features")]
    text = "uint8, stored as the numbers that stand there, not scaled back"
    assert (
        found == [("features are whole numbers", "audio_feature.h5", text)] and not report.left_out
    )
    audio = open_data(tmp_path / "store", task="avel").split("test").batch([0]).audio
    np.testing.assert_array_equal(audio[0].numpy(), values[10])


def test_clips_that_no_order_names_are_listed_as_left_out_and_are_no_failure(
    own_tree, tmp_path, capsys
):
    write_ave(own_tree, AVE_LINES, {**AVE_ORDERS, "train": [4, 1, 0, 3, 8, 5]})
    flags = ["data", "import", "ave", str(own_tree), "--strict", "--out"]
    assert main([*flags, str(tmp_path / "store")]) == 0
    assert "2 clips stand in no split and are left out" in " ".join(capsys.readouterr().out.split())
    report = json.loads((tmp_path / "store" / "import_report.json").read_text())
    file = str(own_tree / "Annotations.txt")
    assert report["in_no_split"] == 2 and report["left_out"] == [
        {"clip_id": f"video_{row:05d}", "file": file, "reason": f"line {row + 1}: stands in {why}"}
        for row, why in (
            (7, "no order file, so it belongs to no split"),
            (11, "no order file, so it belongs to no split"),
        )
    ]
    assert "Clips left out" not in (tmp_path / "store" / "README.md").read_text()
    assert main(["data", "verify", str(tmp_path / "store")]) == 0
    with h5py.File(own_tree / "audio_feature.h5", "r+") as h5:
        for row in (3, 11):  # row 11 is never read
            h5["avadataset"][row] = np.nan
    assert main(["data", "import", "ave", str(own_tree), "--out", str(tmp_path / "two")]) == 1
    report = json.loads((tmp_path / "two" / "import_report.json").read_text())
    assert [item["clip_id"] for item in report["left_out"]] == [
        "video_00003",
        "video_00007",
        "video_00011",
    ]
    assert "**1 of the clips" in (tmp_path / "two" / "README.md").read_text()


def test_one_worker_has_one_block_in_memory(tree, tmp_path, monkeypatch):
    from avplatform.data.adapters.ave.importing import AVEPlan

    monkeypatch.setattr("avplatform.data.adapters.ave.importing.BLOCK", 1)
    plain, parts, others = AVEPlan.read, [], []

    def read(self, *args):
        others.append(sum(part() is not None for part in parts))
        part = plain(self, *args)
        parts.append(weakref.ref(part))
        return part

    monkeypatch.setattr(AVEPlan, "read", read)
    bring_in(tree, tmp_path / "store", workers=1)
    assert others == [0] * 14


@real
def test_the_real_label_files_agree_with_the_labels_that_are_built():
    data = read_annotations(os.environ["AVP_AVE_DIR"])
    kinds = count_kinds(data.defects)
    assert kinds == {
        "event of no length": 1,
        "video id of several clips": 45,
        "video id in several splits": 18,
    }
    assert (
        sum(d.text.endswith("(3)") for d in data.defects if d.kind == "video id of several clips")
        == 1
    )
