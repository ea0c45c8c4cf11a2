"""LLP's annotation files: rasterising for any rows, and the real files beyond their cell counts."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avplatform.data.adapters.llp.annotations import read_annotations
from avplatform.data.adapters.llp.classes import (
    CLASSES,
    LABEL_TEXTS,
    OFFICIAL_LABEL_TEXTS,
)
from avplatform.models.errors import DataError

real = pytest.mark.skipif(
    "AVP_LLP_DIR" not in os.environ,
    reason="AVP_LLP_DIR is not set: the real annotations are not here",
)
CLIP = "b_b-bbbbbbb_30_40"
events = st.lists(
    st.tuples(st.integers(0, 10), st.integers(0, 10), st.sampled_from(CLASSES)),
    min_size=1,
    max_size=12,
)


def write_llp(folder, audio, *, inside=""):
    place = folder / inside
    place.mkdir(exist_ok=True)
    weak = "filename\tevent_labels\n"
    (place / "AVVP_train.csv").write_text(f"{weak}-aaaaaaaaaa_0_10\tDog\n")
    (place / "AVVP_val_pd.csv").write_text(f"{weak}{CLIP}\tSpeech,Dog\n")
    (place / "AVVP_test_pd.csv").write_text(f"{weak}ccccccccccc_0_10\tClapping\n")
    rows = "".join(f"{CLIP}\t{begin}\t{end}\t{label}\n" for begin, end, label in audio)
    (place / "AVVP_eval_audio.csv").write_text(f"filename\tonset\toffset\tevent_labels\n{rows}")
    (place / "AVVP_eval_visual.csv").write_text(
        f"filename\tonset\toffset\tevent_labels\n{CLIP}\t0\t1\tDog\n"
    )
    return folder


@settings(max_examples=40, deadline=None)
@given(events)
def test_a_segment_is_on_where_any_row_covers_it(tmp_path_factory, rows):
    data = read_annotations(write_llp(tmp_path_factory.mktemp("llp"), rows))
    expected = np.zeros((10, 25), dtype=np.uint8)
    for begin, end, label in rows:
        for segment in range(begin, end):
            expected[segment, CLASSES.index(label)] = 1
    np.testing.assert_array_equal(data.dense_audio[1], expected)
    assert data.dense_audio[[0, 2]].sum() == 0
    assert sum(d.kind in ("event of no length", "reversed event") for d in data.defects) == sum(
        e <= b for b, e, _ in rows
    )
    assert sum(d.kind == "row given twice" for d in data.defects) == len(rows) - len(set(rows))


def test_files_in_a_data_folder_are_found_and_ids_may_begin_with_a_dash(tmp_path):
    data = read_annotations(write_llp(tmp_path, [(0, 1, "Dog")], inside="data"))
    assert data.video_ids[0] == "-aaaaaaaaaa" and data.seconds[0].tolist() == [0, 10]


def test_a_wrong_header_names_the_right_columns(tmp_path):
    write_llp(tmp_path, [(0, 1, "Dog")])
    (tmp_path / "AVVP_eval_audio.csv").write_text("filename,onset,offset,event_labels\n")
    with pytest.raises(
        DataError,
        match="AVVP_eval_audio.csv: the first line must be the columns filename, onset, offset",
    ):
        read_annotations(tmp_path)


def edited(folder, change):
    """Pass every line of the annotation files, split at tabs, through a program that edits them."""
    for file in folder.glob("*.csv"):
        lines = [
            change(n, line.split("\t")) for n, line in enumerate(file.read_text().splitlines())
        ]
        file.write_text("".join(line + "\n" for line in lines))
    return folder


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            lambda n, cells: "\t".join(f"{c}.0" if c.isdigit() else c for c in cells), id="floats"
        ),
        pytest.param(
            lambda n, cells: "\t".join(f'"{c}"' if "," in c else c for c in cells), id="quoted"
        ),
        pytest.param(lambda n, cells: "\t".join(f'"{c}"' for c in cells), id="all quoted"),
        pytest.param(lambda n, cells: "\n" * (n > 0) + "\t".join(cells), id="blank lines"),
        pytest.param(lambda n, cells: "\t".join(cells).replace(",", ", "), id="spaces"),
        pytest.param(lambda n, cells: "\t".join([str(n - 1) if n else "", *cells]), id="index"),
        pytest.param(lambda n, cells: "\t".join(cells) + "\r", id="Windows"),
    ],
)
def test_what_pandas_and_spreadsheets_write_back_reads_the_same(tmp_path, change):
    (tmp_path / "a").mkdir()
    plain = read_annotations(write_llp(tmp_path / "a", [(1, 4, "Dog"), (0, 10, "Speech")]))
    data = read_annotations(edited(tmp_path / "a", change))
    assert data.filenames == plain.filenames and not data.defects
    for name in ("weak", "dense_audio", "dense_visual", "seconds"):
        np.testing.assert_array_equal(getattr(data, name), getattr(plain, name))


def test_an_event_beyond_the_clip_counts_inside_it_and_is_listed(tmp_path):
    data = read_annotations(write_llp(tmp_path, [(5, 11, "Dog"), (11, 12, "Speech")]))
    assert data.dense_audio.sum() == 5 and data.dense_audio[1, 5:, CLASSES.index("Dog")].all()
    assert [(d.kind, d.line) for d in data.defects] == [
        ("event beyond the clip", 2), ("event beyond the clip", 3)
    ]  # fmt: skip


def test_label_texts_differ_from_the_official_ones_in_two_classes():
    differ = {name: official for name, plain, official
              in zip(CLASSES, LABEL_TEXTS, OFFICIAL_LABEL_TEXTS, strict=True)
              if plain != official}  # fmt: skip
    assert differ == {"Frying_(food)": "fry food", "Baby_cry_infant_cry": "baby cry infancy cry"}


def runs(maps):
    maps = maps.astype(int)
    return int(maps[:, 0].sum() + (np.diff(maps, axis=1) == 1).sum())


@real
@pytest.mark.parametrize(
    ("split", "counts", "empty"),
    [("validation", (1440, 856, 872), (4, 70, 93)), ("test", (2638, 1625, 1617), (6, 121, 174))],
)
def test_events_and_empty_clips_of_the_real_annotations(split, counts, empty):
    data = read_annotations(os.environ["AVP_LLP_DIR"])
    a, v = (maps[data.splits[split]].astype(bool) for maps in (data.dense_audio, data.dense_visual))
    assert tuple(runs(m) for m in (a, v, a & v)) == counts
    assert tuple(int((~m.any(axis=(1, 2))).sum()) for m in (a, v, a & v)) == empty


@real
def test_fractional_starts_and_duplicate_rows_of_the_real_annotations():
    data = read_annotations(os.environ["AVP_LLP_DIR"])
    np.testing.assert_allclose(np.diff(data.seconds, axis=1), 10)
    fractional = np.flatnonzero((data.seconds % 1 != 0).any(axis=1))
    assert len(fractional) == 5 and set(fractional) <= set(data.splits["train"])
    assert (
        sum(d.kind == "row given twice" and d.file == "AVVP_eval_audio.csv" for d in data.defects)
        == 8
    )
    assert sum(d.kind == "class named twice" for d in data.defects) == 1
    assert sum(name.startswith("-") for name in data.filenames) == 151
