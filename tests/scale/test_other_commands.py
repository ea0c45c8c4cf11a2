"""The nodes of a cluster predict, make pseudo-labels and train the runs of a sweep."""

from __future__ import annotations

import os
import shutil

import pytest
import yaml

from avplatform.cli import main
from avplatform.scale.notes import Notes
from tests.pseudo_labels.files import arrays, llp_folder
from tests.scale.conftest import bytes_of, on

pytestmark = pytest.mark.slow


def test_nodes_predict_what_one_machine_predicts(trained, cluster, tmp_path, capsys):
    folder, flags = trained
    videos = tmp_path / "videos"
    shutil.copytree(folder / "videos", videos)
    (videos / "text.mp4").write_text("no video")
    out = tmp_path / "nodes"
    args = ["predict", str(videos), "--out", str(out), *flags]
    assert main([*args, *on(cluster)]) == 1
    said = capsys.readouterr().out
    assert "8 videos done, 1 not" in said and "text.mp4" in said
    given = list(map(str, sorted(videos.iterdir())))
    together, alone = tmp_path / "together", tmp_path / "alone"
    args = ["predict", *given, "--out", str(together), *flags, "--threads", "1"]
    assert main(args) == 1
    for video in given:  # several videos in a batch may change the last digits of a score
        main(["predict", video, "--out", str(alone), *flags, "--threads", "1"])
    nodes, expected = bytes_of(out), bytes_of(alone)
    assert sorted(nodes) == sorted(expected)
    assert [name for name in expected if nodes[name] != expected[name]] == []
    assert {f"clip{n}/events.json" for n in range(8)} <= set(expected)
    batched = bytes_of(together)
    assert list(batched) == list(nodes)
    same = (".csv", "summary.json")
    assert [name for name in nodes if name.endswith(same) and nodes[name] != batched[name]] == []


def test_what_is_noted_is_not_done_again(tmp_path):
    notes, done = Notes(folder=tmp_path / "notes", made_by={"model": "x"}), []

    def work(item):
        done.append(item["name"])
        return f"did {item['name']}"

    item = {"key": notes.key("a.mp4", 3), "name": "a.mp4"}
    assert notes.read(item["key"]) is None
    assert [notes.taking(work)(item) for _ in range(2)] == ["did a.mp4"] * 2
    assert done == ["a.mp4"] and notes.read(item["key"]) == "did a.mp4"
    assert notes.key("a.mp4", 4) != item["key"]
    assert Notes(folder=notes.folder, made_by={"model": "y"}).key("a.mp4", 3) != item["key"]
    assert notes.known() == {item["key"]}
    notes.remove()
    assert notes.read(item["key"]) is None and notes.known() == set()


def test_nodes_make_the_pseudo_labels_of_one_machine(cluster, tmp_path, capsys):
    llp_folder(tmp_path / "llp")
    arrays(tmp_path / "visual", (10, 25), loc=17, scale=3)
    arrays(tmp_path / "audio", (10, 25), seed=1, loc=2, scale=3)
    next((tmp_path / "audio").glob("*.npy")).unlink()
    given = ["--annotations", str(tmp_path / "llp"), "--visual-logits", str(tmp_path / "visual")]
    given += ["--audio-logits", str(tmp_path / "audio"), "--save-logits"]
    assert main(["pseudo-label", *given, "--out", str(tmp_path / "one")]) == 1
    args = ["pseudo-label", *given, "--out", str(tmp_path / "nodes"), *on(cluster)]
    assert main(args) == 1
    assert "audio: 2 of 3 clips labelled" in capsys.readouterr().out
    assert bytes_of(tmp_path / "nodes") == bytes_of(tmp_path / "one")
    assert main(args) == 1
    assert bytes_of(tmp_path / "nodes") == bytes_of(tmp_path / "one")


def test_the_runs_of_a_sweep_are_trained_on_nodes(small_stores, cluster, tmp_path, capsys):
    base = {"task": "avel", "data": str(small_stores["avel"]), "max_steps": 2, "batch_size": 4}
    base |= {"cpu": True, "save_plots": False}
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump({"base": base, "axes": {"optim.lr": [1e-4, 1e-3]}, "seeds": 1}))
    args = ["sweep", str(file), "--out", str(tmp_path / "runs"), *on(cluster)]
    assert main(args) == 0
    said = capsys.readouterr().out
    assert "2 finished now, 0 before, 0 failed" in said
    lines = (tmp_path / "runs" / "ledger.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert main(args) == 0
    assert "0 finished now, 2 before, 0 failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "said"),
    [("--jobs", "is for this machine alone"), ("--worker-seconds", "bounds no run of a sweep")],
)
def test_a_sweep_on_a_cluster_refuses_options_that_it_cannot_keep(tmp_path, capsys, flag, said):
    file = tmp_path / "sweep.yaml"
    file.write_text("base: {task: avel}\nseeds: 1\n")
    assert main(["sweep", str(file), flag, "2", "--engine", "ray"]) == 2
    assert f"{flag} {said}" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["sweep.yaml"]
