"""A store of listed events is compared with the list, clip by clip."""

import json

import numpy as np
import pytest

from avplatform.cli import main
from avplatform.data import open_data
from avplatform.data.verify import verify_data
from avplatform.evaluation.bootstrap import videos_of

FLAGS = ["--segments", "4", "--segment", "0.5", "--split", "0.5,0.25,0.25"]


@pytest.fixture
def own(tmp_path):
    """A store of 12 videos, of which the longest has two clips and the last is shorter."""
    rng, rows = np.random.default_rng(0), ["video,onset,offset,label,stream"]
    for stream in ("audio", "visual"):
        (tmp_path / "features" / stream).mkdir(parents=True)
    for n in range(12):
        length = {0: 7, 11: 3}.get(n, 4)
        for stream in ("audio", "visual"):
            values = rng.normal(0, 1, (length, 5)).astype(np.float32)
            np.save(tmp_path / "features" / stream / f"v{n}.npy", values)
        rows.append(f"v{n}.mp4,{n % 3 * 0.25},{1 + n % 2 * 0.5},{('dog', 'siren')[n % 2]},av")
    rows[1] += "\nv0,2.5,3.25,siren,audio"
    (tmp_path / "events.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def make(own, *flags, task="avvp"):
    events = ["--events", str(own / "events.csv"), "--out", str(own / "store"), "--task", task]
    assert main(["data", "import", "table", str(own / "features"), *events, *FLAGS, *flags]) == 0
    return own / "store"


def rewrite(own, old, new):
    text = (own / "events.csv").read_text()
    assert old in text
    (own / "events.csv").write_text(text.replace(old, new, 1))


def findings(own):
    report = verify_data(own / "store", annotations=own / "events.csv")
    warnings = {f.kind for f in report.warnings if not f.kind.startswith("remark on")}
    return {(f.kind, f.clip_id) for f in report.errors}, warnings


@pytest.mark.parametrize("task", ["avvp", "avel"])
def test_a_store_agrees_with_the_list_that_it_was_made_of(own, task, capsys):
    make(own, "--covered", "0.3", task=task)
    assert findings(own) == (set(), set())
    flags = ["--annotations", str(own / "events.csv")]
    assert main(["data", "verify", str(own / "store"), *flags]) == 0
    assert main(["data", "verify", str(own / "store"), *flags, "--audio-annotations", "x"]) == 2
    assert "--audio-annotations is for official files" in capsys.readouterr().err


def test_what_is_odd_in_an_own_table_is_not_said_of_official_files(own, capsys):
    rewrite(own, "video,onset", "note,video,onset")
    rows = (own / "events.csv").read_text().splitlines()
    (own / "events.csv").write_text("\n".join([rows[0], *(f"x,{row}" for row in rows[1:])]) + "\n")
    store = make(own)
    capsys.readouterr()
    assert main(["data", "verify", str(store)]) == 0
    said = capsys.readouterr().out
    assert "remark on the list of events: column that is not read" in said
    assert "official" not in said


def test_the_clips_of_a_video_are_drawn_together(own):
    data = open_data(make(own), task="avvp")
    (split,) = (data.split(n) for n in data.splits if "v0_0_2" in data.split(n).clip_ids)
    order = np.argsort(split.rows, kind="stable")
    found = dict(zip((split.clip_ids[i] for i in order), videos_of(split).tolist(), strict=True))
    assert found["v0_0_2"] == found["v0_2_4"] and len(set(found.values())) == len(found) - 1
    others = [videos_of(data.split(n)) for n in data.splits if data.split(n).name != split.name]
    assert others == [None, None]  # each clip is a video


@pytest.mark.parametrize("task", ["avvp", "avel"])
def test_a_changed_event_is_found_in_its_clip(own, task):
    make(own, task=task)
    rewrite(own, "v4.mp4,0.25,1", "v4.mp4,0.25,2")
    rewrite(own, "v0,2.5,3.25,siren,audio", "v0,2.5,3.25,siren,visual")
    errors, warnings = findings(own)
    kind = "label is not that of the list"
    assert errors == {(kind, "v4"), *([(kind, "v0_2_4")] if task == "avvp" else [])}
    assert warnings == {"list is not the one that was read"}


@pytest.mark.parametrize(
    ("old", "new", "error", "warning"),
    [
        ("v4.mp4,0.25,1.0,dog,av\n", "", ("clip that the list does not have", "v4"), ""),
        ("v4.mp4,", "v44.mp4,", ("clip that the list does not have", "v4"),
         "listed videos that are not here"),
        ("v1.mp4,0.25,1.5,siren", "v1.mp4,0.25,1.5,cat",
         ("classes are not those of the list", ""), ""),
    ],
)  # fmt: skip
def test_what_is_on_one_side_only_is_told(own, old, new, error, warning):
    make(own)
    rewrite(own, old, new)
    errors, warnings = findings(own)
    assert error in errors and warning in {*warnings, ""}


def test_splits_of_the_list_are_compared(own):
    head, *rows = (own / "events.csv").read_text().splitlines()
    table = [f"{head},split", *(f"{row},{'train' if n else 'test'}" for n, row in enumerate(rows))]
    table[2] = table[2].replace("train", "test")  # the other event of v0
    (own / "events.csv").write_text("\n".join(table) + "\n")
    events = ["--events", str(own / "events.csv"), "--out", str(own / "store")]
    folder = ["data", "import", "table", str(own / "features"), *FLAGS[:4]]
    assert main([*folder, *events]) == 0
    assert findings(own) == (set(), set())
    rewrite(own, "v5.mp4,0.5,1.5,siren,av,train", "v5.mp4,0.5,1.5,siren,av,test")
    errors, _ = findings(own)
    assert ("clip in another split than listed", "v5") in errors


def test_an_event_that_was_cut_at_the_end_of_its_video_agrees(own):
    """The store does not know where a video ended within a clip, but there are no features."""
    rewrite(own, "v11.mp4,0.5,1.5,siren,av", "v11.mp4,0.5,1.9,siren,av")
    events = ["--events", str(own / "events.csv"), "--out", str(own / "store")]
    folder = ["data", "import", "table", str(own / "features"), *FLAGS]
    assert main([*folder, *events]) == 0
    report = json.loads((own / "store" / "import_report.json").read_text())
    assert "event beyond the end" in {defect["kind"] for defect in report["defects"]}
    assert findings(own)[0] == set()


def test_a_store_without_labels_cannot_be_compared(own, capsys):
    make(own)
    manifest = json.loads((own / "store" / "dataset.json").read_text())
    del manifest["spec"]["provenance"]["rules"]
    (own / "store" / "dataset.json").write_text(json.dumps(manifest))
    flags = ["--annotations", str(own / "events.csv")]
    assert main(["data", "verify", str(own / "store"), *flags]) == 2
    assert "were not made of a list" in capsys.readouterr().err
