"""Faults planted in event lists: each one is named with file and line, and nothing is lost."""

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avplatform.cli import main
from avplatform.data import open_data
from avplatform.data.importing.report import without_places
from avplatform.data.verify import verify_data

VIDEOS = ("clip1", "clip2", "clip3", "Straße")
HEAD = "video,onset,offset,label"
GOOD = ["clip1,0,4,dog", "clip1,6,8,cat", "clip2,2,5.5,cat", "clip3,1,9,dog"]
"""Lines 2 to 5 of a table without faults."""


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Folders of features of four videos of ten seconds."""
    folder, rng = tmp_path_factory.mktemp("features"), np.random.default_rng(0)
    for stream, width in (("audio", 4), ("visual", 6)):
        (folder / stream).mkdir()
        for video in VIDEOS:
            values = rng.standard_normal((10, width)).astype(np.float32)
            np.save(folder / stream / f"{video}.npy", values)
    return folder


def run(features, tmp_path, capsys, file, *flags):
    """Import a list of events; return the exit code and all that was printed."""
    capsys.readouterr()
    flags = ["--task", "avvp", "--split", "0.5,0.25,0.25", *flags]
    if "split" in file.read_bytes().decode("latin-1").split("\n")[0]:
        flags = ["--task", "avvp"]
    command = ["data", "import", "table", str(features), "--events", str(file)]
    code = main([*command, "--out", str(tmp_path / "store"), *flags])
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def table(*changed, head=HEAD, rows=GOOD):
    """Return a table with some lines replaced or added: (line, text)."""
    lines = [head, *rows]
    for line, text in changed:
        lines[line - 1 : line] = [text]
    return "\n".join(lines) + "\n"


def with_column(name, cells, rows=GOOD):
    lines = [f"{row},{cell}" for row, cell in zip(rows, cells, strict=True)]
    return table(head=f"{HEAD},{name}", rows=lines)


REFUSED = {
    "reversed span": (table((3, "clip1,8,6,cat")), 3, "ends before it begins (8 to 6 s)"),
    "event of no length": (table((3, "clip1,6,6,cat")), 3, "has no length"),
    "negative onset": (table((3, "clip1,-1,6,cat")), 3, "onset is '-1', which is negative"),
    "negative with a typographic minus": (table((3, "clip1,\u22121,6,cat")), 3, "negative"),
    "times that are no numbers": (table((3, "clip1,six,8,cat")), 3, "'six', which is not a time"),
    "a time with a unit": (table((3, "clip1,500ms,8,cat")), 3, "'500ms', which is not a time"),
    "seconds above 59 in a clock": (table((3, "clip1,0:75,8,cat")), 3, "more than 59"),
    "time code with frames": (table((3, "clip1,0:00:01:12,8,cat")), 3, "not a time"),
    "infinite offset": (table((3, "clip1,1,inf,cat")), 3, "offset is 'inf'"),
    "label is empty": (table((3, "clip1,6,8,")), 3, "an event without a label"),
    "label of spaces": (table((3, "clip1,6,8,   ")), 3, "an event without a label"),
    "label nan": (table((3, "clip1,6,8,nan")), 3, "the label is 'nan'"),
    "label background": (table((3, "clip1,6,8,Background")), 3, "stands for no event"),
    "one of several labels empty": (table((3, "clip1,6,8,cat;")), 3, "delete its separator"),
    "two labels and a comma": (table((3, 'clip1,6,8,"cat,dog"')), 3, "may be 2 labels"),
    "offset is missing": (table((3, "clip1,6,,cat")), 3, "has no offset"),
    "onset is missing": (table((3, "clip1,,8,cat")), 3, "has no onset"),
    "no times in one row": (table((3, "clip1,,,cat")), 3, "this one without"),
    "no times in one video": (table((4, "clip2,,,cat")), 4, "of this list have"),
    "video is missing": (table((3, ",6,8,cat")), 3, "the video is not named"),
    "two cases of a class": (table((3, "clip1,6,8,Dog")), 3, "'Dog' is spelt 'dog' elsewhere"),
    "underscore and space": (
        table((2, "clip1,0,4,dog_bark"), (5, "clip3,1,9,dog bark")), 5, "use one spelling"),
    "full-width letters": (table((3, "clip1,6,8,ｄｏｇ")), 3, "use one spelling"),
    "decimal comma without quotes": (table((3, "clip1,6,0,8,0,cat")), 3, "6 cells under 4 columns"),
    "decimal commas and points": (table((3, 'clip1,"6,5",8,cat')), 3, "other times have points"),
    "an open quote": (table((5, 'clip3,1,9,"dog')), 5, "check the quotes"),
    "column onset is missing": (table(head="video,offset,label", rows=["clip1,4,dog"]), 1,
                                "there is no column 'onset'"),
    "column label is missing": (table(head="video,onset,offset", rows=["clip1,0,4"]), 1,
                                "there is no column 'label'"),
    "column video is missing": (table(head="onset,offset,label", rows=["0,4,dog"]), 1,
                                "there is no column 'video'"),
    "no names of columns": (table(head=GOOD[0]), 1, "the first line must name the columns"),
    "a misspelt column": (table(head="vidoe,onset,offset,label"), 1, "rename 'vidoe' to 'video'"),
    "a misspelt option": (with_column("spilt", ["train"] * 4), 1, "did you mean 'split'?"),
    "columns of another format": (table(head="video,start,end,label"), 1, "did you mean 'onset'?"),
    "columns of LLP": (table(head="filename\tonset\toffset\tevent_labels",
                             rows=["clip1\t0\t4\tdog", "clip2\t9\t3\tdog"]), 3, "ends before"),
    "a column twice": (table(head=f"{HEAD},label", rows=[f"{r},x" for r in GOOD]), 1,
                       "say the same"),
    "unknown stream": (with_column("stream", ["audio", "adio", "av", "both"]), 3,
                       "stream is 'adio'; did you mean 'audio'?"),
    "unknown split": (with_column("split", ["train", "train", "tset", "test"]), 4,
                      "split is 'tset'; did you mean 'test'?"),
    "a video in two splits": (with_column("split", ["train", "test", "test", "train"]), 3,
                              "'clip1' is in test, and in train"),
    "a video without a split": (with_column("split", ["train", "train", "", "test"]), 4,
                                "'clip2' has no split"),
    "score that is no number": (with_column("score", ["1", "high", "1", "1"]), 3, "not a number"),
    "an empty file": ("", 1, "the file is empty"),
    "no rows": (HEAD + "\n", 1, "no row below"),
    "a workbook": (b"PK\x03\x04 xlsx", 1, "save the sheet as csv"),
    "not text": (b"video,onset\n\0\0\0,1\n", 2, "this is not text"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_fault_refuses_the_list_and_is_named_with_its_line(name, features, tmp_path, capsys):
    content, line, said = REFUSED[name]
    file = tmp_path / "events.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, printed = run(features, tmp_path, capsys, file)
    assert code == 1, printed
    named = [text for text in printed.splitlines() if f"{file}, line {line}: " in text]
    assert named and any(said in text for text in named), printed
    assert "Traceback" not in printed and not (tmp_path / "store").exists()


def latin(text):
    return text.encode("latin-1")


EXCEL = io.StringIO()
csv.writer(EXCEL, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(
    [HEAD.split(","), *(row.split(",") for row in GOOD)]
)

READ = {
    "byte order mark": (b"\xef\xbb\xbf" + table().encode(), 1, "byte order mark"),
    "Latin-1": (latin(table((5, "Straße,1,9,dog"))), 5, "not UTF-8; read as Windows-1252"),
    "UTF-16": (table().encode("utf-16"), 1, "UTF-16"),
    "decimal commas": (
        table().replace(",", ";").replace("5.5", "5,5").encode(), 4, "offset 5,5"),
    "a row twice": (table((5, GOOD[3] + "\n" + GOOD[3])).encode(), 6, "dog, first in line 5"),
    "overlap of a class": (table((3, "clip1,3,8,dog")).encode(), 3, "dog overlaps line 2"),
    "beyond the end": (table((5, "clip3,1,11,dog")).encode(), 5, "cut: the video ends at 10.000 s"),
    "too short for a segment": (
        table((3, "clip1,6.2,6.5,cat")).encode(), 3, "cat of 'clip1', 6.2 to 6.5 s"),
    "a row without an event": (
        table((3, "clip1,,,\nclip1,6,8,cat")).encode(), 3, "has a row without an event"),
    "a column of notes": (
        with_column("comment", ["", "loud", "", ""]).encode(), 1, "comment"),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_an_oddity_is_read_by_a_rule_and_named_with_its_line(name, features, tmp_path, capsys):
    content, line, said = READ[name]
    file = tmp_path / "events.csv"
    file.write_bytes(content)
    code, printed = run(features, tmp_path, capsys, file)
    assert code == 0, printed
    assert any(
        said in text and f"(line {line})" in text and "events.csv" in text
        for text in printed.splitlines()
    ), printed
    assert verify_data(tmp_path / "store").ok


@pytest.mark.parametrize(
    "content",
    [
        table(),
        table().replace("\n", "\r\n"),
        EXCEL.getvalue(),
        table().replace(",0,4,", ",0.0,4.0,"),
        table().replace("2,5.5", "0:02,0:05.5"),
        table().replace("clip1,", "clip1.mp4,").replace("clip2,", "videos\\clip2.avi,"),
        table((3, "\nclip1,6,8,cat")),
        table((3, " clip1 , 6 , 8 , cat ")),
        "sep=,\n" + table(),
        table().replace("\n", ",,\n"),
        table(head="Video,Onset,Offset,Label"),
        "".join(f"{n},{row}\n" for n, row in zip(["", 0, 1, 2, 3], [HEAD, *GOOD], strict=True)),
    ],
)
def test_a_table_means_the_same_in_each_of_its_spellings(content, features, tmp_path, capsys):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain.csv").write_text(table())
    (tmp_path / "events.csv").write_bytes(content.encode())
    code, _ = run(features, tmp_path / "plain", capsys, tmp_path / "plain.csv")
    assert code == 0
    assert run(features, tmp_path, capsys, tmp_path / "events.csv")[0] == 0
    stores = [open_data(str(p / "store"), task="avvp") for p in (tmp_path, tmp_path / "plain")]
    assert stores[0].checksum == stores[1].checksum


def test_an_unknown_video_is_left_out_and_named(features, tmp_path, capsys):
    (tmp_path / "events.csv").write_text(table((3, "clip11,6,8,cat")))
    code, printed = run(features, tmp_path, capsys, tmp_path / "events.csv")
    place = f"{tmp_path / 'events.csv'}, line 3"
    assert code == 1
    assert "events.csv line 3: there is no video 'clip11'; did you mean 'clip1'?" in printed
    published = without_places((tmp_path / "store" / "import_report.json").read_text())
    assert str(tmp_path) not in published and "events.csv" in published
    assert str(tmp_path) not in (tmp_path / "store" / "README.md").read_text()
    report = json.loads((tmp_path / "store" / "import_report.json").read_text())
    assert sum(report["stored"].values()) == 3
    assert {item["clip_id"] for item in report["left_out"]} == {"clip11", "Straße"}
    (tmp_path / "events.csv").write_text(table(rows=["x1,0,1,dog", "x2,0,1,dog"]))
    code, printed = run(features, tmp_path / "other", capsys, tmp_path / "events.csv")
    assert code == 1 and f"{place[:-1]}2: there is no video 'x1'" in printed
    assert "none of the listed videos is there" in printed


def test_times_in_milliseconds_lie_beyond_the_end(features, tmp_path, capsys):
    (tmp_path / "events.csv").write_text(table((3, "clip1,6000,8000,cat")))
    code, printed = run(features, tmp_path, capsys, tmp_path / "events.csv")
    assert code == 1 and "events.csv line 3: the event 'cat' (6000 to 8000 s) lies" in printed
    assert "give seconds, not milliseconds or frames" in printed
    report = json.loads((tmp_path / "store" / "import_report.json").read_text())
    assert "clip1" in {item["clip_id"] for item in report["left_out"]}


def test_an_event_beyond_the_end_is_refused_on_demand(features, tmp_path, capsys):
    (tmp_path / "events.csv").write_text(table((5, "clip3,1,11,dog")))
    code, printed = run(features, tmp_path, capsys, tmp_path / "events.csv", "--beyond", "refuse")
    assert code == 1 and "line 5: the event 'dog' ends at 11 s, and the video ends at" in printed


def test_all_faults_of_all_files_are_named_at_once(features, tmp_path, capsys):
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "a.csv").write_text(table((2, "clip1,4,0,dog"), (4, "clip2,2,x,cat")))
    (lists / "clip3.txt").write_text("1.0\t9.0\tdog\n5.0\t2.0\tdog\n")
    code, printed = run_folder(features, tmp_path, capsys, lists)
    assert code == 1
    for place in ("a.csv, line 2", "a.csv, line 4", "clip3.txt, line 2"):
        assert f"{lists}/{place}: " in printed


def run_folder(features, tmp_path, capsys, folder):
    command = ["data", "import", "table", str(features), "--events", str(folder), "--task", "avvp"]
    code = main([*command, "--out", str(tmp_path / "store")])
    printed = capsys.readouterr()
    return code, printed.out + printed.err


VTT = "WEBVTT\n\n00:01.000 --> 00:02.000\ndog\n\n"
EAF = (
    '<?xml version="1.0"?>\n<ANNOTATION_DOCUMENT>\n<TIME_ORDER>\n'
    '<TIME_SLOT TIME_SLOT_ID="a" TIME_VALUE="1000"/>\n<TIME_SLOT TIME_SLOT_ID="b"/>\n'
    '</TIME_ORDER>\n<TIER TIER_ID="dog"><ANNOTATION>\n<ALIGNABLE_ANNOTATION ANNOTATION_ID="x" '
    'TIME_SLOT_REF1="a" TIME_SLOT_REF2="b">\n<ANNOTATION_VALUE/></ALIGNABLE_ANNOTATION>'
    "</ANNOTATION></TIER></ANNOTATION_DOCUMENT>"
)
VIA = "# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata"
OTHERS = {
    "clip1.vtt": [
        ("dog\n", 1, "begins with WEBVTT"),
        (VTT + "00:05.000 --> 00:04.000\ndog\n", 6, "ends before it begins"),
        (VTT + "00:05.000 --> 00:06.000\n\n", 6, "without a label"),
        (VTT + "cat\n", 6, "has no times"),
    ],
    "clip1.eaf": [
        ("<a>\n<b></a>", 2, "is not XML"),
        ("<a></a>", 1, "is not an ELAN document"),
        (EAF, 8, "has no time"),
    ],
    "clip1.txt": [
        ("1.0\t2.0\tdog\n3.0\t2.0\tdog\n", 2, "ends before it begins"),
        ("1.0\t2.0\tdog\n3.0\t4.0\t\n", 2, "without a label"),
        ("1.0\t2.0\tdog\n3.0 4.0 dog\n", 2, "separated by tabs"),
    ],
    "clip1.json": [
        ('[{"video": "clip1", "onset": 1, "offset": 2, "label": "dog"},\n {"video": }]', 2, "JSON"),
        ('[\n\n{"video": "clip1", "onset": true, "offset": 2, "label": "dog"}]', 3, "not a time"),
        ('[1,\n2]', 1, "is not an object"),
        ("[]", 1, "there is no event"),
    ],
    "via.csv": [
        (f'{VIA}\n"1_a","[""clip1.mp4""]",0,"[2,1]","[]","{{""1"":""dog""}}"\n', 2, "ends before"),
        (f'{VIA}\n"1_a","[""clip1.mp4""]",0,"[1,2]","[]","{{""1"":""_DEFAULT""}}"\n', 2,
         "without a label"),
        (f"{VIA}\nclip1,1,2,dog\n", 2, "is not a row of VIA"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "line", "said"),
    [(name, *case) for name, cases in OTHERS.items() for case in cases],
)
def test_a_fault_in_another_format_is_named_with_its_line(
    name, content, line, said, features, tmp_path, capsys
):
    (tmp_path / name).write_text(content)
    code, printed = run(features, tmp_path, capsys, tmp_path / name)
    assert code == 1 and "Traceback" not in printed
    named = [t for t in printed.splitlines() if f"{tmp_path / name}, line {line}: " in t]
    assert any(said in text for text in named), printed


def test_a_fault_in_a_parquet_table_is_named_with_its_row(features, tmp_path, capsys):
    columns = {"video": ["clip1", "clip2"], "onset": [0.0, 5.0], "offset": [1.0, 2.0]}
    pq.write_table(pa.table({**columns, "label": ["dog", "cat"]}), tmp_path / "e.parquet")
    code, printed = run(features, tmp_path, capsys, tmp_path / "e.parquet")
    assert code == 1 and f"{tmp_path / 'e.parquet'}, row 2: the event 'cat' ends before" in printed
    lengths = {name: pa.array([1000, 2500], pa.duration("ms")) for name in ("onset", "offset")}
    columns = {"video": ["clip1", "clip2"], **lengths, "label": ["dog", "cat"]}
    pq.write_table(pa.table(columns), tmp_path / "e.parquet")
    code, printed = run(features, tmp_path, capsys, tmp_path / "e.parquet")
    assert code == 1 and "row 2: the event 'cat' has no length (2.5 to 2.5 s)" in printed


def test_entities_of_a_hostile_document_are_not_expanded(features, tmp_path, capsys):
    bomb = '<!DOCTYPE a [<!ENTITY b "dog"><!ENTITY c "&b;&b;">]><ANNOTATION_DOCUMENT/>'
    (tmp_path / "clip1.eaf").write_text(bomb)
    code, printed = run(features, tmp_path, capsys, tmp_path / "clip1.eaf")
    assert code == 1 and "declares entities" in printed


def test_at_least_forty_faults_are_planted():
    assert len(REFUSED) + len(READ) + sum(map(len, OTHERS.values())) + 6 >= 60
