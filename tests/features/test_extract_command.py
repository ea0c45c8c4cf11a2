"""`avplatform extract` stores good files, lists bad ones with a reason, and resumes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from avplatform.cli import main
from avplatform.commands.predict import find_videos
from avplatform.config.build import build_task, make_model_config
from avplatform.config.run import default_config
from avplatform.data import open_data
from avplatform.data.adapters.ave.annotations import read_annotations as read_ave
from avplatform.data.adapters.llp.annotations import read_annotations
from avplatform.data.store.schema import Manifest
from avplatform.features import media, sources
from avplatform.features.pieces import Pieces
from avplatform.features.recipe import get_recipe
from avplatform.features.sources import Catalogue, find_files
from avplatform.features.weights import parse_weights
from avplatform.models.config import AVModelConfig
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import DataError
from tests import processes
from tests.features.clips import beep, bits_of, render, standard
from tests.features.networks import small_weights
from tests.tasks.test_avel import write_ave
from tests.tasks.test_avvp import write_llp

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of good and bad files, and the flags for a small recipe."""
    place = tmp_path_factory.mktemp("command")
    videos = place / "videos"
    (videos / "more").mkdir(parents=True)
    standard(videos / "a.mp4", seconds=3, beep_at=1, flash_at=2)
    render(videos / "b.mkv", pictures=[bits_of(3)] * 50)
    render(videos / "c.m4a", sound=beep(2, 0, 1))
    standard(videos / "more" / "long.mp4", seconds=8)
    (videos / "more" / "a.mp4").write_bytes((videos / "b.mkv").read_bytes())
    (videos / "text.mp4").write_text("no video")
    (videos / "empty.avi").write_bytes(b"")
    (videos / "notes.txt").write_text("not looked at")
    (videos / ".hidden.mp4").write_text("nor this")
    return place


def flags(place, out, *more):
    weights = small_weights(place)
    named = [f"vggish={weights['vggish']}", f"visual={weights['visual']}"]
    recipe = [
        "--backbones",
        "lite",
        "--audio",
        "vggish",
        "--visual",
        "timm:test_resnet",
        "--segments",
        "3",
    ]
    return [
        "extract",
        str(place / "videos"),
        "--out",
        str(out),
        *recipe,
        "--weights",
        *named,
        "--cpu",
        *more,
    ]


@pytest.fixture(scope="module")
def extracted(place):
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = main(flags(place, place / "store", "--dtype", "float32"))
    return code, output.getvalue(), place / "store"


def test_good_files_are_stored_and_bad_ones_are_listed(extracted):
    code, output, store = extracted
    assert code == 1
    for text in (
        "text.mp4",
        "empty.avi is empty",
        "more/a.mp4: has the name of",
        "1 clip without video",
        "1 clip without audio",
    ):
        assert text in output, output
    split = open_data(str(store), task="avvp").split("test")
    batch = split.batch(range(len(split)))
    assert list(batch.clip_id) == ["a", "b", "c", "long_0_3", "long_3_6", "long_6_9"]
    report = json.loads((store / "extract_report.json").read_text())
    assert (
        report["files"] == 7
        and report["stored"] == {"test": 6}
        and len(report["bad"]) == 3
        and report["ignored"] == 1
    )
    assert report["without_audio"] == ["b"] and report["without_video"] == ["c"]


def test_files_are_listed_once_and_each_is_probed_once(place, tmp_path, monkeypatch):
    calls = {"find_files": 0, "length_of": 0}

    def counted(owner, name):
        real = getattr(owner, name)

        def call(*args):
            calls[name] += 1
            return real(*args)

        monkeypatch.setattr(owner, name, call)

    counted(sources, "find_files")
    counted(media, "length_of")
    args = [place / "videos" / "a.mp4", place / "videos" / "more" / "long.mp4"]
    assert main(["extract", *map(str, args), *flags(place, tmp_path / "out")[2:]]) == 0
    assert calls == {"find_files": 1, "length_of": 2}  # the long one gives three clips


def test_features_of_the_store_are_in_the_segments_of_their_seconds(extracted):
    split = open_data(str(extracted[2]), task="avvp").split("test")
    batch = split.batch(range(len(split)))
    audio, visual = np.asarray(batch.audio), np.asarray(batch.visual)
    a = np.abs(audio[0] - np.median(audio[0], axis=0)).sum(-1)
    assert a.argmax() == 1
    assert np.abs(visual[0] - np.median(visual[0], axis=0)).sum(-1).argmax() == 2
    windows = audio[3:6].reshape(9, -1)[:8]  # the beep of the long file is in its second 4
    assert np.abs(windows - np.median(windows, axis=0)).sum(-1).argmax() == 4
    assert not visual[2].any() and not audio[1].any() and not audio[5, 2].any()


def test_the_store_verifies_and_says_how_it_was_made(extracted, capsys):
    assert main(["data", "verify", str(extracted[2])]) == 0
    assert "extract_report.json" not in capsys.readouterr().out
    spec = Manifest.read(extracted[2]).spec
    assert get_recipe(spec.features.extractors).visual == "timm:test_resnet"
    made = spec.provenance["extraction"]
    assert (
        made["recipe"]["fps"] == 8
        and len(made["weights"]["visual"]["sha256"]) == 64
        and made["resize"]["visual"]["height"]
    )
    assert "sha256" in (extracted[2] / "README.md").read_text()


def test_a_model_of_the_store_knows_what_to_extract(extracted):
    spec = Manifest.read(extracted[2]).spec
    config = default_config("avvp", "han", "mmil", "weak")
    model_config = make_model_config(config, build_task(config), spec.features)
    again = AVModelConfig.from_dict(json.loads(json.dumps(model_config.to_dict())))
    assert get_recipe(again.features.extractors) == get_recipe(spec.features.extractors)


def test_configs_from_before_still_load_and_specs_are_compared_without_it():
    config = default_config("avvp", "han", "mmil", "weak")
    data = make_model_config(config, build_task(config), FeatureSpec()).to_dict()
    del data["features"]["extractors"]
    assert AVModelConfig.from_dict(data).features == FeatureSpec(extractors={"recipe": {}})


def test_stores_without_it_keep_their_text(small_stores):
    assert "extractors" not in (small_stores["avvp"] / "dataset.json").read_text()
    assert Manifest.read(small_stores["avvp"]).spec.features.extractors == {}


def test_two_processes_write_the_store_of_one(extracted, place):
    launch = processes.Launch(
        flags(place, place / "two", "--dtype", "float32"), place / "log2", processes=2
    )
    assert launch.wait() == [1, 1], launch.output()
    one, two = (
        open_data(str(store), task="avvp").split("test") for store in (extracted[2], place / "two")
    )
    first, second = one.batch(range(6)), two.batch(range(6))
    assert list(first.clip_id) == list(second.clip_id)
    assert np.allclose(first.visual, second.visual, atol=1e-5) and np.allclose(
        first.audio, second.audio, atol=1e-5
    )
    assert launch.output().count("left out: ") == 3


def test_a_stopped_run_goes_on_and_ends_in_the_same_store(extracted, place, monkeypatch, capsys):
    kept = Pieces.save
    saved = []

    def save(self, piece, file, clips):
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(file)
        kept(self, piece, file, clips)

    monkeypatch.setattr(Pieces, "save", save)
    out = place / "stopped"
    assert main(flags(place, out, "--dtype", "float32")) == 130 and not out.exists()
    monkeypatch.setattr(Pieces, "save", kept)
    read = []
    windows = Pieces._windows
    monkeypatch.setattr(
        Pieces,
        "_windows",
        lambda self, file: (read.append(file), windows(self, file))[1],
    )
    assert main(flags(place, out, "--dtype", "float32")) == 1
    assert "2 files had been extracted by an earlier attempt" in capsys.readouterr().out
    assert not set(saved) & set(read) and not (place / ".stopped.extract").exists()
    first, second = (
        open_data(str(store), task="avvp").split("test").batch(range(6))
        for store in (extracted[2], out)
    )
    assert list(first.clip_id) == list(second.clip_id)
    assert np.array_equal(first.visual, second.visual)


def test_nothing_good_writes_nothing(place, tmp_path, capsys):
    args = flags(place, tmp_path / "out")
    args[1] = str(place / "videos" / "text.mp4")
    assert main(args) == 1
    assert (
        "no file could be extracted (first: " in capsys.readouterr().err
        and not (tmp_path / "out").exists()
    )


@pytest.mark.parametrize(
    "more, code, text",
    [
        (["--backbones", "light"], 2, "did you mean 'lite'"),
        (["--weights", "/absent"], 2, "no such folder"),
        (["--audio", "vgish"], 2, "did you mean 'vggish'"),
        (["--segments", "0"], 2, "at least 1"),
        (["--max-seconds", "0"], 2, "at least 1"),
    ],
)
def test_wrong_options_are_refused(place, tmp_path, capsys, more, code, text):
    assert main(flags(place, tmp_path / "out", *more)) == code
    assert text in capsys.readouterr().err


def test_what_is_there_is_not_overwritten(place, extracted, capsys):
    assert main(flags(place, extracted[2])) == 2
    assert "other options (dtype float32, now float16); give the same" in capsys.readouterr().err


def test_files_get_the_labels_and_splits_of_official_annotations(tmp_path):
    (tmp_path / "llp").mkdir()
    write_llp(tmp_path / "llp")
    data = read_annotations(tmp_path / "llp")
    catalogue = Catalogue("avvp", annotations=tmp_path / "llp")
    row = int(data.splits["test"][0])
    name = data.filenames[row]
    for stem in (name, name[:11]):
        (entry,) = catalogue.entries(stem, [(0.0, 10.0)])
        assert (entry.row, entry.split, entry.clip_id) == (row, "test", name) and (
            entry.labels["weak"] == data.weak[row]
        ).all()
    with pytest.raises(DataError, match="no clip of this name"):
        catalogue.entries("stranger", [(0.0, 10.0)])


def test_annotated_files_become_a_store_with_labels(place, tmp_path):
    (tmp_path / "llp").mkdir()
    (tmp_path / "videos").mkdir()
    write_llp(tmp_path / "llp")
    data = read_annotations(tmp_path / "llp")
    name = data.filenames[int(data.splits["test"][0])]
    (tmp_path / "videos" / f"{name[:11]}.mkv").write_bytes(
        (place / "videos" / "b.mkv").read_bytes()
    )
    args = flags(
        place, tmp_path / "out", "--annotations", str(tmp_path / "llp"), "--segments", "10"
    )
    args[1] = str(tmp_path / "videos")
    assert main(args) == 0
    split = open_data(str(tmp_path / "out"), task="avvp").split("test")
    batch = split.batch([0])
    assert (
        list(batch.clip_id) == [name]
        and (np.asarray(batch.labels["weak"]) == data.weak[data.splits["test"][:1]]).all()
    )


def test_a_name_that_occurs_twice_is_extracted_once(place):
    found = find_files([place / "videos", place / "videos" / "a.mp4"])
    assert list(found.files) == ["a", "b", "c", "empty", "long", "text"]
    assert len(found.bad) == 1 and "rename one of them" in found.bad[0][1]


def test_files_beside_a_video_do_not_take_its_place(tmp_path):
    """A thumbnail, a sound track, a preview and an unfinished download share the video's name."""
    (tmp_path / "sounds").mkdir()
    sound, pictures = beep(1, 0, 1), [bits_of(3)] * 10
    for name in ("abc.m4a", "def.m4a", "sounds/abc.wav", "alone.m4a"):
        codec = "pcm_s16le" if name.endswith("wav") else "aac"
        render(tmp_path / name, sound=sound, sound_codec=codec)
    render(tmp_path / "silent.mkv", sound=sound)
    for name in ("abc", "def", "silent"):
        render(tmp_path / f"{name}.mp4", pictures=pictures, fps=10)
    (tmp_path / "abc.lrv").write_bytes((tmp_path / "abc.mp4").read_bytes())
    for name in ("abc.jpg", "abc.webp", "abc.info.json", "abc.mp4.part", "abc.THM", "lone.png"):
        (tmp_path / name).write_bytes(b"x")
    found = find_files([tmp_path])
    assert {name: file.name for name, file in found.files.items()} == {
        "abc": "abc.mp4", "alone": "alone.m4a", "def": "def.mp4", "silent": "silent.mp4"
    }  # fmt: skip
    assert not found.bad and found.ignored == 11
    names = {file.name for file, _ in find_videos([str(tmp_path)])[0]}
    assert names == {"abc.mp4", "alone.m4a", "def.mp4", "silent.mp4"}
    # What is named itself is never ignored.
    assert find_files([tmp_path / "abc.jpg"]).files == {"abc": tmp_path / "abc.jpg"}
    # Of two videos, neither is preferred.
    (tmp_path / "abc.mkv").write_bytes((tmp_path / "abc.mp4").read_bytes())
    assert "rename one of them" in find_files([tmp_path]).bad[0][1]


def test_a_folder_without_media_is_said_to_hold_none(place, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("x")
    args = flags(place, tmp_path / "out")
    args[1] = str(empty)
    assert main(args) == 1
    assert f"{empty} holds no video or sound file (1 other file)" in capsys.readouterr().err


def test_the_core_works_without_pyav_and_says_how_to_get_it(tmp_path):
    code = (
        "import sys; sys.modules['av'] = None\n"
        "import avplatform.features.media\n"
        "from avplatform.cli import main\n"
        f"sys.exit(main(['extract', 'a.mp4', '--out', {str(tmp_path / 'out')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (
        done.returncode == 2
        and done.stderr.strip()
        == 'error: reading media needs PyAV: pip install "avplatform[media]"'
    )


@pytest.mark.slow
def test_of_a_thousand_files_the_good_ones_are_done(place, tmp_path, capsys):
    videos = tmp_path / "videos"
    videos.mkdir()
    good = render(
        tmp_path / "good.mkv", pictures=[bits_of(5)] * 10, fps=10, sound=beep(1, 0, 1)
    ).read_bytes()
    for number in range(1000):
        content = (
            good
            if number % 20
            else (good[:100], b"", b"text", good[: len(good) // 3])[number // 20 % 4]
        )
        (videos / f"clip{number:04d}.mkv").write_bytes(content)
    args = flags(place, tmp_path / "out", "--segments", "1")
    args[1] = str(videos)
    assert main(args) == 1
    report = json.loads((tmp_path / "out" / "extract_report.json").read_text())
    bad = {Path(file).stem for file, _ in report["bad"]}
    assert {f"clip{number:04d}" for number in range(0, 1000, 20) if number // 20 % 4 != 3} <= bad
    assert report["stored"]["test"] == 1000 - len(bad) and all(
        int(name[4:]) % 20 == 0 for name in bad
    )
    assert f"and {len(bad) - 20} more" in capsys.readouterr().out


def test_names_that_no_clip_can_have_are_listed(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"x")
    found = find_files([tmp_path, "x" * 300])
    assert [why for _, why in found.bad] == ["its name is not UTF-8; rename it"] and list(
        found.files
    ) == ["x" * 300]


@pytest.mark.parametrize("flag", [["--split", "train"], ["--long", "refuse"]])
def test_what_annotations_decide_is_not_asked_for_beside_them(place, tmp_path, capsys, flag):
    assert main(flags(place, tmp_path / "out", "--annotations", str(tmp_path), *flag)) == 2
    assert f"{flag[0]} cannot be given with --annotations" in capsys.readouterr().err


def test_annotated_files_of_ave_become_a_store_with_labels_that_trains(place, tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "ave").mkdir()
    data = read_ave(write_ave(tmp_path / "ave"))
    for name in data.clip_ids:
        (tmp_path / "videos" / f"{name}.mkv").write_bytes((place / "videos" / "b.mkv").read_bytes())
    (tmp_path / "videos" / "stranger.mkv").write_bytes((place / "videos" / "b.mkv").read_bytes())
    args = flags(
        place,
        tmp_path / "out",
        "--task",
        "avel",
        "--annotations",
        str(tmp_path / "ave"),
        "--segments",
        "10",
    )
    args[1] = str(tmp_path / "videos")
    assert main(args) == 1  # for the stranger
    report = json.loads((tmp_path / "out" / "extract_report.json").read_text())
    assert [(Path(file).name, why) for file, why in report["bad"]] == [
        ("stranger.mkv", "the annotations have no clip of this name")
    ]
    source = open_data(str(tmp_path / "out"), task="avel")
    for split, rows in data.splits.items():
        batch = source.split(split).batch(range(len(rows)))
        wanted = {data.clip_ids[row]: row for row in rows.tolist()}
        assert set(batch.clip_id) == set(wanted)
        for number, name in enumerate(batch.clip_id):
            row = wanted[name]
            assert (
                int(batch.row[number]) == row
                and int(batch.labels["video"][number]) == data.class_index[row]
            )
            assert (np.asarray(batch.labels["segment"][number]) == data.segment[row]).all()


def test_training_on_a_store_without_labels_says_how_to_get_them(extracted, capsys):
    data = [
        "--data",
        str(extracted[2]),
        "--task",
        "avvp",
        "--encoder",
        "han",
        "--decoder",
        "mmil",
        "--supervision",
        "weak",
    ]
    assert main(["train", *data, "--dry-run"]) == 2
    assert (
        "has no split 'train' (splits: test); "
        "it has no labels: `avplatform extract --annotations DIR`" in capsys.readouterr().err
    )


def test_a_name_with_a_newline_stays_on_its_line(place, tmp_path, capsys):
    (tmp_path / "bad\n\x1b[31mname.mp4").write_text("no video")
    (tmp_path / "good.mkv").write_bytes((place / "videos" / "b.mkv").read_bytes())
    args = flags(place, tmp_path / "out")
    args[1] = str(tmp_path)
    assert main(args) == 1
    output = capsys.readouterr().out
    assert "bad\ufffd\ufffd[31mname.mp4" in output and "\x1b[31m" not in output
    args[1] = str(tmp_path / "bad\n\x1b[31mname.mp4")
    args[3] = str(tmp_path / "out2")
    assert main(args) == 1 and capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "given, message",
    [
        (["vgish=x"], "'vgish', which this recipe does not use; did you mean 'vggish'"),
        (["=x"], "give NAME=FILE, or a folder"),
        (["audio=a", "audio=b"], "audio is given twice"),
    ],
)
def test_weights_that_cannot_be_meant_are_a_usage_error(place, tmp_path, capsys, given, message):
    args = flags(place, tmp_path / "out")
    start = args.index("--weights") + 1
    args[start : start + 2] = given
    assert main(args) == 2 and message in capsys.readouterr().err


def test_a_folder_of_weights_may_hold_an_equals_sign(tmp_path):
    (tmp_path / "a=b").mkdir()
    assert parse_weights([str(tmp_path / "a=b"), "visual=x"]) == {
        "folder": str(tmp_path / "a=b"),
        "visual": "x",
    }
