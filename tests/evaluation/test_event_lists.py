"""Event lists of any system score as the platform's own runs do."""

import importlib.util
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from avplatform.cli import main
from avplatform.data.adapters.table.events import Event
from avplatform.data.adapters.table.labels import EventLabels
from avplatform.data.adapters.table.options import EventOptions
from avplatform.evaluation.event_lists import (
    collar_figures,
    read_lists,
    segment_figures,
    spans,
)
from avplatform.models.errors import DataError
from avplatform.tasks.avvp.metrics import AVVPMetrics
from avplatform.tasks.batch import Batch
from tests.data.event_files import csv_file
from tests.timeline.examples import example

LABELS = ("dog", "train horn", "Speech")
HEADER = "video,onset,offset,label,stream\n"


def random_events(seed, *, videos=12, seconds=10.0):
    generator, found = np.random.default_rng(seed), []
    for number in range(videos):
        for _ in range(generator.integers(1, 5)):
            onset, offset = sorted(generator.uniform(0, seconds, 2).round(1).tolist())
            found.append(Event(
                video=f"clip{number}", label=LABELS[generator.integers(3)],
                onset=onset, offset=max(offset, onset + 0.5),
                stream=("audio", "visual", "av")[generator.integers(3)],
            ))  # fmt: skip
    return [replace(e, offset=min(e.offset, seconds)) for e in found if e.onset < seconds - 0.5]


def two_lists(folder, predicted, true):
    for name, events in (("predicted", predicted), ("true", true)):
        (folder / name).mkdir(parents=True)
        csv_file(events, folder / name)
    return folder / "predicted/events.csv", folder / "true/events.csv"


def own_figures(predicted_file, true_file, seconds, segment):
    """The figures of the task's accumulator on labels that the import makes of both lists."""
    labels = {}
    for name, file in (("predicted", predicted_file), ("true", true_file)):
        videos = [f"clip{n}" for n in range(12)]
        made = EventLabels(
            EventOptions(events=(str(file),), segment=segment),
            videos=videos, task="avvp", segments=round(seconds / segment), split="test",
        )  # fmt: skip
        assert made.classes == sorted(LABELS, key=str.casefold)
        nothing = np.zeros((round(seconds / segment), len(LABELS)), np.uint8)
        rows = [
            made.labels(v, [(0, seconds)], duration=seconds)[0]
            if v in made.table.videos
            else {"dense_audio": nothing, "dense_visual": nothing, "weak": nothing.max(0)}
            for v in videos
        ]
        labels[name] = {
            key: torch.from_numpy(np.stack([row[key] for row in rows]))
            for key in ("dense_audio", "dense_visual", "weak")
        }
    metrics = AVVPMetrics(LABELS)
    maps = labels["predicted"]
    decisions = {"audio": maps["dense_audio"].bool(), "visual": maps["dense_visual"].bool(),
                 "video": maps["weak"].bool()}  # fmt: skip
    empty = torch.zeros(12, 0)
    batch = Batch(
        audio=empty, visual=empty, motion=None, row=torch.arange(12), clip_id=videos,
        labels=labels["true"],
    )  # fmt: skip
    metrics.update(decisions, batch)
    return metrics.compute()


@pytest.mark.parametrize(("seed", "segment"), [(0, 1.0), (1, 1.0), (2, 0.5), (3, 2.0)])
def test_lists_score_as_the_metrics_of_the_task(tmp_path, seed, segment):
    files = two_lists(tmp_path, random_events(seed), random_events(seed + 100))
    found = segment_figures(read_lists(*files), segment=segment)
    own = own_figures(*files, 10.0, segment)
    assert found.keys() == own.keys() and len(found) == 10
    assert found == pytest.approx(own, abs=1e-9) and 0 < found["event_AV"] < 100


def test_the_truth_scores_100_and_nothing_predicted_scores_0(tmp_path):
    true = random_events(5)
    files = two_lists(tmp_path, true, true)
    assert set(segment_figures(read_lists(*files)).values()) == {100.0}
    (tmp_path / "predicted/events.csv").write_text(HEADER + "clip0,,,,\n")
    nothing = read_lists(*files)
    assert "12 videos without a predicted event" in nothing.remarks[-1]
    assert segment_figures(nothing)["segment_A"] < 50


def test_scores_do_not_depend_on_how_many_videos_are_scored_at_once(tmp_path, monkeypatch):
    lists = read_lists(*two_lists(tmp_path, random_events(7), random_events(8)))
    whole = segment_figures(lists)
    monkeypatch.setattr("avplatform.evaluation.event_lists.CELLS", 50)
    assert segment_figures(lists) == pytest.approx(whole, abs=1e-9)


def test_names_and_spellings_match_and_are_told(tmp_path):
    true, predicted = tmp_path / "true.csv", tmp_path / "predicted.csv"
    true.write_text(HEADER + "dog1.mp4,0,3,Train_horn,audio\nquiet,,,,\nmissed,1,2,dog,av\n")
    predicted.write_text(
        HEADER + "clips/dog1.wav,0,3,train horn,audio\nother,0,1,dog,av\n"
        "quiet,0,1,cat,audio\nquiet,2,2.2,dog,audio\n"
    )
    lists = read_lists(predicted, true)
    assert lists.videos == ["dog1", "missed", "quiet"]
    assert [e.label for e in lists.predicted["dog1"]] == ["Train_horn"]
    figures = segment_figures(lists)
    assert figures["segment_A"] == pytest.approx(100 / 3)  # clips: 1, 0 and 0
    said = "\n".join(lists.remarks)
    assert "'train horn' is read as 'Train_horn' (line 2)" in said
    assert "1 predicted video without truth, not scored: other" in said
    assert "1 video without a predicted event: missed" in said
    assert "predicted, but never true: cat" in said
    assert "1 predicted event cover" in said


@pytest.mark.parametrize(
    ("predicted", "told"),
    [
        ("other,0,1,dog,av", "no event of a video in .*'other', where that has 'a'"),
        ("a,,,dog,av", "predicted.csv, line 2: the event 'dog' has no times"),
        ("a,0,5000000,dog,av", "line 2: .* ends at 5e.06 s, after more than a day"),
        ("a,3,1,dog,av", "line 2: .*ends before it begins"),
    ],
)
def test_what_cannot_be_scored_is_told_with_file_and_line(tmp_path, predicted, told):
    (tmp_path / "true.csv").write_text(HEADER + "a,0,1,dog,av\n")
    (tmp_path / "predicted.csv").write_text(f"{HEADER}{predicted}\n")
    with pytest.raises(DataError, match=told):
        read_lists(tmp_path / "predicted.csv", tmp_path / "true.csv")


def test_the_command_scores_the_folder_of_predict(tmp_path, capsys):
    out = tmp_path / "predictions"
    for name in ("one", "two"):
        found = example(video=f"clips/{name}.mp4")
        if name == "two":
            found.events = []
        found.save(out / name)
    (out / "summary.json").write_text("{}")
    rows = [f"one,{e.onset},{e.offset},{e.label},{e.stream}" for e in example().events]
    (tmp_path / "true.csv").write_text(HEADER + "\n".join([*rows, "two,,,,"]) + "\n")
    flags = ["--truth", str(tmp_path / "true.csv"), "--json", str(tmp_path / "scores.json")]
    assert main(["score", str(out), *flags]) == 0
    content = json.loads((tmp_path / "scores.json").read_text())
    assert set(content["figures"].values()) == {100.0} and content["videos"] == 2
    assert "segment" in capsys.readouterr().out and "collar" not in content


def test_events_of_a_lower_score_are_left_out_and_counted(tmp_path, capsys):
    head = HEADER.replace("stream", "stream,score")
    (tmp_path / "true.csv").write_text(HEADER + "a,0,1,dog,av\nb,0,1,dog,av\n")
    rows = "a,0,1,dog,av,0.9\na,3,9,dog,av,0.2\nb,0,1,dog,av,0.5\n"
    (tmp_path / "predicted.csv").write_text(head + rows)
    files = [str(tmp_path / "predicted.csv"), "--truth", str(tmp_path / "true.csv")]
    json_file = tmp_path / "scores.json"
    found = {}
    for threshold in (None, "0.5", "0.95"):
        flags = ["--threshold", threshold] if threshold else []
        assert main(["score", *files, *flags, "--json", str(json_file)]) == 0
        found[threshold] = json.loads(json_file.read_text())
    said = capsys.readouterr().out
    assert "1 predicted event of a score below 0.5 left out" in said
    assert [c["events"]["predicted"] for c in found.values()] == [3, 2, 0]
    assert found["0.5"]["figures"]["segment_A"] == 100 > found[None]["figures"]["segment_A"]
    assert found["0.95"]["figures"]["segment_A"] == 0
    (tmp_path / "predicted.csv").write_text(head + rows + "b,2,3,dog,av,\n")
    assert main(["score", *files, "--threshold", "0.5"]) == 1
    said = capsys.readouterr().err
    assert "predicted.csv, line 5: the event 'dog' has no score to compare with --threshold" in said
    assert main(["score", *files]) == 0


def test_impossible_options_are_refused(tmp_path, capsys):
    for flags in (["--segment", "0"], ["--covered", "2"], ["--collar", "-1"]):
        assert main(["score", "x.csv", "--truth", "y.csv", *flags]) == 2
        assert flags[0].strip("-") in capsys.readouterr().err
    assert main(["score", "x.csv", "--truth", "y.csv"]) == 1
    assert "no file y.csv" in capsys.readouterr().err


def test_a_joint_event_is_heard_and_seen_at_once(tmp_path):
    rows = [
        Event(video="a", label="dog", onset=0.0, offset=4.0, stream="audio"),
        Event(video="a", label="dog", onset=3.0, offset=6.0, stream="visual"),
        Event(video="a", label="dog", onset=5.0, offset=7.0, stream="av"),
    ]
    found = {s: spans({"a": rows}, s)["a", "dog"] for s in ("audio", "visual", "av")}
    assert found == {"audio": [(0, 4), (5, 7)], "visual": [(3, 7)], "av": [(3, 4), (5, 7)]}


@pytest.mark.skipif(
    importlib.util.find_spec("sed_eval") is None, reason="needs sed_eval (extra: score)"
)
def test_collars_are_those_of_sed_eval(tmp_path):
    true, predicted = tmp_path / "true.csv", tmp_path / "predicted.csv"
    true.write_text(HEADER + "a,0,1,dog,audio\na,2,3,dog,audio\nb,0,1,cat,visual\n")
    predicted.write_text(HEADER + "a,0.1,1.1,dog,audio\na,2.3,3,dog,audio\nb,0,1,cat,visual\n")
    lists = read_lists(predicted, true)
    found = collar_figures(lists, collar=0.2)
    assert found["audio"]["micro_F"] == pytest.approx(50)
    assert found["visual"]["micro_F"] == pytest.approx(100)
    assert found["av"]["micro_F"] in (None, 0)
    assert collar_figures(lists, collar=0.4)["audio"]["micro_F"] == pytest.approx(100)


def test_without_sed_eval_the_remedy_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sed_eval", None)
    monkeypatch.setitem(sys.modules, "sed_eval.sound_event", None)
    (tmp_path / "true.csv").write_text(HEADER + "a,0,1,dog,av\n")
    flags = [str(tmp_path / "true.csv"), "--truth", str(tmp_path / "true.csv"), "--collar", "0.2"]
    assert main(["score", *flags]) == 2
    assert 'pip install "avplatform[score]"' in capsys.readouterr().err
