"""From events to labels and back: the stated rules hold exactly, for both tasks."""

import json
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avplatform.cli import main
from avplatform.data import open_data
from avplatform.data.adapters.table.labels import EventLabels
from avplatform.data.adapters.table.options import EventOptions
from avplatform.data.adapters.table.segments import (
    active_shares,
    covered_shares,
    joined,
    spans_of,
)
from avplatform.data.adapters.table.splits import parse_shares, split_videos
from avplatform.data.store.schema import Manifest
from avplatform.data.verify import verify_data
from avplatform.models.errors import DataError, UsageError

LENGTHS = st.sampled_from([1.0, 0.5, 0.1, 2.5, 0.96])


@given(st.lists(st.booleans(), min_size=1, max_size=40), LENGTHS)
@settings(max_examples=200, deadline=None)
def test_labels_become_events_and_the_same_labels_again(active, seconds):
    spans = spans_of(active, seconds=seconds)
    shares = active_shares(spans, len(active), seconds=seconds)
    assert (shares > 0).tolist() == active and set(shares.tolist()) <= {0.0, 1.0}


@given(st.lists(st.tuples(st.integers(0, 39), st.integers(1, 8)), min_size=1, max_size=6), LENGTHS)
@settings(max_examples=200, deadline=None)
def test_events_on_the_grid_become_labels_and_the_same_events_again(runs, seconds):
    each = Fraction(str(seconds))
    spans = [(float(a * each), float((a + n) * each)) for a, n in runs]
    labels = active_shares(spans, 48, seconds=seconds) > 0
    assert spans_of(labels, seconds=seconds) == joined(spans)


@given(
    st.lists(st.tuples(st.integers(0, 9_999), st.integers(1, 5_000)), min_size=1, max_size=5),
    st.integers(1, 100),
)
@settings(max_examples=200, deadline=None)
def test_a_segment_is_active_where_the_share_is_covered_by_the_millisecond(runs, percent):
    spans = [(a / 1000, (a + n) / 1000) for a, n in runs]
    covered = np.zeros(20_000, bool)
    for a, n in runs:
        covered[a : a + n] = True
    by_segment = covered.reshape(20, 1000).sum(axis=1)  # milliseconds of each second
    found = active_shares(spans, 20, covered=percent / 100) > 0
    assert found.tolist() == (by_segment * 100 >= percent * 1000).tolist()
    exact = covered_shares(spans, 20)
    assert [share * 1000 for share in exact] == by_segment.tolist()


def test_half_a_segment_is_enough_whatever_floating_point_says():
    assert 0.7 - 0.2 < 0.5
    assert (active_shares([(0.2, 0.7)], 3) > 0).tolist() == [True, False, False]
    assert not active_shares([(0.2, 0.699)], 3).any()


def labels_of(tmp_path, rows, *, task="avvp", head="video,onset,offset,label,stream", **options):
    rest = {name: options.pop(name) for name in ("split", "segments") if name in options}
    (tmp_path / "events.csv").write_text("\n".join([head, *rows]) + "\n")
    chosen = EventOptions(events=(str(tmp_path / "events.csv"),), **options)
    names = dict.fromkeys(row.split(",")[0] for row in rows)
    given = {"segments": 10, "split": "train", **rest}
    return EventLabels(chosen, videos=list(names), task=task, **given)


def test_streams_windows_and_the_end_follow_the_stated_rules(tmp_path):
    made = labels_of(
        tmp_path,
        ["a,0.5,3.4,dog,audio", "a,2,4.5,cat,visual", "a,8.5,12.5,dog,both", "a,11,14,cat,av"],
        segments=5,
    )
    windows = [(0.0, 5.0), (5.0, 10.0), (10.0, 15.0)]
    clips = made.labels("a", windows, duration=13.2)
    heard, seen = (
        np.concatenate([clip[f"dense_{stream}"] for clip in clips])
        for stream in ("audio", "visual")
    )
    cat, dog = 0, 1
    assert np.flatnonzero(heard[:, dog]).tolist() == [0, 1, 2, 8, 9, 10, 11, 12]
    assert np.flatnonzero(seen[:, dog]).tolist() == [8, 9, 10, 11, 12]
    assert np.flatnonzero(heard[:, cat]).tolist() == [11, 12]
    assert np.flatnonzero(seen[:, cat]).tolist() == [2, 3, 4, 11, 12]
    assert [clip["weak"].tolist() for clip in clips] == [[1, 1], [0, 1], [1, 1]]
    assert [(note.kind, note.line) for note in made.notes] == [("event beyond the end", 5)]
    assert all((clip["pseudo_audio"] == clip["dense_audio"]).all() for clip in clips)


def test_a_short_event_is_kept_by_a_smaller_share_or_segment(tmp_path):
    rows = ["a,3.2,3.5,clap,both", "a,0,2,dog,both"]
    lost = labels_of(tmp_path, rows)
    (clip,) = lost.labels("a", [(0.0, 10.0)], duration=10)
    assert clip["weak"].tolist() == [0, 1]
    assert [note.line for note in lost.notes] == [2] and "0.5 of every segment" in lost.notes[
        0
    ].kind
    for options, first in (({"covered": 0.25}, 3), ({"segment": 0.3}, 11)):
        kept = labels_of(tmp_path, rows, **options)
        (clip,) = kept.labels("a", [(0.0, 10 * options.get("segment", 1.0))], duration=10)
        assert kept.notes == [] or "segment" in options
        found = np.flatnonzero(clip["dense_audio"][:, 0]).tolist()
        assert found == ([first] if first < 10 else [])


def test_one_class_a_second_or_background(tmp_path):
    rows = ["a,0,2.5,dog,both", "a,2.5,6,cat,both", "a,7,9,dog,audio", "b,,,,"]
    made = labels_of(tmp_path, rows, task="avel")
    assert made.spec["classes"] == ["cat", "dog", "background"]
    (clip,) = made.labels("a", [(0.0, 10.0)], duration=10)
    assert clip["segment"].tolist() == [1, 1, 1, 0, 0, 0, 2, 2, 2, 2] and clip["video"] == 0
    assert [(n.kind, n.line) for n in made.notes] == [("event that is not both heard and seen", 4)]
    (clip,) = made.labels("b", [(0.0, 10.0)], duration=10)
    assert set(clip["segment"].tolist()) == {2} and clip["video"] == 2
    overlapping = labels_of(tmp_path, ["a,0,3,dog,both", "a,2.9,6,cat,both"], task="avel")
    with pytest.raises(DataError, match=r"line 3: 'cat' is at the same time as 'dog' .*line 2"):
        overlapping.labels("a", [(0.0, 10.0)], duration=10)
    apart = labels_of(tmp_path, ["a,0,3,dog,audio", "a,2,6,cat,both"], task="avel")
    (clip,) = apart.labels("a", [(0.0, 10.0)], duration=10)
    assert clip["segment"].tolist() == [2, 2, 0, 0, 0, 0, 2, 2, 2, 2]


def test_labels_without_times_are_known_for_the_whole_clip_only(tmp_path):
    head = "video,onset,offset,label,split"
    rows = ["a,,,dog,train", "a,,,cat,train", "b,1,3,dog,test", "c,,,,train", "d,2,4,cat,val"]
    made = labels_of(tmp_path, rows, head=head, split=None)
    assert made.spec["label_splits"] == {
        "dense_audio": ["test", "validation"],
        "dense_visual": ["test", "validation"],
        "pseudo_audio": [],
        "pseudo_visual": [],
    }
    (clip,) = made.labels("a", [(0.0, 10.0)], duration=10)
    assert clip["weak"].tolist() == [1, 1] and not clip["dense_audio"].any()
    (clip,) = made.labels("b", [(0.0, 10.0)], duration=10)
    assert np.flatnonzero(clip["dense_visual"][:, 1]).tolist() == [1, 2]
    assert any("the events of train have no times" in remark for remark in made.remarks)


@given(st.lists(st.sets(st.sampled_from("abcde")), min_size=1, max_size=60), st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_splits_are_of_the_asked_sizes_and_depend_on_nothing_else(classes, seed):
    videos = {f"v{n:02d}": found for n, found in enumerate(classes)}
    shares = {"train": 0.6, "validation": 0.2, "test": 0.2}
    found = split_videos(videos, shares, seed=seed)
    assert set(found) == set(videos)
    counts = {split: list(found.values()).count(split) for split in shares}
    for split, share in shares.items():
        assert abs(counts[split] - share * len(videos)) <= 2
        assert counts[split] or len(videos) < 3
    again = dict(sorted(videos.items(), reverse=True))
    assert split_videos(again, shares, seed=seed) == found


def test_classes_are_kept_in_proportion():
    rng = np.random.default_rng(0)
    videos = {f"v{n}": {("dog", "cat", "car")[n % 3]} for n in range(300)}
    videos |= {f"r{n}": {"rare", *rng.choice(["dog", "cat"], 1)} for n in range(10)}
    found = split_videos(videos, parse_shares("0.8,0.1,0.1"))
    for label, (train, validation, test) in {
        "rare": (8, 1, 1), "car": (80, 10, 10), "dog": (84, 10, 10),
    }.items():  # fmt: skip
        counts = [
            sum(label in videos[v] for v, s in found.items() if s == split)
            for split in ("train", "validation", "test")
        ]
        assert np.abs(np.subtract(counts, (train, validation, test))).max() <= 3, (label, counts)


@pytest.mark.parametrize("seed", range(5))
def test_few_videos_are_divided_so_that_no_split_lacks_a_class(seed):
    """Taken in the first order that comes, four videos seldom hold all of six classes."""
    rng = np.random.default_rng(seed)
    videos = {f"v{n}": set(rng.choice(list("abcdef"), 2, replace=False)) for n in range(40)}
    found = split_videos(videos, parse_shares("0.8,0.1,0.1"), seed=seed)
    for split in ("train", "validation", "test"):
        assert {c for v, s in found.items() if s == split for c in videos[v]} == set("abcdef")


@pytest.mark.parametrize("text", ["0.8,0.1", "a,b,c", "0.5,0.6,-0.1", "1,0,0,0", "80,10,10"])
def test_shares_that_are_none_are_refused(text):
    with pytest.raises(UsageError, match="--split is '"):
        parse_shares(text)


@pytest.fixture
def own(tmp_path):
    """Features of 24 videos of 4 segments of half a second, which hold their labels."""
    rng, rows = np.random.default_rng(0), ["video,onset,offset,label"]
    for stream in ("audio", "visual"):
        (tmp_path / "features" / stream).mkdir(parents=True)
    for n in range(24):
        label, first = ("drone", "Türklingel", "glass breaking")[n % 3], n % 2
        values = rng.normal(0, 0.1, (4, 6)).astype(np.float32)
        values[first : first + 2, n % 3] += 3
        for stream in ("audio", "visual"):
            np.save(tmp_path / "features" / stream / f"video {n}.npy", values)
        rows.append(f"video {n},{first * 0.5},{first * 0.5 + 1},{label}")
    (tmp_path / "events.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("task", "decoder", "metric"),
    [("avvp", "mmil", "video_F"), ("avel", "dch", "video_accuracy")],
)
def test_labels_of_whole_videos_alone_are_trained_on(own, task, decoder, metric, capsys):
    """What is found when is not measured, and one line says so."""
    cells = [row.split(",") for row in (own / "events.csv").read_text("utf-8").splitlines()[1:]]
    rows = ["video,labels", *(f"{cell[0]},{cell[3]}" for cell in cells)]
    (own / "events.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert import_own(own, task, *SEGMENTS) == 0
    assert "validation and test cannot be scored by segments" in capsys.readouterr().out
    assert verify_data(own / "store").ok
    weak = ["--decoder", decoder, "--supervision", "weak"]
    assert train(own, task, *weak, "--max-steps", "6", "--score-test", "--save-plots") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("the events of validation and test have no times: the epoch is chosen") == 1
    assert f"only {metric} is measured there" in said
    results = json.loads((own / "run" / "results.json").read_text())
    assert list(results["test"]) == [metric] and results["selection"]["metric"] == metric
    assert results["details"]["test"]["anchors"] and (own / "run" / "plots" / "curves.png").exists()
    assert metric in (own / "run" / "model" / "README.md").read_text()
    assert main(["eval", str(own / "run"), "--cpu"]) == 0
    assert metric in capsys.readouterr().out
    assert main(["eval", str(own / "run"), "--cpu", "--bootstrap", "100"]) == 2
    assert "have no times" in capsys.readouterr().err


def test_the_first_of_equal_epochs_is_kept_where_whole_videos_are_scored(own, monkeypatch):
    """A model that fits the labels of videos ever better finds their events everywhere."""
    from avplatform.tasks.avvp.metrics import AVVPMetrics

    scores = iter([50.0, 100.0, 100.0, 100.0])
    real = AVVPMetrics.compute
    monkeypatch.setattr(
        AVVPMetrics, "compute", lambda self: real(self) | {"video_F": next(scores, 100.0)}
    )
    text = (own / "events.csv").read_text("utf-8")
    cells = [row.split(",") for row in text.splitlines()[1:]]
    rows = ["video,labels", *(f"{cell[0]},{cell[3]}" for cell in cells)]
    (own / "events.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert import_own(own, "avvp", *SEGMENTS) == 0
    weak = ["--decoder", "mmil", "--supervision", "weak", "--epochs", "4", "--max-steps", "99"]
    assert train(own, "avvp", *weak) == 0
    results = json.loads((own / "run" / "results.json").read_text())
    assert results["selection"]["epoch"] == 2


def import_own(own, task, *flags, source="features", out="store"):
    command = ["data", "import", "table", str(own / source), *(["--task", task] if task else [])]
    events = ["--events", str(own / "events.csv"), "--out", str(own / out)]
    return main([*command, *events, *flags])


SEGMENTS = ["--segments", "4", "--segment", "0.5", "--split", "0.5,0.25,0.25"]


def train(own, task, *flags):
    run = ["train", "--task", task, "--encoder", "han", "--data", str(own / "store")]
    small = ["--encoder-config.width", "16", "--encoder-config.hidden", "16", "--cpu"]
    quick = ["--threads", "1", "--precision", "no", "--max-steps", "3", "--no-save-plots"]
    return main([*run, *small, *quick, *flags, "--output-dir", str(own / "run")])


def test_a_folder_of_features_has_the_task_of_extract_where_none_is_given(own):
    assert import_own(own, None, *SEGMENTS) == 0
    assert Manifest.read(own / "store").spec.task == "avvp"


@pytest.mark.parametrize(
    ("task", "flags"),
    [
        ("avvp", ["--decoder", "mmil"]),
        ("avvp", ["--decoder", "mmil", "--supervision", "weak"]),
        ("avel", ["--decoder", "dch"]),
        ("avel", ["--decoder", "dch", "--supervision", "weak"]),
    ],
)
def test_both_tasks_are_trained_and_scored_on_listed_events(own, task, flags, capsys):
    assert import_own(own, task, *SEGMENTS) == 0
    assert "videos divided by 0.5,0.25,0.25 (seed 0): train 12" in capsys.readouterr().out
    assert verify_data(own / "store").ok
    spec = Manifest.read(own / "store").spec
    assert spec.classes[:3] == ["drone", "glass breaking", "Türklingel"]
    assert (spec.segments, spec.segment_seconds) == (4, 0.5)
    assert train(own, task, *flags) == 0
    assert "test" in json.loads((own / "run" / "results.json").read_text())


def test_clips_without_times_are_trained_on_where_others_can_be_scored(own, capsys):
    head, *rows = (own / "events.csv").read_text(encoding="utf-8").splitlines()
    cells = [row.split(",") for row in rows]
    splits = ["train"] * 16 + ["validation"] * 4 + ["test"] * 4
    lines = [
        ",".join([c[0], *([c[1], c[2]] if split != "train" else ["", ""]), c[3], split])
        for c, split in zip(cells, splits, strict=True)
    ]
    table = own / "events.csv"
    table.write_text("\n".join([f"{head},split", *lines]) + "\n", encoding="utf-8")
    assert import_own(own, "avvp", *SEGMENTS[:4]) == 0
    assert "the events of train have no times" in capsys.readouterr().out
    assert verify_data(own / "store").ok
    assert train(own, "avvp", "--decoder", "mmil") == 1
    assert "no 'pseudo_audio' labels; use data with pseudo-labels" in capsys.readouterr().err
    assert train(own, "avvp", "--decoder", "mmil", "--supervision", "weak") == 0
    (own / "store").rename(own / "avvp")
    (own / "run").rename(own / "first")
    assert import_own(own, "avel", *SEGMENTS[:4]) == 0
    assert train(own, "avel", "--decoder", "dch") == 1
    assert "the training clips have no 'segment' labels" in capsys.readouterr().err
    assert train(own, "avel", "--decoder", "dch", "--supervision", "weak") == 0
    weak = ["video,label", *(f"{c[0]},{c[3]}" for c in cells)]
    table.write_text("\n".join(weak) + "\n", encoding="utf-8")
    assert import_own(own, "avvp", *SEGMENTS, out="weak") == 0
    assert "validation and test cannot be scored by segments" in capsys.readouterr().out
    (own / "store").rename(own / "other")
    (own / "weak").rename(own / "store")
    assert verify_data(own / "store").ok


def test_a_store_is_labelled_anew_with_its_own_features_and_splits(own, capsys):
    assert import_own(own, "avvp", *SEGMENTS) == 0
    assert import_own(own, "avel", source="store", out="again") == 0
    stores = {
        task: open_data(str(own / name), task=task)
        for task, name in (("avvp", "store"), ("avel", "again"))
    }
    for split in ("train", "validation", "test"):
        one, other = (stores[task].split(split) for task in ("avvp", "avel"))
        assert one.clip_ids == other.clip_ids
        first, second = one.batch(range(len(one))), other.batch(range(len(other)))
        assert (np.asarray(first.audio) == np.asarray(second.audio)).all()
        both = np.asarray(first.labels["dense_audio"])  # [N, T, C]
        segment = np.asarray(second.labels["segment"])
        assert (np.where(both.any(-1), both.argmax(-1), 3) == segment).all()
    capsys.readouterr()
    assert import_own(own, "avel", "--segments", "5", source="store", out="other") == 2
    assert "the clips of" in capsys.readouterr().err


def test_a_longer_video_becomes_several_clips_of_one_split(own):
    for stream in ("audio", "visual"):
        long = np.arange(60, dtype=np.float32).reshape(10, 6)
        np.save(own / "features" / stream / "video 0.npy", long)
    assert import_own(own, "avvp", *SEGMENTS) == 0
    data = open_data(str(own / "store"), task="avvp")
    places = {}
    for split in data.splits:
        arrays = data.split(split)
        batch = arrays.batch(range(len(arrays)))
        places |= {
            clip: (split, np.asarray(batch.audio)[n]) for n, clip in enumerate(batch.clip_id)
        }
    clips = [f"video 0_{start}_{start + 2}" for start in (0, 2, 4)]
    assert len({places[clip][0] for clip in clips}) == 1
    values = np.concatenate([places[clip][1] for clip in clips])
    assert values[:10].reshape(-1).tolist() == list(range(60)) and not values[10:].any()
    assert import_own(own, "avel", source="store", out="again") == 0
    assert Manifest.read(own / "again").spec.segments == 4


def test_the_same_list_and_seed_give_the_same_store_in_any_order_of_rows(own):
    assert import_own(own, "avvp", *SEGMENTS) == 0
    head, *rows = (own / "events.csv").read_text(encoding="utf-8").splitlines()
    (own / "events.csv").write_text("\n".join([head, *rows[::-1]]) + "\n", encoding="utf-8")
    assert import_own(own, "avvp", *SEGMENTS, out="again") == 0
    assert import_own(own, "avvp", *SEGMENTS, "--seed", "1", out="other") == 0
    sums = [Manifest.read(own / name).checksum for name in ("store", "again", "other")]
    assert sums[0] == sums[1] != sums[2]


def test_verify_counts_labels_and_names_suspicious_ones(own):
    head, *rows = (own / "events.csv").read_text(encoding="utf-8").splitlines()
    rows += [f"video {n},0,2,music" for n in range(24)]
    (own / "events.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    assert import_own(own, "avvp", *SEGMENTS) == 0
    report = verify_data(own / "store")
    assert report.counts["clips by class"].startswith("music 24, drone 8")
    assert (
        report.counts["dense_audio"]
        == "48 events in 96 segments; 50% of these have several classes"
    )
    assert "drone and music 8" in report.counts["often together"]
    warned = {(f.kind, f.text.split()[0]) for f in report.warnings}
    assert ("class in every clip", "music;") in warned
    texts = [f.text for f in report.warnings if f.kind == "event that never varies"]
    assert any(text.startswith("dense_audio of music is in the same segments") for text in texts)
    assert not any("drone" in text for text in texts)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--events"], "--events is missing"),
        (["--covered", "0"], "covered is 0"),
        (["--segment", "0"], "segment is 0"),
        (["--split", "0.5,0.4"], "which add up to 1"),
        (["--separator", " "], "--separator is empty"),
        (["--annotations", "x"], "--annotations is for official files"),
        (["--task", "none"], "--task is 'none'"),
        (["--visual", "clip"], "--visual does nothing for table"),
    ],
)
def test_options_that_cannot_be_are_refused(own, flags, said, capsys):
    with pytest.raises(SystemExit) as ended:
        import_own(own, "avvp", *flags)
    assert ended.value.code == 2 and said in " ".join(capsys.readouterr().err.split())


def test_a_task_from_outside_says_what_its_labels_are(tmp_path, monkeypatch):
    from avplatform import FromEvents
    from avplatform.tasks.registry import TASKS

    class Dense(SimpleNamespace):
        __name__, name, streams = "Dense", "dense", "apart"
        from_events = FromEvents(
            labels={"events": "timed"},
            make=lambda heard, seen: {"events": ((heard > 0) & (seen > 0)).astype(np.uint8)},
        )

    monkeypatch.setitem(TASKS, "dense", Dense())
    made = labels_of(tmp_path, ["a,0,2,dog,av", "a,1,3,cat,audio"], task="dense")
    assert made.spec["labels"] == {"events": [10, 2]} and made.spec["classes"] == ["cat", "dog"]
    (clip,) = made.labels("a", [(0.0, 10.0)], duration=10)
    assert np.argwhere(clip["events"]).tolist() == [[0, 1], [1, 1]]


def test_a_task_that_events_do_not_teach_says_so(tmp_path, monkeypatch):
    from avplatform.tasks.registry import TASKS

    class Silent(SimpleNamespace):
        from_events = None
        __name__ = "Silent"

    monkeypatch.setitem(TASKS, "silent", Silent())
    with pytest.raises(UsageError, match="Silent does not define `from_events`"):
        labels_of(tmp_path, ["a,0,1,dog,av"], task="silent")
