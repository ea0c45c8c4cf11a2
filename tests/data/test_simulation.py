"""Synthetic data: the same for everybody, true to the labels, and called synthetic."""

import json
import os

import h5py
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from avplatform.cli import main
from avplatform.data import open_data
from avplatform.data.adapters.ave.annotations import read_annotations
from avplatform.data.adapters.ave.classes import BACKGROUND, EVENTS
from avplatform.data.adapters.ave.demo import demo_clips as avel_clips
from avplatform.data.adapters.ave.derived import event_mask, mil_labels
from avplatform.data.adapters.ave.simulation import AVESimulation, AVESimulator
from avplatform.data.adapters.llp import simulation as llp
from avplatform.data.adapters.llp.demo import demo_clips as avvp_clips
from avplatform.data.adapters.world import clip_generator, jitter, mask_out
from avplatform.data.simulate import draw, simulate
from avplatform.data.simulate.demo import demo_store
from avplatform.models.errors import DataError, UsageError
from tests.tasks.test_avel import write_ave
from tests.tasks.test_avvp import write_llp


@pytest.fixture(scope="module")
def llp_simulator():
    clips = avvp_clips({"train": 60, "validation": 5, "test": 5})
    return llp.LLPSimulator(llp.LLPSimulation(), clips), clips


def test_a_clip_does_not_change_with_its_block(llp_simulator):
    simulator, clips = llp_simulator
    block, alone = simulator.columns(clips, [3, 9, 40]), simulator.columns(clips, [9])
    for name in ("audio", "visual", "motion", "pseudo_audio", "pseudo_visual"):
        np.testing.assert_allclose(block[name][1], alone[name][0], rtol=1e-5, atol=1e-5)


def test_threads_that_draw_multiply_on_one_thread_each(llp_simulator):
    _, clips = llp_simulator
    seen = []

    class Simulator:
        def columns(self, clips, block):
            seen.append(blas_threads())
            return {}

    class Writer:
        def add(self, split, columns):
            pass

    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        if not before:
            pytest.skip("numpy's library for products does not tell its threads here")
        assert set(before) == {2}
        draw(Writer(), Simulator(), clips)
        assert blas_threads() == before
    assert seen and all(threads == [1] * len(before) for threads in seen)


def blas_threads():
    return [found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"]


def test_features_look_like_what_they_stand_for(llp_simulator):
    simulator, clips = llp_simulator
    columns = simulator.columns(clips, range(60))
    assert columns["audio"].min() == 0 and 0.55 < (columns["audio"] == 0).mean() < 0.75
    assert columns["visual"].min() >= 0 and 0.1 < columns["visual"].mean() < 0.6


def test_pseudo_labels_are_wrong_sometimes_and_never_outside_the_weak_label(llp_simulator):
    simulator, clips = llp_simulator
    columns = simulator.columns(clips, range(60))
    for modality in ("audio", "visual"):
        pseudo = columns[f"pseudo_{modality}"]
        assert not (pseudo & ~columns["weak"].astype(bool)[:, None, :]).any()
        agree = (pseudo == columns[f"dense_{modality}"])[
            np.broadcast_to(columns["weak"][:, None] > 0, pseudo.shape)
        ].mean()
        assert 0.6 < agree < 0.98


def test_events_can_be_heard_in_the_latent_stream():
    clips = avel_clips({"train": 56}, 2)
    simulator = AVESimulator(AVESimulation(), clips)
    gap = []
    for i in range(56):
        audio, _ = simulator._draw(clip_generator(1, clips.keys[i]), clips, i)
        inside = clips.segment[i] != BACKGROUND
        if inside.any() and not inside.all():
            p = simulator.world.prototypes["audio"][clips.video[i]].mean(axis=0)
            gap.append((audio[inside] @ p).mean() - (audio[~inside] @ p).mean())
    assert np.mean(gap) > 0.2


def test_jitter_moves_ends_by_one_segment_at_most():
    row = np.zeros((200, 10), dtype=bool)
    row[:, 3:7] = True
    moved = jitter(np.random.default_rng(0), row, 0.5)
    assert set(moved.sum(axis=1)) <= {2, 3, 4, 5, 6} and (moved != row).any()
    assert (jitter(np.random.default_rng(0), row, 0.0) == row).all()


def test_simultaneous_events_weaken_each_other():
    h = np.array([[1.0, 1.0], [0.0, 1.0]])
    np.testing.assert_allclose(mask_out(h), [[1.0, 2**-0.5], [0.0, 2**-0.5]])


def test_training_events_come_from_donors_only():
    donors = avvp_clips({"validation": 40, "test": 40})
    weak = donors.weak[40:]
    audio, visual = donors.audio.copy(), donors.visual.copy()
    audio[40:], visual[40:] = 0, 0
    maps = llp.hot_deck(
        weak, np.arange(40), audio, visual, donors.weak, keys=donors.keys[40:], seed=1
    )
    for n in range(40):
        assert not (maps[0][n].any(axis=0) & (weak[n] == 0)).any()
    with_other_test = audio.copy()
    with_other_test[40:] = 1
    again = llp.hot_deck(
        weak, np.arange(40), with_other_test, visual, donors.weak, keys=donors.keys[40:], seed=1
    )
    assert (again[0] == maps[0]).all()


def test_simulated_llp_keeps_real_labels_and_repeats(tmp_path):
    source = tmp_path / "llp"
    source.mkdir()
    write_llp(source)
    first = simulate("avvp", source, tmp_path / "one")
    second = simulate("avvp", source, tmp_path / "two")
    assert first.checksum == second.checksum and first.spec.synthetic
    validation = open_data(tmp_path / "one", task="avvp").split("validation")
    assert validation.labels("dense_audio")[0].sum() == 3 and validation.clip_ids == [
        "b_b-bbbbbbb_30_40"
    ]
    assert simulate("avvp", source, tmp_path / "three", seed=5).checksum != first.checksum


def test_simulated_ave_keeps_real_labels(tmp_path):
    source = tmp_path / "ave"
    source.mkdir()
    write_ave(source)
    manifest = simulate("avel", source, tmp_path / "out")
    data = open_data(tmp_path / "out", task="avel")
    assert data.split("validation").labels("segment")[0].tolist() == [
        28,
        28,
        2,
        2,
        2,
        28,
        28,
        28,
        28,
        28,
    ]
    assert data.split("test").labels("video").tolist() == [
        2
    ] and manifest.spec.features.map_size == (7, 7)


def test_the_official_layout_of_llp_averages_to_the_store(tmp_path):
    source = tmp_path / "llp"
    source.mkdir()
    write_llp(source)
    assert simulate("avvp", source, tmp_path / "out", layout="official") is None
    simulate("avvp", source, tmp_path / "store", dtype="float32")
    batch = open_data(tmp_path / "store", task="avvp").split("test").batch([0])
    folder = tmp_path / "out"
    frames = np.load(folder / "feats/res152/ccccccccccc.npy")
    assert frames.shape == (80, 2048) and frames.dtype == np.float32
    np.testing.assert_allclose(
        frames.reshape(10, 8, -1).mean(axis=1), batch.visual[0].numpy(), atol=1e-5
    )
    assert np.load(folder / "feats/vggish/ccccccccccc.npy").shape == (10, 128)
    assert np.load(folder / "feats/r2plus1d_18/ccccccccccc.npy").shape == (10, 512)
    pseudo = np.load(folder / "CLAP/segment_pseudo_labels/ccccccccccc.npy")
    assert pseudo.dtype == np.int64 and (pseudo == batch.labels["pseudo_audio"][0].numpy()).all()
    assert (folder / "AVVP_train.csv").read_text() == (source / "AVVP_train.csv").read_text()


def test_the_official_layout_of_ave_keeps_rows(tmp_path):
    source = tmp_path / "ave"
    source.mkdir()
    write_ave(source)
    with h5py.File(source / "labels_noisy.h5", "w") as file:
        file["avadataset"] = np.eye(29)[[28, 28]]
    simulate("avel", source, tmp_path / "out", layout="official")
    simulate("avel", source, tmp_path / "store", dtype="float32")
    batch = open_data(tmp_path / "store", task="avel").split("validation").batch([0])
    with h5py.File(tmp_path / "out" / "visual_feature.h5") as file:
        assert (
            file["avadataset"].shape == (3, 10, 7, 7, 512)
            and file["avadataset"].dtype == np.float64
        )
        np.testing.assert_allclose(file["avadataset"][1], batch.visual[0].numpy(), atol=2e-3)
    with h5py.File(tmp_path / "out" / "labels.h5") as file:
        assert file["avadataset"][1].argmax(axis=1).tolist() == [
            28,
            28,
            2,
            2,
            2,
            28,
            28,
            28,
            28,
            28,
        ]
    with h5py.File(tmp_path / "out" / "audio_feature_noisy.h5") as file:
        assert file["avadataset"].shape == (2, 10, 128)


def test_a_subset_of_ave_holds_every_class(tmp_path):
    source = tmp_path / "ave"
    source.mkdir()
    lines = [f"{name}&{i:03d}aaaaaaaa&good&0&10" for name in EVENTS for i in range(4)]
    write_ave(source, lines, {"train": list(range(110)), "val": [110], "test": [111]})
    simulate("avel", source, tmp_path / "out", subset={"train": 28})
    videos = open_data(tmp_path / "out", task="avel").split("train").labels("video")
    assert len(videos) == 28 and len(set(videos.tolist())) >= 26


def test_a_subset_of_llp_in_the_official_layout_comes_in_whole(tmp_path):
    source = tmp_path / "llp" / "data"
    source.mkdir(parents=True)
    write_llp(source, train="\n".join(f"train-{i:05d}_0_10\tDog" for i in range(5)))
    lines = [f"train-{i:05d}_0_10\tDog" for i in range(5)] + [
        "b_b-bbbbbbb_30_40\tDog",
        "ccccccccccc_101.8_111.8\tDog",
    ]
    (source / "AVVP_dataset_full.csv").write_text("\n".join(["filename\tevent_labels", *lines, ""]))
    out = tmp_path / "out"
    flags = [
        "data",
        "simulate",
        "--task",
        "avvp",
        "--annotations",
        str(source.parent),
        "--layout",
        "official",
        "--limit",
        "2",
    ]
    assert main([*flags, "--out", str(out)]) == 0
    assert main(["data", "import", "llp", str(out), "--out", str(tmp_path / "store")]) == 0
    report = json.loads((tmp_path / "store" / "import_report.json").read_text())
    assert (
        report["clips"] == report["stored"] == {"train": 2, "validation": 1, "test": 1}
        and report["left_out"] == []
    )
    assert main(["data", "verify", str(tmp_path / "store"), "--annotations", str(out)]) == 0
    for name in ("AVVP_eval_audio.csv", "AVVP_eval_visual.csv", "AVVP_val_pd.csv"):
        assert (out / name).read_bytes() == (source / name).read_bytes()
    assert len((out / "AVVP_dataset_full.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize("header", [[], ["Category&VideoID&Quality&StartTime&EndTime"]])
def test_a_subset_of_ave_in_the_official_layout_comes_in_whole_and_keeps_its_features(
    tmp_path, header
):
    source, out = tmp_path / "ave", tmp_path / "out"
    source.mkdir()
    lines = [f"{name}&{i:03d}aaaaaaaa&good&{i}&10" for name in EVENTS[:3] for i in range(4)]
    orders = {
        "train": [7, 0, 4, 3, 1, 9, 11],
        "val": [2, 10],
        "test": [8, 5],
    }  # row 6 stands in none
    write_ave(source, [*header, *lines], orders)
    write_label_files(source, read_annotations(source))
    simulate(
        "avel", source, tmp_path / "drawn", subset={"train": 3, "background": 2}, dtype="float32"
    )
    simulate("avel", source, out, layout="official", subset={"train": 3, "background": 2})
    assert (
        main(
            [
                "data",
                "import",
                "ave",
                str(out),
                "--out",
                str(tmp_path / "store"),
                "--dtype",
                "float32",
            ]
        )
        == 0
    )
    report = json.loads((tmp_path / "store" / "import_report.json").read_text())
    sizes = {"train": 3, "validation": 2, "test": 2, "background": 2}
    assert report["stored"] == sizes and report["left_out"] == [] and report["in_no_split"] == 0
    assert not [
        d for d in report["defects"] if "disagree" in d["kind"] or d["kind"] == "clip in no split"
    ]
    drawn, store = (open_data(tmp_path / name, task="avel") for name in ("drawn", "store"))
    for split in sizes:
        one, two = (data.split(split).batch(range(sizes[split])) for data in (drawn, store))
        np.testing.assert_allclose(one.visual.numpy(), two.visual.numpy(), atol=1e-6)
        assert (one.labels["segment"] == two.labels["segment"]).all()
    rows = {split: store.split(split).rows.tolist() for split in sizes}
    assert sorted(sum(rows.values(), [])) == list(range(9)) and rows["background"] == [7, 8]
    assert [i.split(":")[-1] for i in drawn.split("train").clip_ids] == store.split(
        "train"
    ).clip_ids


def write_label_files(folder, data):
    """Three background clips, and the label files that an import compares."""
    arrays = {"labels_noisy": np.eye(29)[[28] * 3], "mil_labels": mil_labels(data.class_index)}
    for name, values in {**arrays, "labels_closs": event_mask(data.segment)}.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["avadataset"] = values


def test_bad_sources_leave_nothing(tmp_path):
    with pytest.raises(DataError, match="no AVVP_train.csv"):
        simulate("avvp", tmp_path, tmp_path / "out")
    with pytest.raises(UsageError, match="unknown task"):
        simulate("avqa", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_demo_labels_keep_the_shares_of_ave():
    clips = avel_clips({"train": 800, "validation": 200, "test": 402}, 40)
    for split in ("train", "validation", "test"):
        segment, video = clips.segment[clips.splits[split]], clips.video[clips.splits[split]]
        assert (segment == BACKGROUND).mean() == pytest.approx(0.17, abs=0.02)
        assert (segment == video[:, None]).mean() == pytest.approx(0.82, abs=0.02)
        assert set(video) == set(range(28))


def test_demo_labels_keep_the_shares_of_llp():
    clips = avvp_clips({"train": 1500, "validation": 1, "test": 1})
    a, v = clips.audio[:1500].astype(bool), clips.visual[:1500].astype(bool)
    assert clips.weak[:1500].sum(axis=1).mean() == pytest.approx(1.7, abs=0.15)
    assert (a.sum(axis=2) >= 2).mean() == pytest.approx(0.28, abs=0.05)
    assert (v.sum(axis=2) >= 2).mean() == pytest.approx(0.14, abs=0.05)
    assert a.any(axis=1).sum(axis=1).mean() == pytest.approx(1.65, abs=0.15)


def test_the_demo_is_one_fixed_dataset_made_once(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "avplatform.data.adapters.llp.demo.SIZES", {"train": 20, "validation": 3, "test": 3}
    )
    notes = []
    first = demo_store("avvp", cache_dir=tmp_path / "a", progress=notes.append)
    again = demo_store("avvp", cache_dir=tmp_path / "a", progress=notes.append)
    monkeypatch.setattr("avplatform.data.simulate.MOST_THREADS", 1)
    other = demo_store("avvp", cache_dir=tmp_path / "b")
    assert first == again and len(notes) == 1 and "synthetic" in notes[0]
    assert open_data(first, task="avvp").checksum == open_data(other, task="avvp").checksum
    with pytest.raises(UsageError, match="unknown demo task"):
        demo_store("avqa", cache_dir=tmp_path)


@pytest.mark.skipif(
    "AVP_LLP_DIR" not in os.environ,
    reason="AVP_LLP_DIR is not set: the real annotations are not here",
)
def test_simulated_llp_of_the_real_annotations_keeps_test_labels(tmp_path):
    subset = {"train": 8, "validation": 4, "test": 4}
    manifest = simulate("avvp", os.environ["AVP_LLP_DIR"], tmp_path / "out", subset=subset)
    assert {k: v.rows for k, v in manifest.splits.items()} == subset
