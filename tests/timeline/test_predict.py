"""`avplatform predict` on files that the tests write: bad ones are listed, names never collide."""

import json
import os
import re

import numpy as np
import pytest

pytest.importorskip("av", reason="needs PyAV (pip install avplatform[media])")

from avplatform.base.console import named
from avplatform.cli import main
from avplatform.commands.predict import find_videos
from avplatform.config.run import default_config
from avplatform.features import media
from avplatform.features.extractor import Extractor
from avplatform.features.media import probe
from avplatform.timeline import pipeline as module
from avplatform.timeline import reading
from avplatform.timeline.folders import FILES, write_summary
from tests.features.networks import SMALL, small_weights
from tests.models.cells import FEATURES, build, build_cell
from tests.timeline.examples import write_clip
from tests.timeline.test_pipeline import Clip


class Loudness:
    """Features are each second's loudness and brightness: enough to see that seconds stay put."""

    def clip(self, path, start=0.0, seconds=None):
        from avplatform.features.media import read_frames, read_waveform

        info, spec = probe(path), FEATURES["avvp"]
        count = max(1, round(info.duration))
        audio, visual = (
            np.zeros((count, spec.audio_dim), np.float32),
            np.zeros((count, spec.visual_dim), np.float32),
        )
        if info.has_audio:
            wave = np.abs(read_waveform(path, 8000))
            audio[:] = [[wave[8000 * n : 8000 * (n + 1)].mean()] for n in range(count)]
        if info.has_video:
            frames = read_frames(path, [n + 0.5 for n in range(count)], 16)
            visual[:] = frames.reshape(count, -1).mean(axis=1, keepdims=True) / 255
        motion = np.zeros((count, spec.motion_dim), np.float32)
        return Clip(audio, visual, motion, info.has_audio, info.has_video)


@pytest.fixture(autouse=True)
def small_extractor(monkeypatch):
    monkeypatch.setattr(module, "extractor_of_model", lambda *_, **__: Loudness())


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for decoder in ("leap", "mmil"):
        build("avvp", "han", decoder).save_pretrained(folder / decoder)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "a.webm", seconds=3.0, fps=10)
    return folder


def predict(*args, model):
    return main(["predict", *map(str, args), "--model", str(model), "--cpu", "--threads", "1"])


def test_a_video_is_probed_once(clips, tmp_path, monkeypatch, capsys):
    extractor = Extractor(SMALL, small_weights(tmp_path))
    monkeypatch.setattr(module, "extractor_of_model", lambda *_, **__: extractor)
    monkeypatch.setattr(reading, "CHUNK", 1)  # three parts of three seconds
    probed, length_of = [], media.length_of
    monkeypatch.setattr(media, "length_of", lambda file: probed.append(file) or length_of(file))
    config = default_config("avvp", "han", "mmil", "weak")
    build_cell(config, extractor.features).model.save_pretrained(tmp_path / "model")
    out = tmp_path / "out"
    assert predict(clips / "a.webm", "--out", out, model=tmp_path / "model") == 0
    assert len(json.loads((out / "a" / "events.json").read_text())["scores"]["audio"]) == 3
    assert len(probed) == 1


def test_a_video_becomes_a_folder_with_every_format(models, clips, tmp_path, capsys):
    assert (
        predict(
            clips / "a.webm", "--out", tmp_path / "out", "--threshold", "0", model=models / "leap"
        )
        == 0
    )
    assert sorted(f.name for f in (tmp_path / "out" / "a").iterdir()) == sorted(FILES)
    content = json.loads((tmp_path / "out" / "a" / "events.json").read_text())
    assert content["about"]["has_audio"] and content["duration"] == pytest.approx(3.0, abs=0.1)
    assert len(content["events"]) == 75 and len(content["scores"]["av"]) == 3
    page = (tmp_path / "out" / "a" / "timeline.html").read_text()
    source = re.search(r'<video[^>]* src="([^"]+)"', page)[1]
    assert (tmp_path / "out" / "a" / source).resolve() == (clips / "a.webm").resolve()
    assert "75 events (audio 25, visual 25, av 25)" in capsys.readouterr().out


def test_the_same_call_writes_the_same_files(models, clips, tmp_path):
    written = []
    for _ in range(2):
        assert predict(clips / "a.webm", "--out", tmp_path / "out", model=models / "leap") == 0
        written.append({name: (tmp_path / "out" / "a" / name).read_bytes() for name in FILES})
    assert written[0] == written[1]


def test_good_videos_are_done_and_bad_ones_listed_with_the_reason(models, clips, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    whole = (clips / "a.webm").read_bytes()
    (folder / "good.webm").write_bytes(whole)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video")
    (folder / "cut.webm").write_bytes(whole[:200])
    (folder / ".hidden").write_text("x")
    assert (
        predict(folder, tmp_path / "gone.mp4", "--out", tmp_path / "out", model=models / "leap")
        == 1
    )
    out = capsys.readouterr().out
    assert "1 video done, 4 not" in out and "Traceback" not in out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [entry["folder"] for entry in summary["done"]] == ["good"]
    reasons = {entry["video"].rsplit("/", 1)[-1]: entry["reason"] for entry in summary["not_done"]}
    assert set(reasons) == {"empty.mp4", "text.mp4", "cut.webm", "gone.mp4"}
    assert all(reasons.values()) and "no such file" in reasons["gone.mp4"]
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["good", "summary.json"]


def test_an_unforeseen_error_costs_one_video_only(models, clips, tmp_path, capsys, monkeypatch):
    (tmp_path / "b.webm").write_bytes((clips / "a.webm").read_bytes())
    right = Loudness.clip

    def sometimes(self, path, **options):
        if str(path).endswith("b.webm"):
            raise RuntimeError("a strange\nthing")
        return right(self, path, **options)

    monkeypatch.setattr(Loudness, "clip", sometimes)
    assert (
        predict(
            tmp_path / "b.webm", clips / "a.webm", "--out", tmp_path / "out", model=models / "leap"
        )
        == 1
    )
    assert "RuntimeError: a strange thing" in capsys.readouterr().out
    assert (tmp_path / "out" / "a" / "timeline.html").is_file()


def test_too_little_memory_for_a_video_is_told_as_such(
    models, clips, tmp_path, capsys, monkeypatch
):
    def too_much(self, path, **options):
        raise MemoryError

    monkeypatch.setattr(Loudness, "clip", too_much)
    assert predict(clips / "a.webm", "--out", tmp_path / "out", model=models / "leap") == 1
    assert "it needs more memory than there is (MemoryError)" in capsys.readouterr().out


def test_names_that_collide_get_folders_of_their_own(tmp_path):
    for name in ("one/clip.mp4", "two/clip.mp4", "two/clip.avi", "two/Clip.mkv", "two/clip-2.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    given = [
        str(tmp_path / "one" / "clip.mp4"),
        str(tmp_path / "two"),
        str(tmp_path / "one" / ".." / "one" / "clip.mp4"),
    ]
    jobs, failed = find_videos(given)
    assert not failed and len(jobs) == 5
    names = [name for _, name in jobs]
    assert len({name.lower() for name in names}) == 5 and names[0] == "clip"
    assert find_videos([str(tmp_path / "nothing")])[1] == [
        (str(tmp_path / "nothing"), "there is no such file")
    ]
    (tmp_path / "hollow").mkdir()
    assert find_videos([str(tmp_path / "hollow")])[1] == [
        (str(tmp_path / "hollow"), "the folder holds no video or sound file")
    ]


def test_texts_beside_the_videos_of_a_folder_are_passed_over(tmp_path):
    for name in ("clip.mp4", "notes.txt", ".hidden.mp4"):
        (tmp_path / name).write_text("x")
    assert find_videos([str(tmp_path)]) == ([(tmp_path / "clip.mp4", "clip")], [])
    assert find_videos([str(tmp_path / "notes.txt")]) == ([(tmp_path / "notes.txt", "notes")], [])


def test_a_reason_names_its_file_once():
    assert named("a.mp4", "a.mp4 is empty") == "a.mp4 is empty"
    assert named("a.mp4", "there is no such file") == "a.mp4: there is no such file"


@pytest.mark.parametrize(
    ("present", "said"), [("audio", "the file has no pictures"), ("video", "the file has no sound")]
)
def test_files_with_one_stream_are_parsed(models, tmp_path, capsys, present, said):
    file = write_clip(
        tmp_path / "one.webm",
        seconds=2.0,
        fps=10,
        audio=present == "audio",
        video=present == "video",
    )
    assert predict(file, "--out", tmp_path / "out", "--threshold", "0", model=models / "leap") == 0
    assert said in capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "one" / "events.json").read_text())
    assert {event["stream"] for event in content["events"]} == {
        "audio" if present == "audio" else "visual"
    }
    assert content["notes"]


@pytest.mark.parametrize(
    ("more", "advice"),
    [([], "A lower threshold shows weaker events."), (["--labels", "fiddle"], "such as 0.01")],
)
def test_a_video_without_events_says_on_the_screen_how_near_it_came(
    models, clips, tmp_path, capsys, more, advice
):
    assert (
        predict(
            clips / "a.webm",
            *more,
            "--threshold",
            "1",
            "--out",
            tmp_path / "out",
            model=models / "leap",
        )
        == 0
    )
    said = capsys.readouterr().out
    assert (
        "No label reached the threshold of 1; the highest probability was" in said
        and advice in said
    )


def test_any_labels_with_leap_and_a_refusal_with_mmil(models, clips, tmp_path, capsys):
    flags = [
        clips / "a.webm",
        "--labels",
        "fiddle, alarm",
        "--threshold",
        "0",
        "--out",
        tmp_path / "out",
    ]
    assert predict(*flags, model=models / "leap") == 0
    content = json.loads((tmp_path / "out" / "a" / "events.json").read_text())
    assert content["labels"] == ["fiddle", "alarm"] and {e["label"] for e in content["events"]} == {
        "fiddle",
        "alarm",
    }
    capsys.readouterr()
    assert predict(*flags, model=models / "mmil") == 2
    assert "one weight vector per class" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--weights", "x"], 2, "give a folder, or NAME=FILE"),
        (["--weights", "audio=a", "audio=b"], 2, "audio is given twice"),
        (["--max-gigapixels", "0"], 2, "at least 0.001"),
        (["--hop", "20"], 2, "leaves gaps"),
        (["--labels", "dog,dog"], 2, "occurs twice"),
        (["--labels", ""], 2, "give the labels once"),
        (["--labels", "dog", "--labels-file", "x"], 2, "give the labels once"),
        (["--embeddings", "glove-50d"], 2, "give labels too"),
        (["--labels-file", "gone.txt"], 1, "cannot be read"),
    ],
)
def test_mistakes_are_answered_with_the_remedy(
    models, clips, tmp_path, capsys, flags, code, message
):
    assert (
        predict(clips / "a.webm", "--out", tmp_path / "out", *flags, model=models / "leap") == code
    )
    assert message in capsys.readouterr().err


def test_an_embedded_video_makes_the_page_whole(models, clips, tmp_path):
    assert (
        predict(clips / "a.webm", "--out", tmp_path / "out", "--embed-video", model=models / "leap")
        == 0
    )
    page = (tmp_path / "out" / "a" / "timeline.html").read_text()
    assert re.search(r'<video[^>]* src="data:video/webm;base64,', page)


def test_no_name_of_a_video_writes_outside_its_folder_or_over_the_summary(
    models, clips, tmp_path, capsys
):
    files = [
        tmp_path / "in" / name
        for name in ("...webm", "..webm", "summary.json.webm", os.fsdecode(b"caf\xe9.webm"))
    ]
    files[0].parent.mkdir()
    for file in files:
        file.write_bytes((clips / "a.webm").read_bytes())
    missing = [
        tmp_path / ("x" * 300),
        "~nobody-of-this-name/x.mp4",
        tmp_path / os.fsdecode(b"gone\xff.mp4"),
    ]
    assert predict(*files, *missing, "--out", tmp_path / "out", model=models / "leap") == 1
    assert sorted(f.name for f in tmp_path.iterdir()) == ["in", "out"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    folders = [entry["folder"] for entry in summary["done"]]
    assert (
        folders == ["video", "video-2", "summary.json-2", "caf\ufffd"]
        and len(summary["not_done"]) == 3
    )
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == sorted(
        [*folders, "summary.json"]
    )
    page = (tmp_path / "out" / "caf\ufffd" / "timeline.html").read_text()
    assert "caf%E9.webm" in page and "Traceback" not in capsys.readouterr().err


def test_the_tracks_end_where_the_video_ends(models, tmp_path):
    write_clip(tmp_path / "a.webm", seconds=2.4, fps=10)
    assert (
        predict(
            tmp_path / "a.webm",
            "--out",
            tmp_path / "out",
            "--threshold",
            "0",
            model=models / "leap",
        )
        == 0
    )
    content = json.loads((tmp_path / "out" / "a" / "events.json").read_text())
    assert len(content["scores"]["audio"]) == 2 and content["duration"] == pytest.approx(
        2.4, abs=0.05
    )
    assert {event["offset"] for event in content["events"]} == {content["duration"]}


def test_the_summary_of_a_used_folder_lists_the_videos_of_all_calls(tmp_path):
    def call(name, events):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "events.json").write_text("{}")
        entry = {"video": f"{name}.mp4", "folder": name, "events": events, "notes": []}
        write_summary(tmp_path, [entry], [])
        content = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
        return [(entry["folder"], entry["events"]) for entry in content["done"]]

    assert call("a", 1) == [("a", 1)]
    assert call("b", 2) == [("a", 1), ("b", 2)]
    assert call("a", 3) == [("b", 2), ("a", 3)]
    (tmp_path / "b" / "events.json").unlink()
    assert call("a", 3) == [("a", 3)]
    (tmp_path / "summary.json").write_text("not JSON")
    assert call("c", 0) == [("c", 0)]
