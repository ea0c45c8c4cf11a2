"""Official files as editors, archives and disks leave them.

Byte order marks, blank lines, links, names, places.
"""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from avplatform.base.npy import BadFeature, read_input, read_npy
from avplatform.cli import main
from avplatform.data import open_data
from avplatform.data.adapters.ave.annotations import read_annotations as read_ave
from avplatform.data.adapters.ave.official_layout import copy_annotations
from avplatform.data.adapters.llp.annotations import read_annotations as read_llp
from avplatform.data.adapters.llp.checks import audio_variant
from avplatform.data.reading.hf_stream import stream_dataset
from avplatform.data.store.checksum import content_checksum
from avplatform.data.store.schema import Manifest
from avplatform.data.verify import verify_data
from avplatform.models.errors import DataError, UsageError
from avplatform.models.texts.files import read_label_file
from avplatform.models.texts.glove import read_glove
from tests.data.official import (
    AVE_LINES,
    AVE_ORDERS,
    LLP_CLIPS,
    ave_tree,
    bring_in,
    real,
    write_h5,
)
from tests.posix import needs_posix
from tests.tasks.test_avel import write_ave
from tests.tasks.test_avvp import write_llp

EDITED = {
    "byte order mark": lambda content: b"\xef\xbb\xbf" + content,
    "line ends of Windows": lambda content: content.replace(b"\n", b"\r\n"),
    "blank lines at the end": lambda content: content + b"\n \n\n",
    "no line end at the end": lambda content: content.rstrip(b"\n"),
}


@pytest.mark.parametrize("edit", EDITED.values(), ids=EDITED)
def test_texts_that_an_editor_saved_read_the_same(tmp_path, edit):
    for name in ("plain", "edited"):
        (tmp_path / name).mkdir()
        write_llp(
            tmp_path / name, audio=["b_b-bbbbbbb_30_40\t2\t5\tDog", "b_b-bbbbbbb_30_40\t2\t5\tDog"]
        )
        write_ave(tmp_path / name, AVE_LINES, AVE_ORDERS)
    for file in [*(tmp_path / "edited").glob("*.csv"), tmp_path / "edited" / "Annotations.txt"]:
        file.write_bytes(edit(file.read_bytes()))
    plain, edited = (read_llp(tmp_path / name) for name in ("plain", "edited"))
    assert edited.filenames == plain.filenames and edited.defects == plain.defects
    for name in ("weak", "dense_audio", "dense_visual"):
        np.testing.assert_array_equal(getattr(edited, name), getattr(plain, name))
    plain_ave, edited_ave = (read_ave(tmp_path / name) for name in ("plain", "edited"))
    assert edited_ave.clip_ids == plain_ave.clip_ids and edited_ave.defects == plain_ave.defects
    np.testing.assert_array_equal(edited_ave.segment, plain_ave.segment)


@real
@pytest.mark.parametrize("edit", EDITED.values(), ids=EDITED)
def test_a_version_of_the_annotations_is_known_however_an_editor_saved_it(tmp_path, edit):
    file = tmp_path / "saved.csv"
    file.write_bytes(edit((Path(os.environ["AVP_LLP_DIR"]) / "AVVP_eval_audio.csv").read_bytes()))
    assert audio_variant(file) == "uncorrupted"
    file.write_bytes(file.read_bytes().replace(b"Speech", b"Dog", 1))
    assert audio_variant(file) == "not a known one"


def test_a_blank_line_between_clips_is_passed_over(tmp_path):
    write_llp(tmp_path, train="train-00000_0_10\tDog\n\t\ntrain-00001_0_10\tDog\nx")
    with pytest.raises(DataError, match="AVVP_train.csv, line 5: 1 column instead of 2"):
        read_llp(tmp_path)
    write_llp(tmp_path, train="train-00000_0_10\tDog\n\n\ntrain-00001_0_10\tDog")
    assert len(read_llp(tmp_path).splits["train"]) == 2


def test_a_malformed_clip_name_is_named_with_its_line(tmp_path):
    write_llp(tmp_path, train="train-00000_0_10\tDog\nshort_0_10\tDog")
    with pytest.raises(
        DataError, match="AVVP_train.csv, line 3: 'short_0_10' is not an 11-character video id"
    ):
        read_llp(tmp_path)


@pytest.mark.parametrize(("line", "onset"), [(0, "-1"), (3, "-1"), (3, "\N{SUPERSCRIPT TWO}")])
def test_seconds_that_are_none_are_named_and_no_header(tmp_path, line, onset):
    lines = list(AVE_LINES)
    lines[line] = f"Church bell&video_00000&good&{onset}&5"
    write_ave(tmp_path, lines, AVE_ORDERS)
    with pytest.raises(
        DataError,
        match=rf"line {line + 1}: onset and offset must be whole seconds, not '{onset}' and '5'",
    ):
        read_ave(tmp_path)


def test_an_order_without_rows_is_named(tmp_path):
    write_ave(tmp_path, AVE_LINES, {**AVE_ORDERS, "val": []})
    with pytest.raises(DataError, match="val_order.h5 names no row"):
        read_ave(tmp_path)


@pytest.mark.parametrize("inside", ["Annotations.txt", "*.h5"])
def test_arrays_of_ave_may_lie_in_a_data_folder_apart_from_its_annotations(tmp_path, inside):
    source = ave_tree(tmp_path / "ave")
    wrong = np.zeros((len(AVE_LINES), 29), np.float32)
    write_h5(source / "mil_labels.h5", wrong)
    whole = bring_in("ave", source, tmp_path / "whole")
    (source / "data").mkdir()
    for file in list(source.glob(inside)):
        shutil.move(file, source / "data")
    report = bring_in("ave", source, tmp_path / "apart")
    assert Manifest.read(tmp_path / "apart").checksum == Manifest.read(tmp_path / "whole").checksum
    assert report.stored == {"train": 8, "validation": 2, "test": 2, "background": 2}
    assert report.defects == whole.defects and len(report.defects) == len(AVE_LINES)
    assert report.sources == whole.sources
    assert main(["data", "verify", str(tmp_path / "apart"), "--annotations", str(source)]) == 0
    copy = tmp_path / "copy"
    copy.mkdir()
    copy_annotations(source, copy, [0, 1, 2, 9])
    assert {split: len(rows) for split, rows in read_ave(copy).splits.items()} == {
        "train": 2,
        "validation": 1,
        "test": 1,
    }


@needs_posix
def test_a_link_that_leads_nowhere_costs_its_clip_only(own_tree, tmp_path):
    file = own_tree / "feats" / "vggish" / "train-00001.npy"
    file.unlink()
    file.symlink_to(tmp_path / "nowhere")
    report = bring_in("llp", own_tree, tmp_path / "store")
    assert [(item.clip_id, item.file) for item in report.left_out] == [
        ("train-00001_1_11", str(file))
    ]
    assert "cannot be read" in report.left_out[0].reason and report.stored["train"] == 5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("character", [b"(", b"{", b"'", b"\n", b"0", b"\\", b"\xff"])
def test_a_damaged_header_is_a_bad_feature_whatever_byte_is_hit(tmp_path, character):
    file, outcomes = tmp_path / "clip.npy", []
    np.save(file, np.ones((10, 128), np.float32))
    whole = file.read_bytes()
    for place in range(128):
        file.write_bytes(whole[:place] + character + whole[place + 1 :])
        for read in (read_npy, read_input):
            try:
                outcomes.append(read(file, (10, 128)).shape == (10, 128))
            except (BadFeature, DataError) as error:
                outcomes.append(
                    "npy" in str(error) or "(10, 128)" in str(error) or "not numbers" in str(error)
                )
    assert all(outcomes) and len(outcomes) == 256


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "damage", [lambda b: b.replace(b")", b" ", 1), lambda b: b.replace(b"'|u1'", b"'|O1'", 1)]
)
def test_a_damaged_header_of_mapped_arrays_is_a_finding(own_tree, tmp_path, damage):
    bring_in("llp", own_tree, tmp_path / "store")
    open_data(tmp_path / "store", task="avvp").split("train")
    file = next((tmp_path / "store" / ".arrays").glob("*/train/weak.npy"))
    content = damage(file.read_bytes())
    assert content != file.read_bytes()
    file.write_bytes(content)
    assert "mapped arrays" in " ".join(
        finding.kind for finding in verify_data(tmp_path / "store").errors
    )


def test_a_footer_that_arrow_knows_no_type_of_is_a_damaged_shard(own_tree, tmp_path, monkeypatch):
    bring_in("llp", own_tree, tmp_path / "store")

    def refuse(*args, **options):
        raise pa.ArrowNotImplementedError("integers with more than 64 bits")

    monkeypatch.setattr("pyarrow.parquet.ParquetFile", refuse)
    errors = verify_data(tmp_path / "store").errors
    assert {finding.kind for finding in errors} == {
        "damaged shard"
    } and "more than 64 bits" in errors[0].text


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"PK\x03\x04zzzz", "is not a .npy file"), (b"x", "is not a .npy file"), (b"", "is empty")],
)
def test_what_is_no_array_is_said_to_be_none(tmp_path, content, reason):
    file = tmp_path / "clip.npy"
    file.write_bytes(content)
    with pytest.raises(BadFeature, match=reason):
        read_npy(file, (10, 25))
    with pytest.raises(DataError, match=reason):
        read_input(file, (10, 25))
    with pytest.raises(DataError, match="is not a .npy file"):
        read_label_file(file)


def test_a_label_file_with_a_damaged_header_is_named(tmp_path):
    file = tmp_path / "labels.npy"
    np.save(file, np.ones((2, 3), np.float32))
    file.write_bytes(file.read_bytes().replace(b")", b" ", 1))
    with pytest.raises(DataError, match="labels.npy cannot be read"):
        read_label_file(file)


def test_words_are_found_behind_a_byte_order_mark_and_vectors_are_numbers(tmp_path):
    (tmp_path / "v.txt").write_bytes(b"\xef\xbb\xbfdog 1 2\ncat 3 nan\n")
    assert read_glove(tmp_path / "v.txt", {"dog"})["dog"].tolist() == [1, 2]
    with pytest.raises(DataError, match="v.txt, line 2: the vector of 'cat' holds NaN"):
        read_glove(tmp_path / "v.txt", {"dog", "cat"})
    (tmp_path / "texts.txt").write_bytes(b"\xef\xbb\xbfdog\r\ncat\r\n\r\n")
    assert main(["embed-labels", "--texts", str(tmp_path / "texts.txt")]) == 0


def test_names_that_are_no_utf8_are_reported(own_tree, tmp_path, capfd):
    stray = os.fsdecode(b"caf\xe9.npy")
    try:
        (own_tree / "feats" / "vggish" / stray).write_bytes(b"x")
        source = own_tree.rename(tmp_path / os.fsdecode(b"d\xe9p\xf4t"))
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    assert main(["data", "import", "llp", str(source), "--out", str(tmp_path / "store")]) == 0
    report = json.loads((tmp_path / "store" / "import_report.json").read_text(encoding="utf-8"))
    assert stray in [defect["text"] for defect in report["defects"]] and report["source"] == str(
        source
    )
    assert (
        main(["data", "verify", str(tmp_path / "store"), "--json", str(tmp_path / "found.json")])
        == 0
    )
    assert "caf\\udce9.npy" in capfd.readouterr().out + (tmp_path / "found.json").read_text(
        encoding="utf-8"
    )


@needs_posix
@pytest.mark.parametrize("there", [True, False])
def test_a_store_may_be_written_through_a_link(own_tree, tmp_path, there):
    (tmp_path / "disk").mkdir()
    if there:
        (tmp_path / "disk" / "place").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk" / "place")
    bring_in("llp", own_tree, tmp_path / "store")
    assert (tmp_path / "store").is_symlink() and os.listdir(tmp_path / "disk") == ["place"]
    assert sum(
        info.rows for info in Manifest.read(tmp_path / "disk" / "place").splits.values()
    ) == len(sum(LLP_CLIPS.values(), []))


@pytest.mark.parametrize(
    "name", ["file:x", "s3:bucket", "hdfs:y", "~nobody-at-all", ":smile:", "a [b] *"]
)
def test_a_folder_may_have_any_name(own_tree, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    own_tree.rename(f"{name}.llp")
    assert main(["data", "import", "llp", f"{name}.llp", "--out", name]) == 0
    assert f"wrote {name}: train 6" in capsys.readouterr().out
    assert {"dataset.json", "train-00000.parquet", "validation-00000.parquet"} <= set(
        os.listdir(name)
    )
    assert main(["data", "verify", name]) == 0
    data = open_data(name, task="avvp")
    assert data.split("train").clip_ids == LLP_CLIPS["train"]
    assert content_checksum(name, data.manifest) == data.manifest.checksum
    assert [row["clip_id"] for row in stream_dataset(data).with_format(None)] == LLP_CLIPS["train"]


def test_a_folder_whose_name_is_no_utf8_is_refused_before_anything_is_read(own_tree, tmp_path):
    with pytest.raises(UsageError, match="is not UTF-8"):
        bring_in("llp", own_tree, tmp_path / os.fsdecode(b"d\xe9p\xf4t"))
    assert os.listdir(tmp_path) == ["llp"]


def test_a_file_of_a_store_that_may_not_be_read_is_a_finding(own_tree, tmp_path, monkeypatch):
    bring_in("llp", own_tree, tmp_path / "store", card=lambda manifest: manifest.checksum)
    closed, plain = {"train-00000.parquet", "README.md"}, io.open

    def opened(file, *args, **options):
        if Path(os.fspath(file)).name in closed:
            raise PermissionError(13, "Permission denied", str(file))
        return plain(file, *args, **options)

    monkeypatch.setattr(
        io, "open", opened
    )  # which pathlib calls; root may read everything, so modes say nothing
    report = verify_data(tmp_path / "store")
    assert ("damaged shard", "train-00000.parquet cannot be read (Permission denied)") in [
        (finding.kind, finding.text) for finding in report.errors
    ]
    assert "card that cannot be read" in [finding.kind for finding in report.warnings]


def test_the_home_folder_may_be_written_as_a_tilde(own_tree, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    bring_in("llp", "~/llp", "~/store", annotations="~/llp", vggish="~/llp/feats/vggish")
    assert sorted(os.listdir(tmp_path)) == ["llp", "store"]
