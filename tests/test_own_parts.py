"""Parts from outside: what is said where they lack something, and what their base classes do."""

import json

import numpy as np
import pytest
import torch

from avplatform import (
    Annotations,
    DatasetAdapter,
    Decoder,
    Encoder,
    FeatureSpec,
    Metrics,
    Task,
    TaskConfig,
    register_dataset,
    register_decoder,
    register_encoder,
    register_task,
)
from avplatform.data.adapters.options import ImportOptions
from avplatform.data.adapters.registry import DATASETS
from avplatform.models.contracts import Parse, Prediction, StreamPredictions
from avplatform.models.encoders import ENCODERS
from avplatform.models.errors import DataError, UsageError
from avplatform.runs.results import results
from avplatform.tasks.batch import Batch
from avplatform.tasks.registry import TASKS


class Half(Task):
    default_encoder, selection_metric = "any", "share"

    def loss(self, parse, encoding, batch):
        return {}

    def decide(self, parse):
        return {"av": parse.segment.av.probability > 0.5}

    def metrics(self):
        return Share()


class Share(Metrics):
    def columns(self, decisions, batch):
        return {"found": decisions["av"]}

    def compute(self):
        return {"share": 100 * np.float32(self.scored()["found"].mean())}


def batch_of(rows):
    count = len(rows)
    audio, row = torch.zeros(count, 2, 3), torch.tensor(rows)
    return Batch(audio, audio, None, row, [f"clip{r}" for r in rows])


@pytest.mark.parametrize(
    ("register", "part", "said"),
    [
        (register_encoder, type("E", (Encoder,), {}), "E does not define `Config`, `forward` "),
        (
            register_decoder,
            type("D", (Decoder,), {"Config": TaskConfig}),
            "D does not .* `forward`",
        ),
        (
            register_task,
            type("T", (Task,), {}),
            "`selection_metric`, `loss` .*, `decide`.*`metrics`",
        ),
        (
            register_task,
            type("T", (Half,), {"metrics": Task.metrics}),
            "not define `metrics` .Return",
        ),
        (register_task, type("T", (Half,), {"Config": object}), "no option `supervision`"),
        (register_task, Half(TaskConfig(), classes=("a",)), "not a subclass of Task"),
        (register_dataset, type("S", (DatasetAdapter,), {})(), "`task`, `classes`, `features`"),
    ],
)
def test_a_part_that_lacks_something_is_refused_when_it_is_registered(register, part, said):
    with pytest.raises(UsageError, match=said):
        register("lacking", part)
    assert "lacking" not in {**ENCODERS, **TASKS, **DATASETS}


def test_what_a_task_does_not_define_is_said_where_it_is_needed():
    task = Half(TaskConfig(), classes=("dog", "train_horn"))
    Half.name = "half"
    with pytest.raises(UsageError, match="does not define probabilities"):
        task.probabilities(Parse())
    assert task.model_classes() == (["dog", "train_horn"], ["dog", "train horn"])
    other = task.with_classes(["cat"], ["a cat"])
    assert other.model_classes() == (["cat"], ["a cat"]) and task.classes == ("dog", "train_horn")


def test_decisions_that_are_called_by_a_stream_are_events_and_tracks():
    task = Half(TaskConfig(), classes=("train_horn",))
    scores = torch.tensor([[[1.0], [-1.0]]])
    decisions = task.decide(Parse(segment=StreamPredictions(av=Prediction(scores))))
    assert task.events({**decisions, "video": scores})["av"].tolist() == [[[True], [False]]]
    assert task.tracks(decisions, batch_of([4])) == []
    task.truth = lambda batch: {"av": torch.ones(1, 2, 1, dtype=torch.bool)}
    (track,) = task.tracks(decisions, batch_of([4]))
    assert track["clip_id"] == "clip4" and track["classes"] == ["train horn"]
    assert track["tracks"]["av"]["prediction"].tolist() == [[True], [False]]


def test_metrics_keep_clips_by_row_and_give_plain_numbers():
    metrics, found = Share(), torch.tensor([[True], [False]])
    with pytest.raises(DataError, match="no clip was scored"):
        metrics.compute()
    metrics.update({"av": found}, batch_of([7, 3]))
    assert metrics.state()["row"].tolist() == [3, 7] and len(metrics) == 2
    content = results(identity={}, selection=None, metrics={"test": metrics})
    assert type(content["test"]["share"]) is float and content["details"]["test"] == {"clips": 2}
    json.dumps(content)
    metrics.update({"av": found[:1]}, batch_of([3]))
    with pytest.raises(DataError, match="row 3 was scored twice"):
        metrics.state()


class Shelf(DatasetAdapter):
    task, classes = "avvp", ("dog", "cat")
    features, segments = FeatureSpec(audio_dim=3, visual_dim=2), 4

    def read(self, folder, *, audio_file=None, thorough=False):
        return Annotations(
            folder=folder,
            clip_ids=["good", "missing", "short", "nan", "silent", "spare"],
            splits={"train": np.arange(5)},
            labels={"weak": np.ones((6, 2), bool), "video": np.zeros(6, np.int32)},
        )

    def load(self, folder, clip_id):
        if clip_id == "missing":
            (folder / "missing.npy").open()
        audio = np.zeros((3 if clip_id == "short" else 4, 3))
        audio[0, 0] = np.nan if clip_id == "nan" else 0
        visual = {} if clip_id == "silent" else {"visual": np.zeros((4, 2))}
        return {"audio": audio, **visual}


def test_a_clip_that_cannot_be_loaded_is_left_out_with_its_reason(tmp_path):
    shelf = Shelf()
    shelf.name = shelf.title = "shelf"
    plan = shelf.plan(ImportOptions(dataset="shelf", source=str(tmp_path), out="out"))
    assert plan.spec.labels == {"weak": [2], "video": []}
    assert plan.spec.label_dtypes == {"weak": "uint8", "video": "int64"}
    assert [(item.clip_id, item.reason) for item in plan.left_out] == [
        ("spare", "belongs to no split")
    ]
    part = plan.read("train", range(5), "float16")
    assert part.columns["clip_id"] == ["good"] and part.columns["audio"].shape == (1, 4, 3)
    assert {item.clip_id: item.reason for _, item in part.left_out} == {
        "missing": "cannot be loaded: No such file or directory",
        "short": "has audio of shape (3, 3), not (4, 3)",
        "nan": "its audio holds NaN or infinite values",
        "silent": "has no 'visual' features",
    }
    assert part.left_out[0][1].file == str(tmp_path / "missing.npy")


def test_a_dataset_says_what_it_would_have_to_define(tmp_path):
    class Bare(DatasetAdapter):
        task, classes, features = "avvp", ("dog",), FeatureSpec()

        def preset(self):
            return None

    bare = Bare()
    bare.name = bare.title = "bare"
    with pytest.raises(UsageError, match="cannot be imported: Bare does not define `load`"):
        bare.plan(ImportOptions(dataset="bare", source=str(tmp_path), out="out"))
    with pytest.raises(UsageError, match="cannot be simulated: Bare does not define `clips`"):
        bare.clips(tmp_path, seed=1)
