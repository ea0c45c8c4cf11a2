import numpy as np
import pytest

from avplatform.data import DataSpec, StoreWriter
from avplatform.data.adapters.llp.classes import CLASSES
from avplatform.data.reading.source import open_data
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import DataError
from examples.real_media.plan import Plan, PlannedClip, PlannedEvent, label_maps
from examples.real_media.report import class_table, score_table
from examples.real_media.store import label_store


def clip(split, index, onset):
    heard = PlannedEvent(label="Dog", stream="audio", onset=onset, offset=onset + 2)
    seen = PlannedEvent(label="Dog", stream="visual", onset=0, offset=10)
    return PlannedClip(name=f"{split}_{index}", split=split, events=(heard, seen))


@pytest.fixture
def plan():
    clips = [clip("train", 0, 1), clip("train", 1, 5), clip("validation", 0, 2), clip("test", 0, 3)]
    return Plan(seed=1, clips=(*clips, PlannedClip(name="test_1", split="test", events=())))


@pytest.fixture
def features(tmp_path, plan):
    """As extraction leaves them: by name, of one split, without labels."""
    spec = DataSpec(
        name="features",
        task="avvp",
        classes=list(CLASSES),
        features=FeatureSpec(audio_dim=3, visual_dim=4, extractors={"recipe": {"name": "lite"}}),
        labels={},
        label_dtypes={},
    )
    with StoreWriter(tmp_path / "features", spec) as writer:
        for row, name in enumerate(sorted(clip.name for clip in plan.clips)):
            value = float(int(name[-1]) + 10 * len(name))
            content = {"audio": np.full((1, 10, 3), value), "visual": np.full((1, 10, 4), -value)}
            writer.add("test", {"row": np.array([row]), "clip_id": [name], **content})
    return tmp_path / "features"


def test_every_clip_gets_its_own_features_its_split_and_its_labels(tmp_path, features, plan):
    label_store(features, plan, tmp_path / "store")
    data = open_data(tmp_path / "store", task="avvp")
    assert {name: data.rows(name) for name in data.splits} == {
        "train": 2,
        "validation": 1,
        "test": 2,
    }
    assert data.spec.features.extractors == {
        "recipe": {"name": "lite"}
    }  # predict reads videos by them
    assert data.spec.provenance["composition"]["seed"] == 1
    for known in plan.clips:
        split = data.split(known.split)
        at = split.clip_ids.index(known.name)
        batch, maps = split.batch([at]), label_maps(known)
        assert (
            batch.audio[0, 0, 0]
            == int(known.name[-1]) + 10 * len(known.name)
            == -batch.visual[0, 9, 3]
        )
        assert batch.labels["weak"][0].tolist() == maps["weak"].tolist()
        kind = "pseudo" if known.split == "train" else "dense"
        for stream in ("audio", "visual"):
            assert (
                batch.labels[f"{kind}_{stream}"][0].numpy().tolist()
                == maps[f"dense_{stream}"].tolist()
            )


def test_training_clips_have_no_dense_labels_and_test_clips_no_pseudo_labels(
    tmp_path, features, plan
):
    label_store(features, plan, tmp_path / "store")
    data = open_data(tmp_path / "store", task="avvp")
    for split, label in (("train", "dense_audio"), ("test", "pseudo_visual")):
        with pytest.raises(DataError, match="not known"):
            data.split(split).labels(label)


def test_features_that_lack_a_clip_are_refused(tmp_path, features, plan):
    more = Plan(seed=1, clips=(*plan.clips, clip("train", 7, 0)))
    with pytest.raises(DataError, match="lacks 1 clip, such as train_7"):
        label_store(features, more, tmp_path / "store")


def test_the_tables_hold_means_spreads_anchors_and_counts(plan):
    names = ("A", "V", "AV", "Type@AV", "Event@AV")
    figures = {f"{level}_{name}": 50.0 for level in ("segment", "event") for name in names}
    anchors = {"nothing_predicted": dict.fromkeys(figures, 7.0)}

    def run(a):
        per_class = {
            stream: dict.fromkeys(CLASSES, None) | {"Dog": a} for stream in ("audio", "visual")
        }
        return {
            "test": figures | {"segment_A": a},
            "details": {"test": {"anchors": anchors, "class_segment": per_class}},
        }

    results = {"cell": [run(40.0), run(44.0)]}
    lines = score_table(results).splitlines()
    assert lines[2].startswith("| cell | 42.0 ± 2.8 | 50.0 ± 0.0 |") and lines[3].startswith(
        "| (nothing predicted) | 7.0 |"
    )
    rows = {
        line.split(" | ")[0].strip("| "): line for line in class_table(plan, results).splitlines()
    }
    assert (
        rows["Dog"] == "| Dog | 2 | 1 | 2 | 1 | 42 / 42 |"
        and rows["Cat"] == "| Cat | 0 | 0 | 0 | 0 | – / – |"
    )
