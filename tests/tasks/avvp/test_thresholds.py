"""Thresholds of streams, videos and single classes: decisions, and their choice on validation."""

import json

import numpy as np
import pytest
import torch

from avplatform.cli import main
from avplatform.data.adapters.registry import make_task
from avplatform.models.av_model import AVModel
from avplatform.models.contracts import Parse, Prediction, StreamPredictions
from avplatform.models.errors import UsageError
from avplatform.tasks.avvp import task as task_module
from avplatform.tasks.avvp.class_thresholds import (
    CANDIDATES,
    choose_class_thresholds,
    class_threshold_scores,
)
from avplatform.tasks.avvp.config import AVVPConfig
from avplatform.tasks.avvp.metrics import STREAMS, score
from avplatform.tasks.registry import task_of_model, with_threshold
from tests.models.cells import cell
from tests.training.class_store import FLAGS, make

CLASSES = 25


def parse_of(segment, video):
    """The same probabilities in both streams, of one segment and of the video."""

    def streams(value, *shape):
        values = torch.full((1, *shape, CLASSES), value)
        return StreamPredictions(*(Prediction(values, "probability") for _ in range(3)))

    return Parse(segment=streams(segment, 1), video=streams(video))


def decided(options, segment=0.3, video=0.5):
    found = make_task("avvp", AVVPConfig(supervision="weak", **options)).decide(
        parse_of(segment, video)
    )
    return {stream: found[stream][0, 0] for stream in ("audio", "visual")}


def test_segments_and_videos_of_each_stream_have_thresholds_of_their_own():
    options = {"gate": "modality", "audio_segment_threshold": 0.3, "visual_segment_threshold": 0.31}
    found = decided(options)
    assert found["audio"].all() and not found["visual"].any()
    found = decided({**options, "visual_segment_threshold": 0.3, "audio_video_threshold": 0.51})
    assert found["visual"].all() and not found["audio"].any()


def test_classes_have_video_thresholds_of_their_own_which_are_inclusive():
    limits = (0.5, 0.51, *(0.4,) * (CLASSES - 2))
    options = {"gate": "modality", "threshold": 0.3, "visual_class_thresholds": limits}
    found = decided(options)
    assert found["audio"].all()
    assert found["visual"].tolist() == [True, False, *(True,) * (CLASSES - 2)]


def test_another_threshold_replaces_all_of_them():
    config = AVVPConfig(
        gate="modality", audio_segment_threshold=0.2, visual_class_thresholds=(0.9,) * CLASSES
    )
    task = with_threshold(make_task("avvp", config), 0.3)
    assert task.config.limit("audio", "segment") == task.config.limit("visual", "video") == 0.3
    assert (
        task.config.visual_class_thresholds == ()
        and task.decide(parse_of(0.3, 0.3))["visual"].all()
    )


def test_classes_keep_their_thresholds_in_another_list():
    limits = tuple(np.linspace(0, 1, CLASSES).tolist())
    task = make_task(
        "avvp", AVVPConfig(gate="modality", threshold=0.2, audio_class_thresholds=limits)
    )
    other = task.with_classes([task.classes[3], "Harp"])
    assert other.config.audio_class_thresholds == (limits[3], 0.2)
    assert task.config.audio_class_thresholds == limits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate": "modality", "visual_class_thresholds": (0.5,)}, "holds 1 threshold"),
        ({"audio_class_thresholds": (1.5,)}, "between 0 and 1"),
        ({"visual_segment_threshold": -0.1}, "visual_segment_threshold"),
    ],
)
def test_thresholds_that_cannot_be_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        make_task("avvp", AVVPConfig(**options))


@pytest.mark.parametrize("options", [{"class_thresholds": "both"}, {"audio_video_threshold": 0.3}])
def test_video_thresholds_are_refused_where_another_gate_reads_none(options):
    with pytest.raises(UsageError, match="gate modality"):
        cell("avvp", "han", "mmil", task_options=options)


def split_of(seed, clips=7, segments=6, classes=4):
    rng = np.random.default_rng(seed)
    found, true = rng.random((2, clips, segments, classes)) < 0.4
    return found, rng.random((clips, classes)).astype(np.float32), true


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_the_whole_split_with_one_class_decided_anew(seed):
    found, video, true = split_of(seed)
    scores = class_threshold_scores(found, video, true, default=0.45)
    for c in range(found.shape[2]):
        for at, candidate in enumerate(CANDIDATES):
            limits = np.full(found.shape[2], 0.45)
            limits[c] = candidate
            maps = found & (video >= limits)[:, None]
            expected = 100 * score(maps, maps, true, true)[:, 4].mean()
            assert scores[c, at] == pytest.approx(expected, abs=1e-10)


def test_of_equally_good_thresholds_the_highest_is_chosen():
    scores = np.array([[1.0, 2, 2, 1], [0, 0, 0, 0], [3, 2, 1, 0], [1, 2, 2 - 1e-12, 1]])
    assert choose_class_thresholds(scores, (0.1, 0.2, 0.3, 0.4)).tolist() == [0.3, 0.4, 0.1, 0.3]


def test_a_score_equal_to_a_threshold_passes_it_as_in_a_decision():
    found = true = np.ones((1, 3, 1), bool)
    for at, candidate in enumerate(CANDIDATES):
        video = np.full((1, 1), candidate, np.float32)
        scores = class_threshold_scores(found, video, true, default=0.45)
        assert scores[0, : at + 1].tolist() == [100.0] * (at + 1) and not scores[0, at + 1 :].any()


def test_thresholds_may_be_picked_with_the_weights_of_an_earlier_epoch(tmp_path, monkeypatch):
    """Those of the last validation up to this epoch are kept, also in a checkpoint."""
    make(tmp_path / "store")
    limits = [{"visual_class_thresholds": (0.25 + 0.05 * n,) * CLASSES} for n in range(9)]
    picked = iter(limits)
    monkeypatch.setattr(task_module, "pick_class_thresholds", lambda config, metrics: next(picked))
    flags = ["--decoder", "mmil", "--data", str(tmp_path / "store"), "--epochs", "3"]
    flags += ["--output-dir", str(tmp_path / "run"), "--task-config.gate", "modality"]
    flags += ["--task-config.class-thresholds", "visual", "--task-config.threshold-epoch", "2"]
    assert main([*FLAGS, *flags]) == 0
    content = json.loads((tmp_path / "run" / "results.json").read_text())
    found = content["settled"]["task_config"]["visual_class_thresholds"]
    assert tuple(found) == limits[1]["visual_class_thresholds"]
    assert next(picked) == limits[2]  # neither the third epoch nor the kept one was asked
    task = make_task("avvp", AVVPConfig(supervision="weak"))
    task.load_state({"visual_class_thresholds": torch.tensor([0.3, 0.7], dtype=torch.float64)})
    assert task.state()["visual_class_thresholds"].tolist() == [0.3, 0.7]


@pytest.mark.parametrize(("which", "streams"), [("visual", ["visual"]), ("both", STREAMS)])
def test_a_run_keeps_the_thresholds_that_it_picks_on_validation(tmp_path, which, streams):
    make(tmp_path / "store")
    run = tmp_path / "run"
    flags = ["--decoder", "mmil", "--data", str(tmp_path / "store"), "--output-dir", str(run)]
    flags += ["--epochs", "1", "--task-config.gate", "modality"]
    assert main([*FLAGS, *flags, "--task-config.class-thresholds", which]) == 0
    content = json.loads((run / "results.json").read_text())
    model = AVModel.from_pretrained(run)
    task = task_of_model(model.config)
    chosen = {f"{stream}_class_thresholds" for stream in streams}
    assert set(content["settled"]["task_config"]) == chosen
    for name in chosen:
        values = getattr(task.config, name)
        assert list(values) == content["settled"]["task_config"][name]
        assert len(values) == CLASSES and set(values) <= set(CANDIDATES)
    assert set(content["settled"]["before"]) == {"validation", "test"}
    scored = tmp_path / "scored.json"
    data = ["--data", str(tmp_path / "store"), "--cpu"]
    assert main(["eval", str(run), *data, "--json", str(scored)]) == 0
    assert json.loads(scored.read_text())["test"] == content["test"]
