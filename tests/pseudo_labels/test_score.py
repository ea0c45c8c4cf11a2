"""`avplatform pseudo-label score`: ten figures of a label folder against dense annotations."""

import json
import os

import numpy as np
import pytest

from avplatform.cli import main
from avplatform.pseudo_labels.dataset import DATASET
from avplatform.pseudo_labels.make import FOLDERS
from tests.pseudo_labels.files import llp_folder
from tests.tasks.test_avvp import real

TEST = "ccccccccccc"
WEAK_COPY = {
    "segment": [76.118, 60.348, 52.610, 63.025, 71.726],
    "event": [63.027, 55.753, 44.692, 54.491, 61.601],
}
COLUMNS = ("A", "V", "AV", "Type@AV", "Event@AV")


def write_labels(folder, videos, maps, modalities=("visual", "audio")):
    for modality in modalities:
        place = folder / FOLDERS[modality]
        place.mkdir(parents=True)
        for video, values in zip(videos, maps, strict=True):
            np.save(place / f"{video}.npy", values.astype(np.int64))
    return folder


@real
def test_the_weak_labels_of_all_real_test_videos_score_their_known_figures(tmp_path, capsys):
    annotations = DATASET.read(os.environ["AVP_LLP_DIR"])
    rows = annotations.splits["test"]
    videos = [DATASET.video_of(annotations.clip_ids[row]) for row in rows]
    maps = np.repeat(annotations.labels["weak"][rows][:, None, :], 10, axis=1)
    assert len(rows) == 1200
    write_labels(tmp_path / "labels", videos, maps)
    command = [
        "pseudo-label",
        "score",
        str(tmp_path / "labels"),
        "--annotations",
        os.environ["AVP_LLP_DIR"],
    ]
    assert main([*command, "--json", str(tmp_path / "scores.json")]) == 0
    content = json.loads((tmp_path / "scores.json").read_text())
    assert content["clips"] == 1200 and content["missing"] == []
    shown = capsys.readouterr().out
    for level, values in WEAK_COPY.items():
        assert [round(content["figures"][f"{level}_{name}"], 3) for name in COLUMNS] == values
        for name, value in zip(COLUMNS, values, strict=True):
            (line,) = [line for line in shown.splitlines() if f" {level}_{name} " in line]
            assert f"{value:.1f}" in line


def dense_folder(tmp_path):
    """One test clip of three classes; its true maps as labels."""
    clip = f"{TEST}_101.8_111.8"
    llp_folder(tmp_path / "llp")
    head = "filename\tonset\toffset\tevent_labels\n"
    (tmp_path / "llp" / "AVVP_eval_audio.csv").write_text(f"{head}{clip}\t0\t4\tClapping\n")
    (tmp_path / "llp" / "AVVP_eval_visual.csv").write_text(f"{head}{clip}\t2\t6\tClapping\n")
    truth = DATASET.read(tmp_path / "llp")
    folder = tmp_path / "labels"
    write_labels(folder, [TEST], truth.labels["dense_audio"][2:], ["audio"])
    write_labels(folder, [TEST], truth.labels["dense_visual"][2:], ["visual"])
    return folder, ["pseudo-label", "score", str(folder), "--annotations", str(tmp_path / "llp")]


def test_true_maps_score_100_and_exchanged_maps_do_not(tmp_path, capsys):
    folder, command = dense_folder(tmp_path)
    assert main([*command, "--json", str(tmp_path / "a.json")]) == 0
    assert set(json.loads((tmp_path / "a.json").read_text())["figures"].values()) == {100.0}
    exchanged = [
        "--visual",
        str(folder / FOLDERS["audio"]),
        "--audio",
        str(folder / FOLDERS["visual"]),
    ]
    assert main([*command, *exchanged, "--json", str(tmp_path / "b.json")]) == 0
    figures = json.loads((tmp_path / "b.json").read_text())["figures"]
    assert figures["segment_A"] == figures["segment_V"] == 50.0 and figures["event_A"] == 0.0
    assert figures["segment_AV"] == 100.0
    assert main([*command, "--split", "validation"]) == 1
    assert "label files of split validation missing or wrong" in capsys.readouterr().err


def test_one_modality_gets_its_two_figures(tmp_path):
    folder, command = dense_folder(tmp_path)
    for file in (folder / FOLDERS["audio"]).iterdir():
        file.unlink()
    (folder / FOLDERS["audio"]).rmdir()
    assert main([*command, "--json", str(tmp_path / "a.json")]) == 0
    assert json.loads((tmp_path / "a.json").read_text())["figures"] == {
        "segment_V": 100.0,
        "event_V": 100.0,
    }


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda file: file.unlink(), "no file"),
        (lambda file: np.save(file, np.zeros((25, 10))), "instead of (10, 25)"),
        (lambda file: np.save(file, np.full((10, 25), 2)), "numbers other than 0 and 1"),
        (lambda file: file.write_bytes(b"x"), "cannot read"),
    ],
)
def test_clips_that_cannot_be_scored_are_listed(tmp_path, capsys, damage, reason):
    _, command = dense_folder(tmp_path)
    second = tmp_path / "llp" / "AVVP_test_pd.csv"
    second.write_text(second.read_text() + "ddddddddddd_0_10\tDog\n")
    for place in FOLDERS.values():
        np.save(tmp_path / "labels" / place / "ddddddddddd.npy", np.zeros((10, 25), np.int64))
    assert main([*command, "--json", str(tmp_path / "whole.json")]) == 0
    damage(tmp_path / "labels" / FOLDERS["visual"] / "ddddddddddd.npy")
    assert main([*command, "--json", str(tmp_path / "a.json")]) == 1
    assert "not scored: ddddddddddd_0_10: visual" in capsys.readouterr().out
    content = json.loads((tmp_path / "a.json").read_text())
    (missing,) = content["missing"]
    assert content["clips"] == 1 and missing["modality"] == "visual" and reason in missing["reason"]
    assert main([*command, "--strict"]) == 1
    assert "1 label file of split test missing or wrong" in capsys.readouterr().err


def test_folders_without_labels_are_refused(tmp_path, capsys):
    _, command = dense_folder(tmp_path)
    assert main([*command[:2], str(tmp_path / "nowhere"), *command[3:]]) == 1
    assert main([*command[:2], str(tmp_path / "llp"), *command[3:]]) == 1
    assert main([*command, "--visual", str(tmp_path / "nowhere")]) == 1
    error = capsys.readouterr().err
    assert error.count("no folder") == 2 and "neither CLIP/segment_pseudo_labels nor" in error
