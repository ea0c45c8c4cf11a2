import numpy as np
import pytest

from avplatform.data.adapters.llp.classes import CLASSES as LLP
from avplatform.models.errors import UsageError
from examples.real_media.plan import Plan, PlannedClip, PlannedEvent, label_maps, make_plan
from examples.real_media.sources import BACKGROUND, CLASSES, PACKAGES

HEARD, SEEN = ["Dog", "Speech", "Singing"], ["Dog", "Speech", "Basketball_bounce"]


@pytest.fixture(scope="module")
def plan():
    return make_plan({"train": 150, "test": 50}, heard=HEARD, seen=SEEN, seed=5)


def test_a_plan_is_the_same_for_the_same_seed_and_survives_json(plan):
    again = make_plan({"train": 150, "test": 50}, heard=HEARD, seen=SEEN, seed=5)
    other = make_plan({"train": 150, "test": 50}, heard=HEARD, seen=SEEN, seed=6)
    assert again == plan == Plan.from_json(plan.to_json()) and other != plan


def test_a_clip_does_not_depend_on_how_many_there_are(plan):
    small = make_plan({"train": 3, "test": 2}, heard=HEARD, seen=SEEN, seed=5)
    assert [clip for clip in plan.clips if clip.name in {"train_0002", "test_0001"}] == [
        small.clips[2],
        small.clips[4],
    ]


def test_all_kinds_of_clips_occur_and_none_is_crowded(plan):
    kinds = set()
    for clip in plan.clips:
        maps = label_maps(clip)
        heard, seen = maps["dense_audio"].any(axis=0), maps["dense_visual"].any(axis=0)
        assert (
            maps["dense_audio"].sum(axis=1).max() <= 2
            and maps["dense_visual"].sum(axis=1).max() <= 2
        )
        kinds |= {"background"} if not clip.events else set()
        kinds |= {"heard only"} if (heard & ~seen).any() else set()
        kinds |= {"seen only"} if (seen & ~heard).any() else set()
        both = heard & seen
        same = (maps["dense_audio"] == maps["dense_visual"]).all(axis=0)
        kinds |= {"together"} if (both & same).any() else set()
        kinds |= {"apart"} if (both & ~same).any() else set()
        kinds |= {"overlap"} if maps["dense_audio"].sum(axis=1).max() == 2 else set()
    assert kinds == {"background", "heard only", "seen only", "together", "apart", "overlap"}


def test_a_class_without_sound_is_never_heard_and_one_without_photo_never_seen(plan):
    for clip in plan.clips:
        for event in clip.events:
            assert event.label in (HEARD if event.stream == "audio" else SEEN)
            assert 0 <= event.onset < event.offset <= 10


def test_a_split_without_clips_is_refused():
    with pytest.raises(UsageError, match="test is to have 0 clips"):
        make_plan({"train": 1, "test": 0}, heard=HEARD, seen=SEEN, seed=1)


def test_labels_are_the_seconds_of_the_events():
    events = (
        PlannedEvent(label="Dog", stream="audio", onset=2, offset=4),
        PlannedEvent(label="Car", stream="visual", onset=0, offset=10),
    )
    maps = label_maps(PlannedClip(name="a", split="test", events=events))
    dog, car = LLP.index("Dog"), LLP.index("Car")
    assert np.flatnonzero(maps["dense_audio"][:, dog]).tolist() == [2, 3]
    assert (
        maps["dense_visual"][:, car].all()
        and maps["dense_visual"].sum() == 10
        and maps["dense_audio"].sum() == 2
    )
    assert np.flatnonzero(maps["weak"]).tolist() == sorted([dog, car])


def test_the_sources_are_of_llps_classes_and_no_test_source_is_trained_on():
    assert set(CLASSES) <= set(LLP)
    for sources in (*CLASSES.values(), BACKGROUND):
        assert sources.all() and len(set(sources.all())) == len(sources.all())
        assert {source.partition(":")[0] for source in sources.all()} <= set(PACKAGES)
        for kind in ("photos", "sounds"):
            train, shared = sources.of(kind, "train")
            test, also = sources.of(kind, "test")
            assert sources.of(kind, "validation") == (train, shared) and shared == also
            assert (train == test) if shared else not set(train) & set(test)
