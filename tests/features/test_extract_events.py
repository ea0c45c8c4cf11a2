"""`avplatform extract VIDEOS --events LIST`: from rendered videos to a labelled store."""

from __future__ import annotations

import json

import numpy as np
import pytest

from avplatform.cli import main
from avplatform.data import open_data
from avplatform.data.store.schema import Manifest
from avplatform.data.verify import verify_data
from avplatform.features import extractor as extractor_module
from avplatform.features.extractor import Extractor
from tests.features.clips import RATE, beep, render, standard
from tests.features.networks import SMALL, small_weights

TABLE = """video,onset,offset,label,stream
a.mp4,1,2,tone,audio
a,2,3,flash,visual
b,0:01.5,0:02.5,tone,audio
long,4,5,tone,audio
long,6.5,7.6,flash,visual
still
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("events")
    videos = place / "videos"
    videos.mkdir()
    standard(videos / "a.mp4", seconds=3, beep_at=1, flash_at=2)
    render(videos / "b.m4a", sound=beep(3, 1.5, 2.5))
    standard(videos / "long.mp4", seconds=8)
    standard(videos / "still.mp4", seconds=3, beep_at=9, flash_at=9)
    (videos / "events.csv").write_text(TABLE)  # beside the videos, and no video
    weights = small_weights(place)
    named = [f"vggish={weights['vggish']}", f"visual={weights['visual']}"]
    recipe = ["--backbones", "lite", "--audio", "vggish", "--visual", "timm:test_resnet"]
    return place, [*recipe, "--weights", *named, "--cpu", "--segments", "3", "--dtype", "float32"]


def extract(place, out, *flags, events=None):
    folder, recipe = place
    events = folder / "videos" / "events.csv" if events is None else events
    given = ["extract", str(folder / "videos"), "--out", str(out), "--events", str(events)]
    return main([*given, *recipe, *flags])


def labels_by_clip(store, task="avvp"):
    data, found = open_data(str(store), task=task), {}
    for split in data.splits:
        arrays = data.split(split)
        batch = arrays.batch(range(len(arrays)))
        for n, clip_id in enumerate(batch.clip_id):
            found[clip_id] = {name: np.asarray(v)[n] for name, v in batch.labels.items()}
    return found


def test_a_folder_and_a_table_become_a_store_of_own_classes(place, tmp_path, capsys):
    assert extract(place, tmp_path / "store", "--split", "test") == 0
    found = labels_by_clip(tmp_path / "store")
    assert set(found) == {"a", "b", "long_0_3", "long_3_6", "long_6_9", "still"}
    assert Manifest.read(tmp_path / "store").spec.classes == ["flash", "tone"]
    heard = {c: np.flatnonzero(v["dense_audio"][:, 1]).tolist() for c, v in found.items()}
    seen = {c: np.flatnonzero(v["dense_visual"][:, 0]).tolist() for c, v in found.items()}
    nothing = {"a": [], "b": [], "long_0_3": [], "long_3_6": [], "long_6_9": [], "still": []}
    assert heard == {**nothing, "a": [1], "b": [1, 2], "long_3_6": [1]}
    assert seen == {**nothing, "a": [2], "long_6_9": [0, 1]}
    assert not any(v["dense_audio"][:, 0].any() for v in found.values())
    assert verify_data(tmp_path / "store").ok and "0 files of 4 left out" in capsys.readouterr().out


def test_splits_are_made_by_video_and_said(place, tmp_path, capsys):
    assert extract(place, tmp_path / "store", "--split", "0.5,0.25,0.25", "--seed", "3") == 0
    output = capsys.readouterr().out
    assert "videos divided by 0.5,0.25,0.25 (seed 3): train 2, validation 1, test 1" in output
    assert "has no clip in" in output  # two classes of four videos do not reach all splits
    data = open_data(str(tmp_path / "store"), task="avvp")
    ids = {split: data.split(split).clip_ids for split in data.splits}
    assert sum(any(clip.startswith("long") for clip in clips) for clips in ids.values()) == 1
    provenance = data.spec.provenance
    assert set(provenance["annotations"]) == {"events.csv"} and provenance["rules"]["seed"] == 3


def test_half_seconds_are_segments_of_pictures_and_sound(place, tmp_path):
    flags = ["--segment", "0.5", "--segments", "6", "--split", "test"]
    assert extract(place, tmp_path / "store", *flags) == 0
    spec = Manifest.read(tmp_path / "store").spec
    assert (spec.segments, spec.segment_seconds) == (6, 0.5)
    found = labels_by_clip(tmp_path / "store")
    assert np.flatnonzero(found["b"]["dense_audio"][:, 1]).tolist() == [3, 4]
    assert set(found) == {"a", "b", "long_0_3", "long_3_6", "long_6_9", "still"}
    arrays = open_data(str(tmp_path / "store"), task="avvp").split("test")
    batch = arrays.batch(range(len(arrays)))
    (n,) = [n for n, clip in enumerate(batch.clip_id) if clip == "a"]
    visual = np.asarray(batch.visual)[n]
    far = np.abs(visual - visual[0]).sum(-1)
    assert far[4:].min() > 10 * max(far[:4].max(), 1e-6)  # the flash is in the third second
    audio = np.asarray(batch.audio)[n]
    moved = np.abs(audio - audio[5]).sum(-1)
    assert moved[[2, 3]].min() > moved[5] and moved[2:4].sum() > moved[[0, 5]].sum()


@pytest.mark.parametrize(
    ("each", "heard"), [(0.25, {6, 7, 8, 9}), (0.5, {3, 4}), (2.0, {0, 1}), (1.5, {1})]
)
def test_each_segment_is_heard_where_it_lies(each, heard, place, tmp_path, monkeypatch):
    """The inputs of the audio network hold the tone from 1.5 to 2.5 s around their own middle."""
    found = []
    add = extractor_module._Batcher.add

    def noted(self, item, clip, out, segment, share):
        if self.backbone.rate:
            found.append((segment, share, item))
        add(self, item, clip, out, segment, share)

    monkeypatch.setattr(extractor_module._Batcher, "add", noted)
    weights = small_weights(tmp_path)
    extractor = Extractor(SMALL, weights, segment_seconds=each)
    extractor.audio.items = lambda samples, count: samples.reshape(count, -1)
    extractor.audio.run = lambda items: items.abs().mean(1, keepdim=True).expand(-1, 8)
    render(tmp_path / "b.wav", sound=beep(3, 1.5, 2.5), sound_codec="pcm_s16le")
    clip = extractor.clip(tmp_path / "b.wav")
    shares = {}
    for segment, share, _ in found:
        shares[segment] = shares.get(segment, 0) + share
    assert shares == pytest.approx(dict.fromkeys(range(round(3 / each)), 1.0))
    assert set(np.flatnonzero(clip.audio[:, 0] > clip.audio[:, 0].max() * 0.45).tolist()) >= heard
    assert all(len(item) == extractor.audio.rate for _, _, item in found) and RATE


def test_what_the_list_and_the_folder_do_not_share_is_left_out_and_named(place, tmp_path, capsys):
    rows = TABLE.replace("still\n", "stil\n").replace("long,4,5,tone", "long,4000,5000,tone")
    (tmp_path / "events.csv").write_text(rows)
    events = tmp_path / "events.csv"
    assert extract(place, tmp_path / "store", "--split", "test", events=events) == 1
    output = " ".join(capsys.readouterr().out.split())
    assert f"{events}, line 7: there is no video 'stil'; did you mean 'still'?" in output
    assert "still.mp4: the list of events does not have 'still'" in output
    assert f"{events}, line 5: the event 'tone' (4000 to 5000 s) lies beyond the end" in output
    assert set(labels_by_clip(tmp_path / "store")) == {"a", "b"}
    report = json.loads((tmp_path / "store" / "extract_report.json").read_text())
    assert len(report["bad"]) == 2 and len(report["labels"]["unknown"]) == 1


def test_a_fault_of_the_list_is_found_before_anything_is_extracted(place, tmp_path, capsys):
    (tmp_path / "events.csv").write_text(TABLE.replace("a,2,3", "a,3,2"))
    assert extract(place, tmp_path / "store", events=tmp_path / "events.csv") == 1
    assert f"{tmp_path / 'events.csv'}, line 3: the event 'flash' ends" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "events.csv"]


def test_videos_without_events_may_be_listed_apart(place, tmp_path):
    (tmp_path / "events.csv").write_text(TABLE.replace("still\n", ""))
    (tmp_path / "names.txt").write_text("still.mp4\na.mp4\n")
    flags = ["--split", "train", "--videos", str(tmp_path / "names.txt")]
    assert extract(place, tmp_path / "store", *flags, events=tmp_path / "events.csv") == 0
    assert not labels_by_clip(tmp_path / "store")["still"]["weak"].any()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--annotations", "x"], "--events cannot be given with --annotations"),
        (["--covered", "2"], "covered is 2"),
        (["--split", "0.5,0.1"], "add up to 1"),
    ],
)
def test_options_of_events_are_checked(place, tmp_path, flags, said, capsys):
    assert extract(place, tmp_path / "store", *flags) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--covered", "0.3"], ["--videos", "x"], ["--seed", "2"]])
def test_options_of_events_do_nothing_without_them(place, tmp_path, flags, capsys):
    folder, recipe = place
    command = ["extract", str(folder / "videos"), "--out", str(tmp_path / "x"), *recipe, *flags]
    assert main(command) == 2
    assert "is for events; give them with --events" in capsys.readouterr().err
