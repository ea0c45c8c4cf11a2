"""Clips of one store whose videos stand in another: in the command, and in the real files."""

import os
from collections import Counter

import pytest

from avplatform.cli import main
from avplatform.data.adapters.ave.annotations import read_annotations as read_ave
from avplatform.data.adapters.llp.annotations import read_annotations as read_llp
from avplatform.data.adapters.ovave.annotations import read_annotations as read_ovave
from avplatform.data.adapters.registry import DATASETS
from avplatform.data.verify import verify_data
from avplatform.data.verify.against import shared_clips
from tests.data.official import bring_in
from tests.data.test_import_ovave import CLIPS, with_vectors, write_ovave

LLP, OVAVE = DATASETS["llp"], DATASETS["ovave"]


def test_a_video_is_found_by_its_id_and_the_seconds_are_told():
    ids = {"train": ["aaaaaaaaaaa_10_20", "bbbbbbbbbbb_0_10"], "test": ["ccccccccccc_0_10"]}
    other = {"test": ["aaaaaaaaaaa_15.5_25.5", "ccccccccccc_30_40"], "train": ["ddddddddddd_0_10"]}
    one, two = shared_clips(ids, other, LLP, LLP)
    assert (one.split, one.other_split, one.leaks) == ("train", "test", True)
    assert one.text == (
        "aaaaaaaaaaa_15.5_25.5 there: seconds in common, 10 to 20 s here and 15.5 to 25.5 s there"
    )
    assert not two.leaks and "other seconds of the video, 0 to 10 s here and 30" in two.text
    (unknown,) = shared_clips({"test": ["ccccccccccc"]}, {"train": ids["test"]}, OVAVE, LLP)
    assert unknown.leaks
    assert unknown.text == (
        "ccccccccccc_0_10 there (0 to 10 s there); whether the seconds are the same is not known"
    )


def test_the_command_names_the_clips_of_another_store(tmp_path, capsys):
    bring_in("ovave", with_vectors(write_ovave(tmp_path / "a")), tmp_path / "one")
    moved = [("test" if s == "train" else "train", c, i, b) for s, c, i, b in CLIPS[:3]]
    moved += [("train", "airplane flyby", "zzzzzzzzzzz", "1111111111"), CLIPS[3]]
    folder = write_ovave(tmp_path / "b", moved)
    with_vectors(folder)
    for name in ("audio", "visual"):
        source = folder / name / "aaaaaaaaaa0.npy"
        (folder / name / "zzzzzzzzzzz.npy").write_bytes(source.read_bytes())
    bring_in("ovave", folder, tmp_path / "two", name="other")
    flags = ["data", "verify", str(tmp_path / "one"), "--against", str(tmp_path / "two")]
    assert main(flags) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "leak: train here, test in other (3)" in shown and "clip aaaaaaaaaa0" in shown
    assert "validation here, validation in other" in shown
    assert "4 of 7 clips are of videos that stand there too: 3 in train here and test" in shown
    alone = verify_data(tmp_path / "one")
    assert not any("against" in name for name in alone.counts)


def test_a_store_that_cannot_be_compared_loses_no_other_finding(tmp_path):
    bring_in("ovave", with_vectors(write_ovave(tmp_path / "a")), tmp_path / "one")
    found = verify_data(tmp_path / "one", against=str(tmp_path / "none"))
    (error,) = found.errors
    assert error.kind == "not compared with the other store" and "no data folder" in error.text
    next((tmp_path / "one").glob("test-*.parquet")).write_bytes(b"not parquet")
    kinds = {e.kind for e in verify_data(tmp_path / "one", against=str(tmp_path / "one")).errors}
    assert "not compared with the other store" in kinds and len(kinds) > 1


needed = {"llp": "AVP_LLP_DIR", "ave": "AVP_AVE_DIR", "ovave": "AVP_OVAVE_DIR"}
real = pytest.mark.skipif(
    any(name not in os.environ for name in needed.values()),
    reason="not all three folders of real annotations are here",
)


def by_split(ids, splits):
    return {name: [ids[row] for row in rows] for name, rows in splits.items()}


def clips_by_splits(found):
    clips = {(shared.clip_id, shared.split, shared.other_split) for shared in found}
    return Counter((split, other) for _, split, other in clips)


@real
def test_the_leaks_between_the_three_real_datasets_are_all_found():
    ovave = read_ovave(os.environ[needed["ovave"]])
    ave, llp = read_ave(os.environ[needed["ave"]]), read_llp(os.environ[needed["llp"]])
    own = by_split(ovave.clip_ids, ovave.splits)
    found = list(shared_clips(own, by_split(ave.clip_ids, ave.splits), OVAVE, DATASETS["ave"]))
    assert len({shared.clip_id for shared in found}) == 226
    pairs = clips_by_splits(found)  # AVE has some video ids several times
    assert pairs["test", "train"] == 58 and pairs["train", "test"] == 8
    found = list(shared_clips(own, by_split(llp.filenames, llp.splits), OVAVE, LLP))
    assert len({shared.clip_id for shared in found}) == 323
    pairs = clips_by_splits(found)
    assert pairs["test", "train"] == 105 and pairs["train", "test"] == 7
    assert all(shared.other_seconds is not None for shared in found)
