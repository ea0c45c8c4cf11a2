"""`avplatform pseudo-label` from files: labels, the record, omissions, resuming, refusals."""

import json
import multiprocessing
import shutil

import numpy as np
import pytest

from avplatform.cli import main
from avplatform.data.adapters.llp.classes import CLASSES
from avplatform.data.adapters.llp.prompts import prompts, thresholds
from avplatform.features.teachers import TextFeatures
from avplatform.models.errors import DataError, UsageError
from avplatform.pseudo_labels.dataset import DATASET
from avplatform.pseudo_labels.make import Clips, make
from avplatform.pseudo_labels.sources import LogitFiles
from tests.pseudo_labels.files import VIDEOS, WEAK, arrays, llp_folder
from tests.pseudo_labels.test_rule import plain_labels

TEACHER = {"visual": "CLIP", "audio": "CLAP"}


@pytest.fixture
def tree(tmp_path):
    llp_folder(tmp_path / "llp")
    arrays(tmp_path / "visual", (10, 25), loc=17, scale=3)
    arrays(tmp_path / "audio", (10, 25), seed=1, loc=2, scale=3)
    return tmp_path


def flags(tree, *extra, out="out"):
    return [
        "pseudo-label",
        "--annotations",
        str(tree / "llp"),
        "--out",
        str(tree / out),
        *map(str, extra),
    ]


def both(tree):
    return "--visual-logits", tree / "visual", "--audio-logits", tree / "audio"


def record(tree, modality, out="out"):
    return json.loads((tree / out / "pseudo_labels.json").read_text())["modalities"][modality]


def weak_of(video):
    return [int(name in WEAK[video]) for name in CLASSES]


def test_logits_become_label_files_and_a_record(tree, capsys):
    assert main(flags(tree, *both(tree))) == 0
    assert "visual: 3 of 3 clips labelled" in capsys.readouterr().out
    for modality, teacher in TEACHER.items():
        total = np.zeros(25, dtype=int)
        for video in VIDEOS:
            made = np.load(tree / "out" / teacher / "segment_pseudo_labels" / f"{video}.npy")
            assert made.dtype == np.int64
            logits = np.load(tree / modality / f"{video}.npy")
            assert made.tolist() == plain_labels(logits, weak_of(video), modality)
            total += made.sum(axis=0)
        assert total.any()
        entry = record(tree, modality)
        assert entry["complete"] and entry["labels"] == 3 and entry["left_out"] == []
        assert list(entry["positive_segments"].values()) == total.tolist()
        assert entry["settings"]["thresholds"] == thresholds(modality).tolist()
        assert entry["settings"]["spelling"] == "official"


def test_offsets_move_the_thresholds_of_their_modality(tree):
    assert main(flags(tree, *both(tree), "--visual-threshold-offset", "-1000")) == 0
    for video in VIDEOS:
        made = np.load(tree / "out" / "CLIP" / "segment_pseudo_labels" / f"{video}.npy")
        assert (made == np.array(weak_of(video))).all()
    assert record(tree, "audio")["settings"]["thresholds"] == thresholds("audio").tolist()


def test_features_are_scored_by_cosine_times_scale(tree):
    arrays(tree / "features", (10, 6), seed=2)
    texts = np.random.default_rng(3).normal(size=(25, 6)).astype(np.float32)
    np.save(tree / "texts.npy", texts)
    source = [
        "--visual-features",
        tree / "features",
        "--visual-texts",
        tree / "texts.npy",
        "--visual-scale",
        "100",
    ]
    assert main(flags(tree, *source, "--save-logits")) == 0
    for video in VIDEOS:
        feature = np.load(tree / "features" / f"{video}.npy").astype(float)
        cosine = [
            [float(f @ t / np.sqrt(f @ f) / np.sqrt(t @ t)) for t in texts.astype(float)]
            for f in feature
        ]
        logits = np.load(tree / "out" / "CLIP" / "logits" / f"{video}.npy")
        np.testing.assert_allclose(logits, 100 * np.array(cosine), rtol=1e-6, atol=1e-6)
        made = np.load(tree / "out" / "CLIP" / "segment_pseudo_labels" / f"{video}.npy")
        assert made.tolist() == plain_labels(logits, weak_of(video), "visual")
    assert not (tree / "out" / "CLAP").exists()
    again = [
        "--visual-features",
        tree / "features",
        "--visual-texts",
        tree / "out" / "CLIP" / "text_features.safetensors",
    ]
    assert main(flags(tree, *again, "--save-logits", out="again")) == 0
    for video in VIDEOS:  # the written text features say their scale
        pair = [
            np.load(tree / name / "CLIP" / "logits" / f"{video}.npy") for name in ("out", "again")
        ]
        np.testing.assert_allclose(*pair, rtol=1e-6)
    logits_again = ["--visual-logits", tree / "out" / "CLIP" / "logits"]
    assert main(flags(tree, *logits_again, out="third")) == 0
    for video in VIDEOS:
        made = [
            np.load(tree / n / "CLIP" / "segment_pseudo_labels" / f"{video}.npy")
            for n in ("out", "third")
        ]
        assert (made[0] == made[1]).all()


def test_text_features_of_other_prompts_are_refused(tree, capsys):
    arrays(tree / "features", (10, 6))
    texts = TextFeatures(vectors=np.ones((25, 6), np.float32), scale=100, prompts=prompts("visual"))
    texts.write(tree / "texts.safetensors")
    source = ["--visual-features", tree / "features", "--visual-texts", tree / "texts.safetensors"]
    assert main(flags(tree, *source, "--spelling", "corrected")) == 2
    error = capsys.readouterr().err
    assert "made from other prompts" in error and "vaccum" in error and "vacuum" in error
    assert main(flags(tree, *source)) == 0


def plant(folder):
    """Every way in which a file can be bad, one at a time."""
    file = folder / f"{VIDEOS[1]}.npy"
    whole = np.load(file)
    with_nan = whole.copy()
    with_nan[3, 3] = np.nan
    yield "no file", file.unlink
    yield "cannot read", lambda: file.write_bytes(file.read_bytes()[:200])
    yield "cannot read", lambda: file.write_bytes(b"")
    yield "cannot read", lambda: np.save(file, np.array([{"a": 1}]), allow_pickle=True)
    yield "has shape (9, 25) instead of (10, 25)", lambda: np.save(file, whole[:9])
    yield "a NaN", lambda: np.save(file, with_nan)
    yield "not numbers", lambda: np.save(file, whole.astype(str))


@pytest.mark.parametrize("case", range(7))
def test_clips_with_bad_input_are_left_out_and_listed(tree, capsys, case):
    message, damage = list(plant(tree / "visual"))[case]
    assert main(flags(tree, *both(tree))) == 0
    labels = tree / "out" / "CLIP" / "segment_pseudo_labels"
    shutil.copy(tree / "visual" / f"{VIDEOS[1]}.npy", tree / "kept.npy")
    damage()
    assert main(flags(tree, *both(tree), "--strict", out="strict")) == 1
    error = capsys.readouterr().err
    assert (
        "bad input for 1 of 3 clips; nothing was written" in error
        and VIDEOS[1] in error
        and message in error
    )
    assert not (tree / "strict").exists()
    assert main(flags(tree, *both(tree))) == 1
    assert "left out: b_b-bbbbbbb_30_40" in capsys.readouterr().out
    (left,) = record(tree, "visual")["left_out"]
    assert (
        left["clip_id"] == "b_b-bbbbbbb_30_40"
        and message in left["reason"]
        and VIDEOS[1] in left["file"]
    )
    assert sorted(f.stem for f in labels.iterdir()) == [
        VIDEOS[0],
        VIDEOS[2],
    ]  # the label of the earlier input is gone
    shutil.copy(tree / "kept.npy", tree / "visual" / f"{VIDEOS[1]}.npy")
    assert main(flags(tree, *both(tree))) == 0
    assert record(tree, "visual")["left_out"] == [] and len(list(labels.iterdir())) == 3


class Counted(LogitFiles):
    """Counts its videos, and stops at one of them."""

    def __init__(self, folder, stop=None):
        super().__init__(folder)
        self.scored, self.stop = [], stop

    def read(self, video):
        if video == self.stop:
            raise KeyboardInterrupt
        self.scored.append(video)
        return super().read(video)


def test_a_stopped_run_goes_on_with_what_is_missing_or_changed(tree):
    clips = Clips.of(DATASET.read(tree / "llp"))
    with pytest.raises(KeyboardInterrupt):
        make(tree / "out", "visual", Counted(tree / "visual", stop=VIDEOS[1]), clips)
    assert record(tree, "visual")["complete"] is False
    with (tree / "out" / "CLIP" / "sources.tsv").open("a") as journal:
        journal.write(f"{VIDEOS[1]}\tcut o")
    source = Counted(tree / "visual")
    entry = make(tree / "out", "visual", source, clips)
    assert source.scored == VIDEOS[1:] and entry["labels"] == 3
    make(tree / "whole", "visual", LogitFiles(tree / "visual"), clips)
    assert entry == record(tree, "visual", out="whole")
    np.save(tree / "visual" / f"{VIDEOS[2]}.npy", np.full((10, 25), 99.0))
    (tree / "out" / "CLIP" / "segment_pseudo_labels" / f"{VIDEOS[0]}.npy").unlink()
    source = Counted(tree / "visual")
    make(tree / "out", "visual", source, clips)
    assert source.scored == [VIDEOS[0], VIDEOS[2]]
    assert np.load(tree / "out" / "CLIP" / "segment_pseudo_labels" / f"{VIDEOS[2]}.npy").sum() == 10


def test_labels_made_otherwise_are_never_mixed(tree, capsys):
    assert main(flags(tree, *both(tree))) == 0
    assert main(flags(tree, *both(tree), "--visual-threshold-offset", "1")) == 2
    assert "made with another 'thresholds'" in capsys.readouterr().err
    official = tree / "official" / "CLIP" / "segment_pseudo_labels"
    official.mkdir(parents=True)
    (official / "x.npy").write_bytes(b"")
    assert main(flags(tree, *both(tree), out="official")) == 2
    assert "labels of unknown origin" in capsys.readouterr().err
    (tree / "strange").mkdir()
    (tree / "strange" / "pseudo_labels.json").write_text("[]")
    assert main(flags(tree, *both(tree), out="strange")) == 1
    assert "is not a record of pseudo-labels" in capsys.readouterr().err


def test_splits_add_up_in_one_folder(tree):
    assert main(flags(tree, *both(tree), "--splits", "test")) == 0
    labels = tree / "out" / "CLIP" / "segment_pseudo_labels"
    assert [f.stem for f in labels.iterdir()] == [VIDEOS[2]]
    assert main(flags(tree, *both(tree), "--splits", "train", "validation")) == 0
    assert main(flags(tree, *both(tree), out="whole")) == 0
    parts, whole = record(tree, "visual"), record(tree, "visual", out="whole")
    assert parts["sources_sha256"] == whole["sources_sha256"]
    assert parts["positive_segments"] == whole["positive_segments"]


class Slow(LogitFiles):
    """Waits in the first video until it is told to go on."""

    def __init__(self, folder, started, go_on):
        super().__init__(folder)
        self.started, self.go_on = started, go_on

    def read(self, video):
        self.started.set()
        assert self.go_on.wait(60)
        return super().read(video)


def test_a_second_process_is_refused(tree):
    pytest.importorskip("fcntl")
    clips = Clips.of(DATASET.read(tree / "llp"))
    context = multiprocessing.get_context("spawn")
    started, go_on = context.Event(), context.Event()
    first = context.Process(
        target=make, args=(tree / "out", "visual", Slow(tree / "visual", started, go_on), clips)
    )
    first.start()
    try:
        assert started.wait(60)
        with pytest.raises(UsageError, match="another process is writing"):
            make(tree / "out", "visual", LogitFiles(tree / "visual"), clips)
    finally:
        go_on.set()
        first.join(60)
    assert first.exitcode == 0 and record(tree, "visual")["complete"]


class Overtaken(LogitFiles):
    """Other labels appear in the folder while the input is looked through."""

    def __init__(self, folder, overtake):
        super().__init__(folder)
        self.overtake = overtake

    def read(self, video):
        overtake, self.overtake = self.overtake, lambda: None
        overtake()
        return super().read(video)


def test_labels_made_otherwise_meanwhile_are_not_mixed_either(tree):
    clips, out = Clips.of(DATASET.read(tree / "llp")), tree / "out"
    source = Overtaken(
        tree / "visual",
        lambda: make(out, "visual", LogitFiles(tree / "visual"), clips, threshold_offset=1.0),
    )
    with pytest.raises(UsageError, match="made with another 'thresholds'"):
        make(out, "visual", source, clips, strict=True)
    assert record(tree, "visual")["settings"]["thresholds"][0] == 21


@pytest.mark.parametrize(
    ("extra", "code", "message"),
    [
        ([], 2, "nothing to make labels from"),
        (
            ["--visual-logits", "visual", "--frames", "visual"],
            2,
            "--visual-logits and --frames are sources of the same",
        ),
        (["--visual-logits", "nowhere"], 1, "--visual-logits nowhere: there is no such folder"),
        (
            ["--visual-logits", "visual", "--visual-scale", "3"],
            2,
            "--visual-scale goes with --visual-features",
        ),
        (["--visual-features", "visual", "--visual-scale", "3"], 2, "goes with --visual-texts"),
        (["--audio-features", "audio", "--audio-texts", "texts.npy"], 2, "does not say the scale"),
        (
            ["--audio-features", "audio", "--audio-texts", "texts.npy", "--audio-scale", "-1"],
            2,
            "must be positive",
        ),
        (["--audio-features", "audio", "--audio-texts", "x.npy"], 1, "no file of text features"),
        (
            ["--audio-features", "audio", "--audio-texts", "bad.npy", "--audio-scale", "1"],
            1,
            "instead of (25, any)",
        ),
        (["--audio-features", "audio", "--audio-texts", "bad.safetensors"], 1, "cannot read"),
        (
            ["--visual-logits", "visual", "--visual-threshold-offset", "nan"],
            2,
            "must be a finite number",
        ),
    ],
)
def test_wrong_flags_are_refused_with_the_remedy(tree, capsys, monkeypatch, extra, code, message):
    monkeypatch.chdir(tree)
    np.save("texts.npy", np.ones((25, 25), np.float32))
    np.save("bad.npy", np.ones((24, 25), np.float32))
    (tree / "bad.safetensors").write_bytes(b"12345678")
    assert main(flags(tree, *extra)) == code
    assert message in capsys.readouterr().err
    assert not (tree / "out").exists()


def test_labels_that_nodes_have_made_are_noted_before_all_are_made(tree):
    source, asked = LogitFiles(tree / "visual"), []
    clips = Clips.of(DATASET.read(tree / "llp"))

    def one(places, videos, limits, told):
        told(videos[0][0], places.label(source, *videos[0], limits))
        raise DataError("the cluster is gone")

    def others(places, videos, limits, told):
        asked.extend(video for video, _ in videos)
        return [places.label(source, *video, limits) for video in videos]

    with pytest.raises(DataError, match="the cluster is gone"):
        make(tree / "out", "visual", source, clips, spread=one)
    entry = make(tree / "out", "visual", source, clips, spread=others)
    assert len(asked) == len(clips.names) - 1 and entry["labels"] == len(clips.names)
