"""OV-AVEBench: annotation files and their faults, import, simulation, and the real files."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from avplatform.cli import main
from avplatform.data import open_data
from avplatform.data.adapters.official_files import NO_SPLIT
from avplatform.data.adapters.ovave.annotations import (
    CLASS_FILES,
    COUNTS,
    LABEL_FILE,
    META_FILE,
    ratio_file,
    read_annotations,
)
from avplatform.data.adapters.ovave.classes import BACKGROUND, CLASSES, EVENTS, OTHER, TEXTS, UNSEEN
from avplatform.data.adapters.ovave.simulation import PRESETS, OVAVESimulator
from avplatform.data.adapters.registry import DATASETS
from avplatform.data.simulate import simulate
from avplatform.data.store.schema import LABEL_FILE as VECTORS
from avplatform.data.verify import verify_data
from avplatform.models.errors import DataError, UsageError
from avplatform.models.texts.files import read_label_file
from avplatform.tasks.ovavel.labels import odd_labels
from tests.data.official import bring_in
from tests.faults.stores import edit_manifest, rewrite, set_cell

real = pytest.mark.skipif(
    "AVP_OVAVE_DIR" not in os.environ,
    reason="AVP_OVAVE_DIR is not set: the real annotations are not here",
)
CLIPS = [
    ("train", "airplane flyby", "aaaaaaaaaa0", "1111111111"),
    ("train", "airplane flyby", "aaaaaaaaaa1", "0000000000"),
    ("train", "people booing", "aaaaaaaaaa2", "0011100110"),
    ("val", "people booing", "bbbbbbbbbb0", "1000000000"),
    ("val", "helicopter", "bbbbbbbbbb1", "0000000000"),
    ("test", "dog barking", "cccccccccc0", "0000011111"),
    ("test", "airplane flyby", "cccccccccc1", "0111111110"),
]


def write_ovave(folder, clips=CLIPS):
    """Write annotation files with CRLF in the lists of classes and no newline at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {name: "open" if name in UNSEEN else "close" for name in EVENTS}
    lines = ["split,cls_name,cls_type,vid_name"]
    lines += [f"{s},{c},{kinds[c]},{i}" for s, c, i, _ in clips]
    (folder / META_FILE).write_text("\n".join(lines))
    quarter = [line for line in lines if "aaaaaaaaaa1" not in line]
    (folder / ratio_file("0.25")).write_text("\n".join(quarter))
    labels = {
        i: {"category": c, "label": json.dumps([int(x) for x in bits])} for _, c, i, bits in clips
    }
    (folder / LABEL_FILE).write_text(json.dumps(labels, indent=4))
    for name, classes in CLASS_FILES.items():
        (folder / name).write_bytes("\r\n".join([*classes, OTHER]).encode())
    return folder


def with_vectors(folder, dims=(6, 8)):
    for name, dim in zip(("audio", "visual"), dims, strict=True):
        (folder / name).mkdir(exist_ok=True)
        for n, (*_, clip, _) in enumerate(CLIPS):
            rng = np.random.default_rng([n, dim])
            np.save(folder / name / f"{clip}.npy", rng.random((10, dim)).astype(np.float32))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_ovave(tmp_path / "ovave")


def test_labels_are_the_class_where_its_event_is_and_background_elsewhere(folder):
    data = read_annotations(folder)
    booing = EVENTS.index("people booing")
    assert data.segment[2].tolist() == [67, 67, *[booing] * 3, 67, 67, booing, booing, 67]
    assert data.video.tolist()[:3] == [0, BACKGROUND, booing]
    assert data.category.tolist()[:2] == [0, 0] and not data.defects
    assert {n: v.tolist() for n, v in data.splits.items()} == {
        "train": [0, 1, 2], "validation": [3, 4], "test": [5, 6]
    }  # fmt: skip


def test_a_ratio_keeps_some_training_clips_and_the_rows_of_the_whole_list(folder):
    data = read_annotations(folder, ratio="0.25")
    assert data.splits["train"].tolist() == [0, 2] and data.splits["test"].tolist() == [5, 6]


def spoil(folder, name, old, new):
    file = folder / name
    text = file.read_bytes().decode()
    assert old in text
    file.write_bytes(text.replace(old, new, 1).encode())


FAULTS = [
    (META_FILE, "split,cls_name", "cls_name,split", r"line 1: 'cls_name,split.*must"),
    (META_FILE, "train,airplane", "trian,airplane", r"line 2: the split is 'trian'; it must be"),
    (META_FILE, "airplane flyby", "airplane flybi", r"line 2: 'airplane flybi' is not a class.*"),
    (META_FILE, "airplane flyby", "other", r"line 2: 'other' is the text of background"),
    (META_FILE, "helicopter,open", "helicopter,close", r"line 6: cls_type.*must be 'open'"),
    (META_FILE, "val,helicopter", "train,helicopter", r"line 6: 'helicopter' is one of the 21"),
    (META_FILE, "close,aaaaaaaaaa1", "close,aaaaaaaaaa0", r"line 3: clip aaaaaaaaaa0 stands in"),
    (META_FILE, "close,aaaaaaaaaa1", "close", r"line 3: 3 columns instead of"),
    (META_FILE, "close,aaaaaaaaaa1", "close,", r"line 3: vid_name is empty"),
    (META_FILE, "aaaaaaaaaa1", "zzzzzzzzzzz", r"line 3: clip zzzzzzzzzzz has no label"),
    (LABEL_FILE, "airplane flyby", "people booing", r"clip aaaaaaaaaa0 \(line 2.*both must be"),
    (LABEL_FILE, "[0, 0, 1,", "[0, 2, 1,", r"clip aaaaaaaaaa2 .*ten times 0 or 1"),
    (LABEL_FILE, "[0, 0, 1,", "[0, 1,", r"clip aaaaaaaaaa2 .*ten times 0 or 1"),
    (LABEL_FILE, '"category"', '"class"', r"must be an object of 'category' and 'label'"),
    (LABEL_FILE, '"aaaaaaaaaa1"', '"aaaaaaaaaa0"', r"'aaaaaaaaaa0' stands there twice"),
    (LABEL_FILE, "{", "[{", r"cannot read .*released"),
    (LABEL_FILE, '"label": "[0, 0, 1', f'"label": "[{5000 * "1"}', r"aaaaaaaaaa2 .*ten times 0 or"),
    (LABEL_FILE, '"label": ', f'"label": {5000 * "1"}, "more": ', r"cannot read .*released.*5000"),
    (META_FILE, "train,people booing", 'train,"people" booing', r"line 4: ',' expected after '\"'"),
    (META_FILE, "train,people booing", 'train,"people booing', r"line 4: unexpected end of data"),
    (META_FILE, "close,aaaaaaaaaa1", "close,aaaaaaaaaa1,1", r"line 3: 5 columns instead of"),
    (next(iter(CLASS_FILES)), "helicopter", "copter", r"line 28: 'copter' stands where"),
    (next(iter(CLASS_FILES)), f"\r\n{OTHER}", "", r"holds 67 lines instead of 68"),
]


@pytest.mark.parametrize(("name", "old", "new", "message"), FAULTS)
def test_every_planted_fault_is_named_with_its_place(folder, name, old, new, message):
    spoil(folder, name, old, new)
    with pytest.raises(DataError, match=message):
        read_annotations(folder)


def cut_off(file):
    file.write_text(file.read_text().partition("\n")[0])


def latin(file):
    file.write_bytes("chim\u00e8re".encode("latin-1") + file.read_bytes())


FILES = [
    (META_FILE, Path.unlink, r"no ovave_dataset_meta.csv in .*; give the folder of OV-AVEBench's"),
    (META_FILE, cut_off, r"ovave_dataset_meta.csv holds no clip"),
    (META_FILE, lambda file: file.write_text(""), r"line 1: '' stands where 'split,cls_name"),
    (META_FILE, latin, r"cannot read .*ovave_dataset_meta.csv: 'utf-8' codec"),
    (LABEL_FILE, Path.unlink, r"released_.* is missing; it holds the labels .* another version"),
    (LABEL_FILE, latin, r"cannot read .*released_ovavel_dataset_anno.json: 'utf-8' codec"),
    (LABEL_FILE, lambda file: file.write_text("[]"), r"holds a list, not an object of clips"),
    (LABEL_FILE, lambda file: file.write_text("null"), r"holds a NoneType, not an object of"),
    (LABEL_FILE, lambda file: file.write_text(9999 * "["), r"cannot read .*released_ovavel"),
]


@pytest.mark.parametrize(("name", "spoiled", "message"), FILES)
def test_a_file_that_is_missing_or_of_another_kind_is_named(folder, name, spoiled, message):
    spoiled(folder / name)
    with pytest.raises(DataError, match=message):
        read_annotations(folder)


def test_a_label_of_a_clip_that_no_list_has_is_told_and_left_out(folder, tmp_path):
    spoil(folder, META_FILE, "\ntrain,airplane flyby,close,aaaaaaaaaa1", "")
    (odd,) = read_annotations(folder).defects
    assert (odd.kind, odd.file, odd.line, odd.text) == (NO_SPLIT, LABEL_FILE, 2, "aaaaaaaaaa1")
    report = bring_in("ovave", with_vectors(folder), tmp_path / "store")
    (item,) = report.left_out
    assert item.clip_id == "aaaaaaaaaa1" and f"in {META_FILE}" in item.reason
    found = verify_data(tmp_path / "store", annotations=folder)
    assert not found.errors
    assert any("aaaaaaaaaa1" in warning.text for warning in found.warnings), found.lines()


def test_a_ratio_list_that_contradicts_the_whole_one_is_refused(folder):
    spoil(folder, ratio_file("0.25"), "train,people booing", "test,people booing")
    with pytest.raises(DataError, match=r"0.25_meta.csv, line 3: clip aaaaaaaaaa2 .*both must"):
        read_annotations(folder, ratio="0.25")
    spoil(folder, ratio_file("0.25"), "aaaaaaaaaa0", "zzzzzzzzzzz")
    with pytest.raises(
        DataError, match=r"line 2: clip zzzzzzzzzzz .* but is not there in ovave_da"
    ):
        read_annotations(folder, ratio="0.25")
    with pytest.raises(DataError, match=r"0.5_meta.csv is missing"):
        read_annotations(folder, ratio="0.5")


def test_an_import_is_clean_beside_its_annotations_and_lists_a_missing_file(folder, tmp_path):
    with_vectors(folder)
    (folder / "visual" / "cccccccccc1.npy").unlink()
    report = bring_in("ovave", folder, tmp_path / "store", dtype="float32")
    (missing,) = report.left_out
    assert missing.clip_id == "cccccccccc1"
    assert missing.reason.endswith("visual/cccccccccc1.npy is missing")
    data = open_data(tmp_path / "store", task="ovavel")
    assert data.spec.unseen == list(UNSEEN) and data.spec.features.visual_dim == 8
    batch = data.split("validation").batch([0, 1])
    assert batch.labels["category"].tolist() == [EVENTS.index("people booing"), 27]
    assert batch.labels["video"].tolist() == [EVENTS.index("people booing"), BACKGROUND]
    found = verify_data(tmp_path / "store", annotations=folder)
    assert not found.errors, found.lines()


VECTOR_FAULTS = [
    ("audio", r"no audio/ in .*; give the folder of vectors with --audio-vectors"),
    ("visual", r"no visual/ in .*; give the folder of vectors with --visual-vectors"),
]


@pytest.mark.parametrize(("stream", "message"), VECTOR_FAULTS)
def test_a_folder_of_vectors_that_is_missing_or_empty_is_named(folder, tmp_path, stream, message):
    with_vectors(folder)
    (folder / stream).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=message):
        bring_in("ovave", folder, tmp_path / "store")
    (folder / stream).mkdir()
    with pytest.raises(DataError, match=rf"{stream} holds no .npy file; .*\(--{stream}-vectors\)"):
        bring_in("ovave", folder, tmp_path / "store")
    given = {f"{stream}_vectors": str(tmp_path / "elsewhere")}
    assert not bring_in("ovave", folder, tmp_path / "store", **given).left_out


def test_vectors_that_fit_no_clip_are_refused_and_the_last_reason_is_told(folder, tmp_path):
    with_vectors(folder)
    for file in (folder / "audio").iterdir():
        np.save(file, np.zeros((9, 6), np.float32))
    with pytest.raises(DataError, match=r"no vectors \[10, D\]: cccccccccc1.npy has shape"):
        bring_in("ovave", folder, tmp_path / "store")
    for n, file in enumerate(sorted((folder / "audio").iterdir())):
        file.rename(file.with_name(f"{n}.npy"))
    with pytest.raises(
        DataError, match=r"it has no file of a clip of ovave_dataset_meta.csv; each"
    ):
        bring_in("ovave", folder, tmp_path / "store")


BAD = [
    (np.zeros((10, 7), np.float32), "ovave/audio/aaaaaaaaaa1.npy has shape (10, 7) instead of"),
    (np.zeros((9, 6), np.float32), "ovave/audio/aaaaaaaaaa1.npy has shape (9, 6) instead of"),
    (np.full((10, 6), np.nan, np.float32), "its audio holds NaN or infinite values"),
    (np.full((10, 6), 1e9, np.float32), "its audio holds values too large for float16; use"),
    (np.full((10, 6), "x"), "ovave/audio/aaaaaaaaaa1.npy holds <U1, not numbers"),
    (None, "ovave/audio/aaaaaaaaaa1.npy is not a .npy file"),
]


@pytest.mark.parametrize(("values", "reason"), BAD)
def test_a_clip_whose_vectors_cannot_be_used_is_left_out(folder, tmp_path, values, reason):
    file = with_vectors(folder) / "audio" / "aaaaaaaaaa1.npy"
    file.write_bytes(b"PK") if values is None else np.save(file, values)
    report = bring_in("ovave", folder, tmp_path / "store", dtype="float16")
    (item,) = report.left_out
    assert item.clip_id == "aaaaaaaaaa1" and item.reason.startswith(reason)
    assert report.bad and report.stored["train"] == 2


def test_there_is_no_file_of_sound_events_that_could_be_replaced(folder, tmp_path):
    with pytest.raises(UsageError, match=r"--audio-annotations replaces a file that OV-AVEBench"):
        DATASETS["ovave"].read(folder, audio_file="audio.csv")
    with pytest.raises(UsageError, match="--audio-annotations does nothing for ovave; leave it"):
        bring_in("ovave", folder, tmp_path / "store", audio_annotations="audio.csv")


def test_a_store_with_another_label_than_the_files_is_not_clean(folder, tmp_path):
    bring_in("ovave", with_vectors(folder), tmp_path / "store")
    spoil(folder, LABEL_FILE, "[0, 0, 1,", "[0, 1, 1,")
    errors = verify_data(tmp_path / "store", annotations=folder).errors
    assert [(e.kind, e.clip_id) for e in errors] == [
        ("label is not the official one", "aaaaaaaaaa2")
    ]
    edit_manifest(lambda m: m["spec"].update(unseen=["cat"]))(tmp_path / "store")
    broken = verify_data(tmp_path / "store").errors
    assert "DataSpec.unseen names 'cat'" in broken[0].text


CONTRADICTIONS = [
    ("category", BACKGROUND, "clip that was collected for background", "its category is no event"),
    (
        "category",
        1,
        "video label contradicts the category",
        "the video label is airplane flyby, but the clip was collected for ambulance siren",
    ),
]


@pytest.mark.parametrize(("label", "value", "kind", "text"), CONTRADICTIONS)
def test_a_clip_whose_labels_contradict_what_it_was_collected_for_is_named(
    folder, tmp_path, label, value, kind, text
):
    bring_in("ovave", with_vectors(folder), tmp_path / "store")
    rewrite("train-00000.parquet", set_cell(label, 0, value))(tmp_path / "store")
    found = {(e.kind, e.clip_id, e.text) for e in verify_data(tmp_path / "store").errors}
    assert (kind, "aaaaaaaaaa0", text) in found
    labels = {"video": np.array([0, 0]), "category": np.array([0, value])}
    (odd,) = [o for o in odd_labels(CLASSES, labels) if o[1] == kind]
    assert odd == ("error", kind, 1, text)
    assert not list(odd_labels(CLASSES, {"video": labels["video"]}))


def test_a_quarter_is_imported_and_the_rest_is_listed(folder, tmp_path):
    report = bring_in("ovave", with_vectors(folder), tmp_path / "store", ratio="0.25")
    assert report.stored["train"] == 2
    assert [item.clip_id for item in report.left_out] == ["aaaaaaaaaa1"] and not report.bad


@pytest.mark.parametrize("preset", [p.name for p in PRESETS])
def test_simulated_vectors_are_the_same_in_any_subset_and_in_the_layout_for_imports(
    folder, tmp_path, preset
):
    simulate("ovavel", folder, tmp_path / "whole", preset=preset, dtype="float32")
    simulate("ovavel", folder, tmp_path / "layout", preset=preset, layout="official", ratio="0.25")
    report = bring_in("ovave", tmp_path / "layout", tmp_path / "back", dtype="float32")
    assert report.stored == {"train": 2, "validation": 2, "test": 2}
    whole, back = (open_data(tmp_path / n, task="ovavel") for n in ("whole", "back"))
    assert back.synthetic and whole.spec.features == back.spec.features
    one, two = whole.split("train").batch([0, 2]), back.split("train").batch([0, 1])
    assert one.clip_id == two.clip_id
    np.testing.assert_array_equal(one.audio.numpy(), two.audio.numpy())
    np.testing.assert_array_equal(one.labels["segment"].numpy(), two.labels["segment"].numpy())
    joint = "joint" in preset
    assert (tmp_path / "whole" / VECTORS).exists() == joint
    assert VECTORS not in {warning.file for warning in verify_data(tmp_path / "whole").warnings}
    if joint:
        texts = read_label_file(tmp_path / "layout" / VECTORS)
        assert texts.texts == list(TEXTS["other"]) and texts.values.shape == (68, 1024)
        norms = one.audio.norm(dim=-1)
        assert np.allclose(norms, 1, atol=1e-4) and np.allclose(texts.values.norm(dim=1), 1)


def test_the_joint_space_tells_the_class_by_its_text():
    adapter = DATASETS["ovave"]
    clips = adapter.demo_clips({"test": 134})
    simulator = OVAVESimulator(PRESETS[1], clips)
    texts = simulator.label_vectors().values.numpy()
    columns = simulator.columns(clips, range(134))
    inside = columns["segment"] != BACKGROUND
    score = columns["audio"] @ texts[:-1].T + columns["visual"] @ texts[:-1].T
    right = score.argmax(axis=-1) == columns["category"][:, None]
    assert right[inside].mean() > 0.4  # of 67 classes, of which a third has no training clip


def test_other_datasets_have_one_simulation_and_no_parts(tmp_path):
    with pytest.raises(UsageError, match="no lists of parts"):
        simulate("avel", tmp_path, tmp_path / "out", ratio="0.25")
    with pytest.raises(UsageError, match="did you mean 'sim-ovavel-1-joint'"):
        simulate("ovavel", tmp_path, tmp_path / "out", preset="sim-ovavel-1-joynt")


@real
def test_all_real_rows_pass_and_have_the_counts_of_the_paper():
    data = read_annotations(os.environ["AVP_OVAVE_DIR"])
    assert {name: len(rows) for name, rows in data.splits.items()} == COUNTS
    assert len(set(data.clip_ids)) == 24800 and not data.defects
    trained = set(data.category[data.splits["train"]].tolist())
    assert trained == {n for n, name in enumerate(EVENTS) if name not in UNSEEN}
    empty = {n: int((data.video[r] == BACKGROUND).sum()) for n, r in data.splits.items()}
    assert empty == {"train": 3211, "validation": 1402, "test": 1406}
    runs = (np.diff(data.event, axis=1, prepend=0) == 1).sum()
    assert int(data.event.sum()) == 153403 and int(runs) == 22744
    for ratio, count in (("0.25", 3308), ("0.5", 6598), ("0.75", 9900)):
        part = read_annotations(os.environ["AVP_OVAVE_DIR"], ratio=ratio)
        assert len(part.splits["train"]) == count
        assert np.array_equal(part.splits["test"], data.splits["test"])


@real
def test_a_store_of_real_annotations_is_verified_by_the_command(tmp_path, capsys):
    out, annotations = str(tmp_path / "store"), os.environ["AVP_OVAVE_DIR"]
    flags = ["data", "simulate", "--task", "ovavel", "--annotations", annotations, "--out", out]
    assert main([*flags, "--limit", "92", "--ratio", "0.25"]) == 0
    assert main(["data", "verify", out, "--annotations", annotations]) == 0
    shown = capsys.readouterr().out
    assert "train 92 instead of 13182" in shown
    assert "not in validation" in shown and "people booing" in shown


def test_classes_and_texts_fit_each_other():
    assert len(CLASSES) == 68 and len(UNSEEN) == 21 and sorted(EVENTS) == list(EVENTS)
    assert all(len(texts) == 68 for texts in TEXTS.values()) and TEXTS["other"][-1] == OTHER
