"""Importing LLP's official files with faults in them.

Every fault is named, and either the rest is stored or nothing is.
"""

import json
import os
import pickle

import numpy as np
import pytest

from avplatform.cli import main
from avplatform.data import importing, open_data
from avplatform.data.store.card import render_dataset_card
from avplatform.models.errors import DataError, UsageError
from tests.data.official import LLP_CLIPS, cut, llp_arrays, llp_tree, save
from tests.data.official import bring_in_llp as bring_in
from tests.tasks.test_avvp import write_llp


class Evil:
    def __reduce__(self):
        return (os.system, ('touch "$UNPICKLED"',))


def _resave(change):
    return lambda file: np.save(file, change(np.load(file)))


def _nan(values):
    values[3, 5] = np.nan
    return values


FAULTS = {
    "truncated": ("res152", cut, "is truncated: 655260 of 655360 bytes"),
    "corrupt": ("vggish", lambda f: f.write_bytes(b"\x00" * 900), "is not a .npy file"),
    "cut in the header": ("vggish", lambda f: f.write_bytes(f.read_bytes()[:30]),
                          "is not a .npy file"),
    "empty": ("vggish", lambda f: f.write_bytes(b""), "is empty"),
    "object array": ("vggish", lambda f: np.save(f, np.array([Evil()], dtype=object)),
                     "pickled Python objects"),
    "plain pickle": ("vggish", lambda f: f.write_bytes(pickle.dumps(Evil())), "is not a .npy file"),
    "82 frames": ("res152", _resave(lambda a: np.concatenate([a, a[:2]])),
                  r"has shape (82, 2048) instead of (80, 2048)"),
    "wrong width": ("r2plus1d_18", _resave(lambda a: a[:, :500]),
                    r"has shape (10, 500) instead of (10, 512)"),
    "NaN": ("r2plus1d_18", _resave(_nan), "NaN or infinite"),
    "infinite": ("res152", _resave(lambda a: a / np.float32(0)), "NaN or infinite"),
    "too large": ("vggish", _resave(lambda a: a * 1e6),
                  "too large for float16; use --dtype float32"),
    "whole numbers too large": ("vggish", _resave(lambda a: (a * 1e6).astype(np.int32)),
                                "too large for float16"),
    "texts": ("vggish", _resave(lambda a: a.astype(str)), "not numbers"),
    "missing": ("vggish", lambda f: f.unlink(), "is missing"),
    "a folder": ("vggish", lambda f: (f.unlink(), f.mkdir()), "cannot be read"),
    "label 2": ("../CLIP/segment_pseudo_labels", _resave(lambda a: a * 2),
                "labels other than 0 and 1"),
    "labels of another shape": ("../CLAP/segment_pseudo_labels", _resave(lambda a: a.T),
                                "instead of (10, 25)"),
    "labels that are fractions": ("../CLAP/segment_pseudo_labels", _resave(lambda a: a * 0.5),
                                  "labels other than 0 and 1"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_every_bad_file_is_named_and_the_rest_is_stored(tmp_path, monkeypatch):
    monkeypatch.setenv("UNPICKLED", str(tmp_path / "unpickled"))
    source, expected = llp_tree(tmp_path / "llp"), {}
    clips = [f"fault-{i:05d}_0_10" for i in range(len(FAULTS))]
    write_llp(source, train="\n".join(f"{clip}\tDog" for clip in [*LLP_CLIPS["train"], *clips]))
    labels = np.zeros((10, 25), dtype=np.int64)
    labels[:, 3] = 1
    for clip, (place, damage, reason) in zip(clips, FAULTS.values(), strict=True):
        for name, values in llp_arrays(clip).items():
            save(source / "feats" / name, clip, values)
        for model in ("CLIP", "CLAP"):
            save(source / model / "segment_pseudo_labels", clip, labels)
        file = source / "feats" / place / f"{clip[:11]}.npy"
        damage(file)
        expected[clip] = (file.resolve(), reason)
    assert main(["data", "import", "llp", str(source), "--out", str(tmp_path / "store")]) == 1
    report = json.loads((tmp_path / "store" / "import_report.json").read_text())
    assert [item["clip_id"] for item in report["left_out"]] == clips
    for item in report["left_out"]:
        file, reason = expected[item["clip_id"]]
        assert os.path.realpath(item["file"]) == str(file) and reason in item["reason"], item
    train = open_data(tmp_path / "store", task="avvp").split("train")
    assert train.clip_ids == LLP_CLIPS["train"] and train.rows.tolist() == list(range(6))
    assert not (tmp_path / "unpickled").exists()
    assert "**18 of the clips" in (tmp_path / "store" / "README.md").read_text()


def test_two_bad_files_of_one_clip_are_both_named(own_tree, tmp_path):
    for place in ("vggish", "res152"):
        (own_tree / "feats" / place / "train-00001.npy").unlink()
    report = bring_in(own_tree, tmp_path / "store")
    assert report.clips_left_out == 1 and len(report.left_out) == 2


def test_strict_writes_nothing_and_still_names_every_bad_file(own_tree, tmp_path, capsys):
    for clip in ("train-00001", "train-00004"):
        cut(own_tree / "feats" / "vggish" / f"{clip}.npy")
    before = sorted(tmp_path.rglob("*"))
    assert (
        main(["data", "import", "llp", str(own_tree), "--out", str(tmp_path / "store"), "--strict"])
        == 1
    )
    shown = capsys.readouterr().out
    assert (
        "train-00001_1_11" in shown
        and "train-00004_4_14" in shown
        and "nothing was written" in shown
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_strict_stores_a_tree_without_fault(tree, tmp_path):
    assert bring_in(tree, tmp_path / "store", strict=True).written


def test_odd_things_are_defects_and_stand_in_the_card(own_tree, tmp_path):
    clip = "b_b-bbbbbbb_30_40"
    rows = [
        f"{clip}\t3\t3\tDog",
        f"{clip}\t9\t0\tDog",
        f"{clip}\t1\t2\tDog",
        f"{clip}\t1\t2\tDog",
        "Speech\t0\t4\tSpeech",
    ]
    write_llp(
        own_tree,
        train="\n".join(f"{c}\tDog" for c in [*LLP_CLIPS["train"], "train-00000_50_60"]),
        audio=rows,
    )
    (own_tree / "AVVP_dataset_full.csv").write_text(
        "filename\tevent_labels\ntrain-00000_0_10\tCat\nzzzzzzzzzzz_0_10\tDog\n"
    )
    save(own_tree / "feats" / "vggish", "stranger000", np.zeros((10, 128), np.float32))
    labels = np.zeros((10, 25), dtype=np.int64)
    labels[0, 7] = 1
    save(own_tree / "CLIP" / "segment_pseudo_labels", "train-00005", labels)
    report = bring_in(own_tree, tmp_path / "store", card=render_dataset_card)
    kinds = importing.report.count_kinds(report.defects)
    assert kinds == {
        "class named twice": 1, "event of no length": 1, "reversed event": 1, "row given twice": 1,
        "clip outside all splits": 1, "labels differ from the split file's": 1,
        "clip in no split": 1,
        "clip missing from the file of all clips": 8, "feature file of several clips": 1,
        "feature file of no clip": 1, "dense audio annotations of another version": 1,
        "pseudo-label outside the weak label": 1,
    }  # fmt: skip
    assert [(item.clip_id, item.reason) for item in report.left_out] == [
        ("zzzzzzzzzzz_0_10", "line 3: stands in no split file, so it belongs to no split")
    ]
    card = (tmp_path / "store" / "README.md").read_text()
    assert (
        "mm_pyramid variant" in card
        and "reversed event, AVVP_eval_audio.csv: 1 case: b_b-bbbbbbb_30_40 9 0 Dog (line 3)"
        in card
    )
    assert "and 5 more in import_report.json" in card and "the terms of" in card
    assert report.stored["train"] == 7


def _empty(place):
    return lambda tree: [f.unlink() for f in (tree / place).iterdir()]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda t: write_llp(t, train="train-00000_0_10\tDog\ntrain-00000_0_10\tDog"),
            "AVVP_train.csv, line 3: the clip train-00000_0_10 is listed twice, "
            "first in .*AVVP_train.csv, line 2;",
        ),
        (
            lambda t: write_llp(t, train="b_b-bbbbbbb_30_40\tDog"),
            "AVVP_val_pd.csv, line 2: the clip b_b-bbbbbbb_30_40 is listed twice, "
            "first in .*AVVP_train.csv, line 2;",
        ),
        (lambda t: write_llp(t, train="train-00000_0_10\tDgo"), "did you mean 'Dog'"),
        (lambda t: write_llp(t, train="train-00000_0_10"), "1 column instead of 2"),
        (
            lambda t: (t / "AVVP_train.csv").write_bytes(b"\xff\xfe\x00"),
            "cannot read .*AVVP_train.csv",
        ),
        (lambda t: (t / "AVVP_eval_visual.csv").unlink(), "AVVP_eval_visual.csv"),
        (
            _empty("feats/res152"),
            "res152 holds no .npy file; give --res152 the folder that holds one per video$",
        ),
        (
            _empty("feats/r2plus1d_18"),
            "holds no .npy file; give --r2plus1d the .* per video, "
            "or --r2plus1d none to leave it out",
        ),
        (
            lambda t: [f.write_bytes(b"x") for f in (t / "feats" / "res152").iterdir()],
            "no clip of .* has all its features",
        ),
    ],
)
def test_what_makes_the_whole_impossible_is_one_error_and_leaves_nothing(
    own_tree, tmp_path, damage, message
):
    damage(own_tree)
    with pytest.raises(DataError, match=message):
        bring_in(own_tree, tmp_path / "store")
    assert [p.name for p in tmp_path.iterdir()] == ["llp"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"visual_file": "x"}, "--visual-file does nothing for llp"),
        ({"frames": 80, "visual": "clip"}, "--frames 80 does not go"),
        ({"clap_features": "x"}, "--clap-features does nothing with --audio vggish"),
        ({"res152": "x", "visual": "clip"}, "--res152 does nothing with --visual clip"),
        ({"workers": 0}, "--workers is 0"),
    ],
)
def test_options_that_contradict_each_other_are_refused(tree, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        bring_in(tree, tmp_path / "store", **options)


def test_a_missing_source_is_named(tmp_path, capsys):
    assert (
        main(["data", "import", "llp", str(tmp_path / "no"), "--out", str(tmp_path / "store")]) == 1
    )
    assert "no folder" in capsys.readouterr().err
