"""The real annotations of LLP have the counts that are published about them, table by table."""

import os
from pathlib import Path

import numpy as np
import pytest

from avplatform.data.adapters.llp.annotations import (
    DENSE_FILES,
    DENSE_HEADER,
    read_annotations,
    read_rows,
)
from avplatform.data.adapters.llp.checks import CORRUPTED, UNCORRUPTED, audio_variant, check_files
from avplatform.tasks.avvp.metrics import overlap_subsets

pytestmark = pytest.mark.skipif(
    "AVP_LLP_DIR" not in os.environ,
    reason="AVP_LLP_DIR is not set: the real annotations are not here",
)

# Clips of the training list with a class, and test clips with it in their audio and visual map.
FREQUENCIES = {
    "weak": [4988, 624, 528, 761, 192, 343, 455, 218, 299, 602, 186, 1172, 437, 1457, 495, 146, 445,
             224, 411, 587, 503, 99, 430, 291, 164],
    "audio": [620, 70, 85, 95, 28, 45, 36, 24, 27, 85, 31, 183, 62, 153, 57, 20, 51, 28, 54, 68, 93,
              11, 42, 34, 81],
    "visual": [142, 93, 36, 99, 41, 43, 44, 19, 26, 76, 25, 125, 59, 133, 54, 16, 37, 28, 59, 63,
               98, 6, 35, 34, 53],
}  # fmt: skip


@pytest.fixture(scope="module")
def data():
    return read_annotations(os.environ["AVP_LLP_DIR"])


def maps_of(data, split):
    rows = data.splits[split]
    audio, visual = data.dense_audio[rows].astype(bool), data.dense_visual[rows].astype(bool)
    return audio, visual, audio & visual


def percent(condition):
    return round(100 * float(np.mean(condition)), 2)


def test_class_frequencies(data):
    audio, visual, _ = maps_of(data, "test")
    assert data.weak[data.splits["train"]].sum(axis=0).tolist() == FREQUENCIES["weak"]
    assert audio.any(axis=1).sum(axis=0).tolist() == FREQUENCIES["audio"]
    assert visual.any(axis=1).sum(axis=0).tolist() == FREQUENCIES["visual"]


def test_weak_classes_per_clip(data):
    assert data.weak[data.splits["train"]].sum(axis=1).mean() == pytest.approx(1.606, abs=5e-4)


@pytest.mark.parametrize(
    ("split", "expected"), [("validation", [1.75, 1.16, 1.09]), ("test", [1.74, 1.20, 1.11])]
)
def test_distinct_classes_per_clip(data, split, expected):
    assert [round(m.any(axis=1).sum(axis=1).mean(), 2) for m in maps_of(data, split)] == expected


@pytest.mark.parametrize(
    ("split", "several", "none"),
    [("validation", [30.4, 12.7], [9.4, 20.4, 4.1]), ("test", [28.0, 14.6], [10.7, 19.2, 4.3])],
)
def test_segments_with_several_events_and_with_none(data, split, several, none):
    audio, visual, _ = maps_of(data, split)
    assert [percent(m.sum(axis=2) >= 2) for m in (audio, visual)] == pytest.approx(
        several, abs=0.051
    )
    assert [percent(~m.any(axis=2)) for m in (audio, visual, audio | visual)] == pytest.approx(
        none, abs=0.051
    )


@pytest.mark.parametrize(
    ("split", "clips", "pairs", "segments"),
    [("validation", 57.2, (430, 46, 708, 271), 48.2), ("test", 55.3, (747, 108, 1336, 538), 46.1)],
)
def test_what_is_heard_and_what_is_seen_differ(data, split, clips, pairs, segments):
    audio, visual, _ = maps_of(data, split)
    heard, seen = audio.any(axis=1), visual.any(axis=1)  # (N, C)
    both, differs = heard & seen, (audio != visual).any(axis=1)
    assert percent((heard != seen).any(axis=1)) == pytest.approx(clips, abs=0.051)
    assert (
        (heard & ~seen).sum(),
        (seen & ~heard).sum(),
        both.sum(),
        (both & differs).sum(),
    ) == pairs
    assert percent((audio != visual).any(axis=2)) == pytest.approx(segments, abs=0.051)


@pytest.mark.parametrize(
    ("split", "expected"), [("validation", [424, 385, 363, 133]), ("test", [764, 665, 626, 267])]
)
def test_overlapping_subsets_of_all_readings(data, split, expected):
    rows = data.splits[split]
    found = overlap_subsets(data.dense_audio[rows], data.dense_visual[rows])
    assert [
        int(found[name].sum()) for name in ("union", "either_modality", "audio", "visual")
    ] == expected


@pytest.mark.parametrize(("split", "equal"), [("validation", 618), ("test", 1147)])
def test_weak_labels_are_not_always_the_union_of_the_dense_ones(data, split, equal):
    audio, visual, _ = maps_of(data, split)
    union = (audio | visual).any(axis=1)
    assert int((union == data.weak[data.splits[split]].astype(bool)).all(axis=1).sum()) == equal


def test_rows_and_defects_of_the_dense_files(data):
    folder = data_folder()
    rows = {stream: read_rows(folder / name, DENSE_HEADER) for stream, name in DENSE_FILES.items()}
    assert {stream: len(found) for stream, found in rows.items()} == {"audio": 4131, "visual": 2495}
    kinds = [(d.kind, d.file) for d in data.defects]
    assert kinds.count(("event of no length", "AVVP_eval_audio.csv")) == 5
    assert kinds.count(("reversed event", "AVVP_eval_audio.csv")) == 1
    assert kinds.count(("row given twice", "AVVP_eval_visual.csv")) == 0
    orphans = {file: {d.text.split("\t")[0] for d in data.defects
                      if d.kind == "clip outside all splits" and d.file == file}
               for file in DENSE_FILES.values()}  # fmt: skip
    assert {file: len(names) for file, names in orphans.items()} == {
        "AVVP_eval_audio.csv": 8,
        "AVVP_eval_visual.csv": 7,
    }


def test_the_file_of_all_clips_agrees_and_no_video_occurs_twice(data):
    assert (data_folder() / "AVVP_dataset_full.csv").is_file() and check_files(
        data_folder(), data
    ) == []


def test_test_clips_without_rows_of_a_modality(data):
    rows = {
        stream: {row[0] for _, row in read_rows(data_folder() / name, DENSE_HEADER)}
        for stream, name in DENSE_FILES.items()
    }
    names = [data.filenames[i] for i in data.splits["test"]]
    lacking = [sum(name not in rows[stream] for name in names) for stream in ("audio", "visual")]
    assert lacking == [5, 121] and all(name in rows["audio"] | rows["visual"] for name in names)


def test_the_variant_with_three_lost_rows_is_told_apart():
    folder = data_folder()
    assert audio_variant(folder / "AVVP_eval_audio.csv") == UNCORRUPTED
    variant = folder / "AVVP_eval_audio.mm_pyramid_variant.csv"
    assert audio_variant(variant) == CORRUPTED
    other = read_annotations(folder, audio_file=variant)
    plain = read_annotations(folder)
    changed = np.flatnonzero((other.dense_audio != plain.dense_audio).any(axis=(1, 2)))
    assert [plain.filenames[row] for row in changed] == ["JfZEqeLZqWk_30_40", "KvIjsmANkxI_10_20"]
    assert len([d for d in other.defects if d.kind == "clip outside all splits"]) == 25 + 3


def data_folder():
    return Path(os.environ["AVP_LLP_DIR"])
