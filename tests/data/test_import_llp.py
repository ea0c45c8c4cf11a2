"""Importing LLP's official files: what comes in, what is left out, and what is found odd."""

import errno
import json
import multiprocessing
import os
import signal
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from avplatform.cli import main
from avplatform.data import importing, open_data
from avplatform.data.simulate import simulate
from avplatform.data.store.card import render_dataset_card
from avplatform.data.store.checksum import content_checksum
from avplatform.data.store.schema import Manifest
from avplatform.models.errors import DataError
from avplatform.models.stem import pool_clap
from tests.data.official import LLP_CLIPS, cut, files, llp_arrays, llp_tree, real, save
from tests.data.official import bring_in_llp as bring_in
from tests.posix import needs_posix
from tests.tasks.test_avvp import write_llp


def test_a_tree_comes_in_averaged_with_its_labels(tree, tmp_path):
    report = bring_in(tree, tmp_path / "store", dtype="float32", card=render_dataset_card)
    assert (
        report.written
        and report.left_out == []
        and report.stored == {"train": 6, "validation": 1, "test": 1}
    )
    data = open_data(tmp_path / "store", task="avvp")
    train = data.split("train")
    assert train.clip_ids == LLP_CLIPS["train"] and not data.synthetic and data.name == "llp"
    batch, given = train.batch([2]), llp_arrays(LLP_CLIPS["train"][2])
    np.testing.assert_array_equal(batch.audio[0].numpy(), given["vggish"])
    np.testing.assert_array_equal(batch.motion[0].numpy(), given["r2plus1d_18"])
    by_hand = np.stack(
        [given["res152"][8 * t : 8 * t + 8].astype(np.float64).mean(axis=0) for t in range(10)]
    )
    np.testing.assert_allclose(batch.visual[0].numpy(), by_hand, rtol=1e-6)
    assert train.labels("pseudo_audio")[2, :, 3].tolist() == [0, 0, 1, 1, 1, 1, 0, 0, 0, 0]
    validation = data.split("validation")
    assert validation.labels("dense_audio")[0, :, 3].tolist() == [0, 0, 1, 1, 1, 0, 0, 0, 0, 0]
    assert data.spec.label_splits == {
        "dense_audio": ["validation", "test"],
        "dense_visual": ["validation", "test"],
    }
    assert content_checksum(tmp_path / "store", data.manifest) == data.checksum


def test_files_in_a_data_folder_are_found_and_single_parts_may_lie_elsewhere(tree, tmp_path):
    source = llp_tree(tmp_path / "llp", inside="data")
    bring_in(source, tmp_path / "one")
    (source / "data" / "feats" / "vggish").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="no feats/vggish in .*; give its folder with --vggish"):
        bring_in(source, tmp_path / "two")
    bring_in(source, tmp_path / "two", vggish=str(tmp_path / "elsewhere"))
    bring_in(tree, tmp_path / "three")
    sums = {Manifest.read(tmp_path / name).checksum for name in ("one", "two", "three")}
    assert len(sums) == 1


def test_eighty_frames_are_kept_where_asked_for(tree, tmp_path):
    bring_in(tree, tmp_path / "store", frames=80, dtype="float32")
    data = open_data(tmp_path / "store", task="avvp")
    assert data.spec.frames_per_segment == 8
    batch = data.split("test").batch([0])
    np.testing.assert_array_equal(
        batch.visual[0].numpy(), llp_arrays(LLP_CLIPS["test"][0])["res152"]
    )


def test_clip_and_clap_features_take_the_place_of_the_others(own_tree, tmp_path):
    given = {}
    for clip in sum(LLP_CLIPS.values(), []):
        rng = np.random.default_rng(list(clip.encode()))
        given[clip] = rng.standard_normal((64, 768)).astype(np.float32)
        save(
            own_tree / "CLIP" / "features", clip, rng.standard_normal((10, 768)).astype(np.float32)
        )
        save(tmp_path / "clap", clip, given[clip])
    bring_in(
        own_tree,
        tmp_path / "store",
        visual="clip",
        audio="clap",
        clap_features=str(tmp_path / "clap"),
        dtype="float32",
    )
    data = open_data(tmp_path / "store", task="avvp")
    assert (data.spec.features.audio_dim, data.spec.features.visual_dim) == (768, 768)
    batch = data.split("train").batch([4])
    expected = pool_clap(torch.from_numpy(given[batch.clip_id[0]])[None])
    torch.testing.assert_close(batch.audio, expected)


def test_what_a_user_can_do_without_may_be_absent(own_tree, tmp_path):
    for place in ("CLIP", "CLAP", "feats/r2plus1d_18"):
        (own_tree / place).rename(tmp_path / place.replace("/", "_"))
    report = bring_in(own_tree, tmp_path / "store")
    spec = Manifest.read(tmp_path / "store").spec
    assert spec.features.motion_dim is None and set(spec.labels) == {
        "weak",
        "dense_audio",
        "dense_visual",
    }
    assert [r.split(":")[0] for r in report.remarks] == [
        "no feats/r2plus1d_18", "no CLAP/segment_pseudo_labels", "no CLIP/segment_pseudo_labels",
    ]  # fmt: skip


def test_pseudo_labels_are_needed_in_training_only(own_tree, tmp_path):
    (own_tree / "CLAP" / "segment_pseudo_labels" / "ccccccccccc.npy").unlink()
    (own_tree / "CLAP" / "segment_pseudo_labels" / "train-00003.npy").unlink()
    report = bring_in(own_tree, tmp_path / "store", pseudo_visual="none")
    assert [item.clip_id for item in report.left_out] == [
        "train-00003_3_13"
    ] and "is missing" in report.left_out[0].reason
    spec = Manifest.read(tmp_path / "store").spec
    assert (
        spec.label_splits["pseudo_audio"] == ["train", "validation"]
        and "pseudo_visual" not in spec.labels
    )


@pytest.mark.parametrize("kind", ["float32", "bool", "uint8"])
def test_pseudo_labels_of_another_type_are_the_same_labels(own_tree, tree, tmp_path, kind):
    for model in ("CLIP", "CLAP"):
        for file in (own_tree / model / "segment_pseudo_labels").iterdir():
            np.save(file, np.load(file).astype(kind))
    bring_in(own_tree, tmp_path / "own")
    bring_in(tree, tmp_path / "given")
    assert Manifest.read(tmp_path / "own").checksum == Manifest.read(tmp_path / "given").checksum


def test_a_damaged_pseudo_label_outside_training_costs_no_clip(own_tree, tmp_path):
    cut(own_tree / "CLAP" / "segment_pseudo_labels" / "ccccccccccc.npy")
    save(own_tree / "CLIP" / "segment_pseudo_labels", "ccccccccccc", np.full((10, 25), 3))
    assert main(["data", "import", "llp", str(own_tree), "--out", str(tmp_path / "store")]) == 0
    report = json.loads((tmp_path / "store" / "import_report.json").read_text())
    assert report["stored"] == {"train": 6, "validation": 1, "test": 1} and report["left_out"] == []
    found = {
        d["file"]: d["text"] for d in report["defects"] if d["kind"] == "damaged pseudo-label file"
    }
    assert found == {
        "CLAP/segment_pseudo_labels/ccccccccccc.npy": (
            "ccccccccccc_101.8_111.8: is truncated: 1900 of 2000 bytes"
        ),
        "CLIP/segment_pseudo_labels/ccccccccccc.npy": (
            "ccccccccccc_101.8_111.8: holds labels other than 0 and 1"
        ),
    }
    spec = Manifest.read(tmp_path / "store").spec
    assert (
        spec.label_splits["pseudo_audio"]
        == spec.label_splits["pseudo_visual"]
        == ["train", "validation"]
    )
    assert (
        not open_data(tmp_path / "store", task="avvp")
        .split("train")
        .labels("pseudo_audio")[:, :2]
        .any()
    )
    assert main(["data", "verify", str(tmp_path / "store")]) == 0
    cut(own_tree / "CLAP" / "segment_pseudo_labels" / "train-00002.npy")
    assert [item.clip_id for item in bring_in(own_tree, tmp_path / "two").left_out] == [
        "train-00002_2_12"
    ]


@pytest.mark.parametrize("workers", [1, 4])
def test_whole_numbers_are_taken_as_they_stand_and_noted_once(
    own_tree, tmp_path, monkeypatch, workers
):
    monkeypatch.setattr("avplatform.data.adapters.llp.importing.LLPPlan.block", 2)
    given = {}
    for clip in sum(LLP_CLIPS.values(), []):
        given[clip] = np.random.default_rng(list(clip.encode())).integers(
            0, 256, (10, 128), dtype=np.uint8
        )
        save(own_tree / "feats" / "vggish", clip, given[clip])
    frames = np.arange(80 * 2048).reshape(80, 2048)
    save(own_tree / "feats" / "res152", LLP_CLIPS["test"][0], (frames % 251).astype(np.int16))
    report = bring_in(own_tree, tmp_path / "store", workers=workers)
    why = "stored as the numbers that stand there, not scaled back; first in"
    assert [(d.file, d.text) for d in report.defects if d.kind == "features are whole numbers"] == [
        ("feats/vggish/train-00000.npy", f"uint8, {why} {LLP_CLIPS['train'][0]}"),
        ("feats/res152/ccccccccccc.npy", f"int16, {why} {LLP_CLIPS['test'][0]}"),
    ]
    assert not report.left_out
    data = open_data(tmp_path / "store", task="avvp")
    for split, clips in LLP_CLIPS.items():
        np.testing.assert_array_equal(
            data.split(split).batch([0]).audio[0].numpy(), given[clips[0]]
        )
    mean = (frames % 251).reshape(10, 8, 2048).mean(axis=1)
    np.testing.assert_allclose(data.split("test").batch([0]).visual[0].numpy(), mean, rtol=1e-3)


def _slow_import(source, out, stop_at):
    """Import with shards of two clips; after `stop_at` blocks say so, and wait to be killed."""
    from avplatform.data.adapters.llp.importing import LLPPlan

    LLPPlan.block, plain, calls = 1, LLPPlan.read, []

    def read(self, split, positions, dtype):
        calls.append(positions)
        if len(calls) > stop_at:
            (out.parent / "ready").touch()
            time.sleep(60)
        return plain(self, split, positions, dtype)

    LLPPlan.read = read
    bring_in(source, out, rows_per_shard=2, workers=1)


def killed_import(source, out, stop_at=5):
    process = multiprocessing.get_context("spawn").Process(
        target=_slow_import, args=(source, out, stop_at)
    )
    process.start()
    deadline = time.monotonic() + 120
    while not (out.parent / "ready").exists():
        assert time.monotonic() < deadline and process.is_alive()
        time.sleep(0.05)
    return process


@needs_posix
def test_a_killed_import_goes_on_and_another_process_is_refused_meanwhile(own_tree, tmp_path):
    cut(own_tree / "feats" / "vggish" / "train-00001.npy")
    bring_in(own_tree, tmp_path / "whole", rows_per_shard=2)
    process = killed_import(own_tree, tmp_path / "store")
    with pytest.raises(DataError, match="another process .* is writing"):
        bring_in(own_tree, tmp_path / "store", rows_per_shard=2)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (tmp_path / "store").exists() and (tmp_path / ".store.partial").is_dir()
    notes = []
    report = bring_in(own_tree, tmp_path / "store", rows_per_shard=2, note=notes.append)
    # The clip whose reading had just ended may or may not have been written before the kill.
    assert notes in [[f"going on after {n} clips that an earlier attempt wrote"] for n in (2, 4)]
    assert report.clips_left_out == 1
    assert (
        files(tmp_path / "store") == files(tmp_path / "whole")
        and not (tmp_path / ".store.partial").exists()
    )


def _fill_disk(monkeypatch, after):
    plain, calls = pq.ParquetWriter.write_table, []

    def write_table(self, *args, **options):
        calls.append(1)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(self, *args, **options)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", write_table)


def test_a_full_disk_is_named_and_the_import_goes_on_later(tree, tmp_path, monkeypatch):
    bring_in(tree, tmp_path / "whole", rows_per_shard=2)
    with (
        monkeypatch.context() as patch,
        pytest.raises(DataError, match="is full.*the same command continues"),
    ):
        _fill_disk(patch, 2)
        bring_in(tree, tmp_path / "store", rows_per_shard=2)
    notes = []
    bring_in(tree, tmp_path / "store", rows_per_shard=2, note=notes.append)
    assert "going on after 4 clips" in notes[0] and files(tmp_path / "store") == files(
        tmp_path / "whole"
    )


@pytest.mark.parametrize("change", ["options", "sources"])
def test_a_changed_import_starts_anew(own_tree, tmp_path, monkeypatch, change):
    with monkeypatch.context() as patch, pytest.raises(DataError):
        _fill_disk(patch, 2)
        bring_in(own_tree, tmp_path / "store", rows_per_shard=2)
    if change == "sources":
        save(own_tree / "feats" / "vggish", "train-00000", np.ones((10, 128), np.float32))
    notes = []
    dtype = "float32" if change == "options" else "float16"
    bring_in(own_tree, tmp_path / "store", rows_per_shard=2, note=notes.append, dtype=dtype)
    assert len(notes) == 1 and "starting again" in notes[0]
    first = open_data(tmp_path / "store", task="avvp").split("train").batch([0]).audio
    assert bool((first == 1).all()) == (change == "sources")


def test_the_number_of_workers_changes_nothing(tree, tmp_path, monkeypatch):
    monkeypatch.setattr("avplatform.data.adapters.llp.importing.LLPPlan.block", 1)
    for workers in (1, 3):
        bring_in(tree, tmp_path / str(workers), workers=workers)
    assert files(tmp_path / "1") == files(tmp_path / "3")


def test_simulated_official_files_come_in_as_the_simulated_store(tmp_path):
    (tmp_path / "csv").mkdir()
    write_llp(tmp_path / "csv")
    simulate("avvp", tmp_path / "csv", tmp_path / "official", layout="official")
    simulate("avvp", tmp_path / "csv", tmp_path / "drawn")
    bring_in(tmp_path / "official", tmp_path / "store")
    drawn, store = (open_data(tmp_path / name, task="avvp") for name in ("drawn", "store"))
    assert store.synthetic and store.name == "llp-synthetic" and store.splits == drawn.splits
    for split in store.splits:
        a, b = drawn.split(split), store.split(split)
        assert a.clip_ids == b.clip_ids and a.rows.tolist() == b.rows.tolist()
        one, two = a.batch(range(len(a))), b.batch(range(len(b)))
        for name in ("audio", "visual", "motion"):
            torch.testing.assert_close(getattr(one, name), getattr(two, name), rtol=2e-3, atol=2e-3)
        for name in ("weak", "pseudo_audio", "pseudo_visual") + (
            () if split == "train" else ("dense_audio", "dense_visual")
        ):
            np.testing.assert_array_equal(a.labels(name), b.labels(name))


def test_features_given_apart_from_a_simulated_tree_are_still_synthetic(own_tree, tmp_path):
    (own_tree / "SYNTHETIC.txt").write_text("drawn")
    source = llp_tree(tmp_path / "other")
    report = bring_in(source, tmp_path / "store", vggish=str(own_tree / "feats" / "vggish"))
    assert report.written and Manifest.read(tmp_path / "store").spec.synthetic


def test_storage_is_a_twelfth_of_the_official_features(tmp_path):
    source = tmp_path / "llp"
    llp_tree(source)
    clips = [f"more-{i:06d}_0_10" for i in range(60)]
    write_llp(source, train="\n".join(f"{clip}\tDog" for clip in clips))
    for clip in clips:
        for name, values in llp_arrays(clip).items():
            save(source / "feats" / name, clip, values)
        for model in ("CLIP", "CLAP"):
            save(source / model / "segment_pseudo_labels", clip, np.zeros((10, 25), np.int64))
    for dtype, least in (("float16", 12), ("float32", 6)):
        report = bring_in(source, tmp_path / dtype, dtype=dtype)
        kept = [f for f in (source / "feats").rglob("*.npy") if not f.name.startswith("train-")]
        assert report.bytes_read == sum(f.stat().st_size for f in kept)
        assert report.bytes_written == sum(
            f.stat().st_size for f in (tmp_path / dtype).glob("*.parquet")
        )
        assert report.bytes_read / report.bytes_written >= least


@real
def test_forty_clips_of_the_real_lists_come_in_and_all_others_are_listed(tmp_path):
    from avplatform.data.adapters.llp.annotations import read_annotations

    names = read_annotations(os.environ["AVP_LLP_DIR"]).filenames
    chosen = [*names[:20], *names[10000:10010], *names[-10:]]
    for clip in chosen:
        for name, values in llp_arrays(clip).items():
            save(tmp_path / "feats" / name, clip, values)
    report = bring_in(tmp_path, tmp_path / "store", annotations=os.environ["AVP_LLP_DIR"])
    assert (
        report.stored == {"train": 20, "validation": 10, "test": 10}
        and report.clips_left_out == 11809
    )
    assert {item.clip_id for item in report.left_out} == set(names) - set(chosen)
    kinds = importing.report.count_kinds(report.defects)
    assert kinds == {
        "class named twice": 1, "event of no length": 5, "reversed event": 1, "row given twice": 8,
        "clip outside all splits": 25,
    }  # fmt: skip
    assert report.sources["dense_audio_annotations"] == "uncorrupted"
