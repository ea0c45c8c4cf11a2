"""Verifying a store: clean stores, warnings, output and exit codes. See also planted faults."""

import dataclasses
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avplatform.cli import main
from avplatform.data import open_data
from avplatform.data.adapters.registry import DATASETS
from avplatform.data.importing import ImportOptions, import_data
from avplatform.data.store.card import render_dataset_card
from avplatform.data.store.schema import Manifest, bad_clips
from avplatform.data.verify import VerifyReport, verify_data
from avplatform.data.verify.identity import ClipIndex
from avplatform.models.errors import DataError
from tests.data.official import AVE_LINES, ave_tree, llp_tree
from tests.data.stores import spec_of, write
from tests.faults.stores import edit_manifest, rewrite
from tests.hub.fake_hub import FakeHub, FakeRepo
from tests.hub.test_hub import client, command
from tests.tasks.test_avel import write_ave
from tests.tasks.test_avvp import write_llp

SHARD = "train-00000.parquet"


@pytest.fixture
def llp(tmp_path):
    source = llp_tree(tmp_path / "llp")
    import_data(
        ImportOptions(dataset="llp", source=str(source), out=str(tmp_path / "store")),
        card=render_dataset_card,
    )
    return tmp_path / "store"


def kinds(findings):
    return [finding.kind for finding in findings]


@pytest.mark.parametrize("task", ["avel", "avvp"])
def test_the_built_in_data_have_no_error(small_stores, task, tmp_path, capsys):
    assert (
        main(["data", "verify", str(small_stores[task]), "--json", str(tmp_path / "found.json")])
        == 0
    )
    shown, found = capsys.readouterr().out, json.loads((tmp_path / "found.json").read_text())
    checksum = Manifest.read(small_stores[task]).checksum
    assert checksum in shown and found["counts"]["checksum"] == checksum
    assert found["ok"] and not found["errors"] and "all is as it should be" in shown
    assert "numbers of clips are not those of" in shown and max(map(len, shown.splitlines())) <= 80


def test_an_import_is_clean_beside_its_annotations(llp):
    report = verify_data(llp, annotations=llp.parent / "llp")
    assert report.errors == [] and report.counts["checksum"] == Manifest.read(llp).checksum
    assert "defect of the official files: class named twice" in kinds(report.warnings)


def test_labels_are_compared_with_the_annotations_clip_by_clip(llp):
    write_llp(
        llp.parent / "llp",
        train="train-00000_0_10\tDog\ntrain-00001_1_11\tCat\nnewcomer000_0_10\tDog",
    )
    report = verify_data(llp, annotations=llp.parent / "llp")
    found = {(f.kind, f.clip_id) for f in report.errors}
    assert ("label is not the official one", "train-00001_1_11") in found
    assert ("clip that the official files do not have", "train-00002_2_12") in found
    assert not any(clip == "train-00000_0_10" for _, clip in found)
    warned = {f.kind: f for f in report.warnings}
    assert "newcomer000_0_10" in warned["clips of the official files that are not here"].text
    assert warned["annotation file is not the one imported"].file.endswith("AVVP_train.csv")


def test_a_store_of_another_file_of_audio_annotations_is_compared_with_it(tmp_path, capsys):
    source = llp_tree(tmp_path / "llp")
    other = tmp_path / "audio_again.csv"
    other.write_text(
        (source / "AVVP_eval_audio.csv").read_text().replace("\t2\t5\tDog", "\t2\t6\tDog")
    )
    flags, store = ["--audio-annotations", str(other)], str(tmp_path / "store")
    assert main(["data", "import", "llp", str(source), "--out", store, *flags]) == 0
    without = verify_data(store, annotations=source)
    assert [(f.kind, f.text) for f in without.errors] == [
        ("label is not the official one", "dense_audio differs")
    ]
    told = "the import read audio_again.csv; give it with --audio-annotations"
    assert ("annotation file is not the one imported", told) in {
        (f.kind, f.text) for f in without.warnings
    }
    capsys.readouterr()
    assert main(["data", "verify", store, "--annotations", str(source), *flags]) == 0
    assert "not the one imported" not in capsys.readouterr().out
    other.write_text(
        other.read_text() + "b_b-bbbbbbb_30_40\t2\t6\tDog\n"
    )  # the same labels in other bytes
    changed = {
        f.kind: f for f in verify_data(store, annotations=source, audio_annotations=other).warnings
    }
    assert changed["annotation file is not the one imported"].file == str(other)
    assert main(["data", "verify", store, *flags]) == 2
    assert "give that folder too" in capsys.readouterr().err


def test_ave_is_compared_by_row_and_background_clips_have_no_event(tmp_path):
    source = ave_tree(tmp_path / "ave")
    import_data(ImportOptions(dataset="ave", source=str(source), out=str(tmp_path / "store")))
    assert verify_data(tmp_path / "store", annotations=source).ok
    lines = [*AVE_LINES[:3], AVE_LINES[3].replace("Church bell", "Bark"), *AVE_LINES[4:]]
    write_ave(source, lines, {"train": [4, 1, 0, 3, 8, 5, 11], "val": [2, 6, 7], "test": [10, 9]})
    found = {(f.kind, f.row) for f in verify_data(tmp_path / "store", annotations=source).errors}
    assert found == {
        ("label is not the official one", 3),
        ("clip in another split than officially", 7),
    }
    rewrite(
        "background-00000.parquet",
        lambda c: (c["segment"].__setitem__(1, [2] * 10), c["video"].__setitem__(1, 2)),
    )(tmp_path / "store")
    found = {(f.kind, f.text) for f in verify_data(tmp_path / "store", annotations=source).errors}
    assert ("label is not the official one", "a background clip has an event") in found


def test_an_event_of_no_length_and_repeated_ids_of_ave_are_warnings(tmp_path):
    lines = [*AVE_LINES[:11], "Bark&video_00000&good&3&3"]
    source = ave_tree(tmp_path / "ave", noisy=0)
    write_ave(source, lines, {"train": [4, 1, 0, 3, 8, 5, 7], "val": [2, 6], "test": [10, 11, 9]})
    import_data(ImportOptions(dataset="ave", source=str(source), out=str(tmp_path / "store")))
    report = verify_data(tmp_path / "store")
    warned = {f.kind: f for f in report.warnings}
    assert report.ok and warned["event of no length"].row == 11
    assert warned["leak: video id in several splits"].text.endswith("video_00000 (train, test)")
    assert "defect of the official files: event of no length" in warned  # from import_report.json


@pytest.mark.skipif(
    "AVP_AVE_DIR" not in os.environ,
    reason="AVP_AVE_DIR is not set: the real annotations are not here",
)
def test_the_eighteen_real_ids_in_several_splits_are_listed():
    from avplatform.data.adapters.ave.annotations import read_annotations

    data, index, report = (
        read_annotations(os.environ["AVP_AVE_DIR"]),
        ClipIndex(),
        VerifyReport(path=""),
    )
    for split, rows in data.splits.items():
        columns = {"row": rows, "audio": rows.reshape(-1, 1), "visual": rows.reshape(-1, 1)}
        index.add(split, "file", [data.clip_ids[row] for row in rows], columns)
    index.check(DATASETS["ave"], report)
    leak = next(f for f in report.findings if f.kind == "leak: video id in several splits")
    assert report.ok and leak.text.startswith("18 video ids") and leak.text.count(";") == 17


def test_other_seconds_of_a_video_and_equal_features_in_another_split_are_warned_of(llp):
    rewrite(SHARD, lambda c: c["clip_id"].__setitem__(0, "ccccccccccc_0_10"))(llp)
    test = pq.read_table(llp / "test-00000.parquet").to_pydict()
    rewrite(
        SHARD, lambda c: [c[name].__setitem__(1, test[name][0]) for name in ("audio", "visual")]
    )(llp)
    warned = {f.kind: f.text for f in verify_data(llp).warnings}
    assert "ccccccccccc_101.8_111.8 (test)" in warned["leak: clips of one video in several splits"]
    assert "ccccccccccc_101.8_111.8" in warned["leak: the same features in several splits"]


def test_labels_of_llp_that_disagree_are_warned_of_with_the_classes(llp):
    def change(columns):
        columns["weak"][0] = [0] * 25
        columns["pseudo_audio"][1] = [1, *columns["pseudo_audio"][1][1:]]

    rewrite(SHARD, change)(llp)
    found = {(f.kind, f.row): f.text for f in verify_data(llp).warnings}
    assert ("clip without a class", 0) in found
    assert found["pseudo-label outside the weak label", 1] == "pseudo_audio has Speech"
    assert "only weak: Speech" in found["weak label is not the union of the dense labels", 6]


def test_fast_looks_at_sizes_and_footers_only(llp):
    file = llp / SHARD
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    fast = verify_data(llp, fast=True)
    assert (
        fast.ok
        and "checksum" not in fast.counts
        and "sizes and footers are right" in fast.lines()[-1]
    )
    assert kinds(verify_data(llp).errors)[0] == "damaged shard"
    file.write_bytes(content[:-5])
    assert kinds(verify_data(llp, fast=True).errors) == ["damaged shard"]


def test_damage_inside_a_shard_never_ends_in_a_traceback(llp):
    content = (llp / SHARD).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(content)
        for at in rng.integers(0, len(content), 20).tolist() + rng.integers(0, 60, 2).tolist():
            damaged[at] ^= int(rng.integers(1, 256))
        (llp / SHARD).write_bytes(damaged)
        assert SHARD in {finding.file for finding in verify_data(llp).errors}


def test_empty_entries_and_strange_columns_are_named(llp):
    table = pq.read_table(llp / SHARD)
    weak = pa.array(
        [None, *table.column("weak").to_pylist()[1:]], type=table.schema.field("weak").type
    )
    table = table.set_column(table.schema.names.index("weak"), "weak", weak).append_column(
        "more", pa.array(range(len(table)))
    )
    pq.write_table(table, llp / SHARD)
    rewrite("test-00000.parquet", lambda c: None)(llp)

    def update(manifest):
        shard = manifest["splits"]["train"]["shards"][0]
        shard["bytes"] = (llp / SHARD).stat().st_size

    edit_manifest(update)(llp)
    report = verify_data(llp)
    assert ("missing values", "weak has empty entries") in {(f.kind, f.text) for f in report.errors}
    assert ("unknown columns", "more") in {(f.kind, f.text) for f in report.warnings}
    assert report.counts["checksum"].startswith("not computed")


def test_mapped_arrays_are_compared_and_old_ones_named(llp):
    data = open_data(llp, task="avvp")
    for split in data.splits:
        data.split(split)
    (llp / ".arrays" / "0123456789abcdef").mkdir()
    report = verify_data(llp)
    assert report.ok and report.counts["mapped arrays"].endswith("train, validation, test")
    old = next(
        finding for finding in report.warnings if finding.kind == "mapped arrays of other contents"
    )
    assert old.file == ".arrays/0123456789abcdef"
    folder = llp / ".arrays" / data.checksum[:16] / "train"
    values = np.load(folder / "weak.npy")
    np.save(folder / "weak.npy", values[:-1])
    (error,) = verify_data(llp).errors
    assert error.file == f".arrays/{folder.parent.name}/train"
    assert error.kind == "mapped arrays" and "(5, 25) instead of (6, 25)" in error.text
    (folder / "weak.npy").write_bytes(b"no array")
    assert kinds(verify_data(llp).errors) == ["mapped arrays"]


def test_import_report_and_card_must_be_those_of_the_store(llp):
    report = json.loads((llp / "import_report.json").read_text())
    report["stored"]["train"] = 5
    places = [
        f"{report['source']}/feats/vggish/x.npy",
        "CLIP/features/x.npy",
        "CLAP/features/x.npy",
    ]
    report["left_out"] = [
        {"clip_id": "lost", "file": file, "reason": "is missing"} for file in places
    ]
    (llp / "import_report.json").write_text(json.dumps(report))
    (llp / "README.md").write_text("another card")
    found = verify_data(llp)
    assert kinds(found.errors) == ["import report"] and "card of other contents" in kinds(
        found.warnings
    )
    assert "  lost: feats/vggish/x.npy is missing, and 2 more files" in found.lines()
    assert found.lines()[-1].endswith("; 1 clip left out (import_report.json)")
    (llp / "import_report.json").write_text('{"left_out": 3}')
    assert "cannot be read" in verify_data(llp).errors[0].text


def test_a_clip_without_any_file_is_one_line_with_a_path_of_the_source(
    tmp_path, monkeypatch, capsys
):
    source = llp_tree(tmp_path / "deep" / "llp")
    for file in (source / "feats").glob("*/train-00001.npy"):
        file.unlink()
    monkeypatch.chdir(tmp_path)
    assert main(["data", "import", "llp", "deep/llp", "--out", "store"]) == 1
    line = "  train-00001_1_11: feats/vggish/train-00001.npy is missing, and 2 more files"
    assert line in capsys.readouterr().out.splitlines()
    assert main(["data", "verify", "store"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert (
        line in shown
        and shown[-1].startswith("all that is stored is right, ")
        and max(map(len, shown)) <= 80
    )
    assert sum("another version" in text for text in shown) == 1


def test_a_store_of_version_1_is_read_and_its_checksum_left_alone(llp):
    edit_manifest(lambda m: m.update(version=1, checksum="1" * 64))(llp)
    report = verify_data(llp)
    assert report.ok and "version 1" in report.counts["checksum"]


def test_strange_tasks_and_manifests_are_errors_and_missing_folders_are_refused(tmp_path):
    write(tmp_path / "store", dataclasses.replace(spec_of(), task="speech"), {"train": 3})
    assert "speech" in verify_data(tmp_path / "store").errors[0].text
    (tmp_path / "store" / "dataset.json").write_text("[")
    assert kinds(verify_data(tmp_path / "store").errors) == ["manifest"]
    with pytest.raises(DataError, match="no data folder"):
        verify_data(tmp_path / "nothing")
    assert main(["data", "verify", str(tmp_path / "nothing")]) == 1


def test_many_findings_are_cut_on_the_screen_and_whole_in_json(llp):
    report = VerifyReport(path="x")
    for i in range(30):
        report.error("label out of range", "wrong", file="f", row=i)
    assert "  and 10 more (--json FILE lists all)" in report.lines()
    assert len(report.content()["errors"]) == 30 and report.lines()[-1] == "30 errors"


def test_json_alone_goes_to_standard_output(llp, capsys):
    assert main(["data", "verify", str(llp), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]
    assert main(["data", "verify", str(llp), "--json", str(llp / "dataset.json" / "file")]) == 1


def test_half_precision_is_asked_by_its_bits():
    spec = spec_of()
    values = np.zeros((4, 5, 3), np.float16)
    values[0], values[1, 2, 1], values[2, 4, 2], values[3] = 65504, np.inf, np.nan, -65504
    assert bad_clips(spec, "audio", values).tolist() == [False, True, True, False]
    assert bad_clips(spec, "audio", values[::-1]).tolist() == [False, True, True, False]


def test_the_card_is_printed_or_written(llp, capsys):
    written = (llp / "README.md").read_text()
    (llp / "README.md").write_text("lost")
    assert main(["data", "card", str(llp)]) == 0
    assert capsys.readouterr().out == written and (llp / "README.md").read_text() == "lost"
    assert main(["data", "card", str(llp), "--write"]) == 0
    assert (llp / "README.md").read_text() == written
    assert main(["data", "card", str(llp / "nothing")]) == 1


HUB = """
from avplatform.cli import main
from pathlib import Path
for repo, *flags in (("clips", "--fast"), ("shorter", "--fast"), ("clips",), \
("shorter",), ("nothing",)):
    code = main(["data", "verify", f"tester/{repo}", *flags])
    print("====", code, len(list(Path.home().rglob("train-*.parquet"))))
"""


def test_a_dataset_on_the_hub_is_verified_and_fast_downloads_no_shard(llp, tmp_path):
    hub, home = FakeHub(), tmp_path / "home"
    home.mkdir()
    try:
        assert client(hub, home, command("data", "push", llp, "tester/clips")).returncode == 0
        files = hub.repos["datasets/tester/clips"].files()
        repo = hub.repos["datasets/tester/shorter"] = FakeRepo("tester/shorter")
        repo.commit("main", {**files, SHARD: files[SHARD][:-9]})
        done = client(hub, home, HUB, token=None, HOME=str(home))
    finally:
        hub.close()
    text = " ".join(done.stdout.split()).split("==== ")
    outcomes = [tuple(map(int, part.split()[:2])) for part in text[1:]]
    assert outcomes == [(0, 0), (1, 0), (0, 1), (1, 2), (1, 2)], done.stdout + done.stderr
    fast, fast_shorter, whole, shorter = text[:4]
    assert "sizes and footers are right" in fast and "all is as it should be" in whole
    for part in (fast_shorter, shorter):
        assert f"{SHARD} has " in part and "in the manifest" in part
    assert "Traceback" not in done.stderr and "tester/nothing" in done.stderr
