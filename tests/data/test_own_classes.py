"""Stores with other classes, lengths and texts than the known datasets, and an external dataset."""

import json

import numpy as np
import pytest

from avplatform.cli import main
from avplatform.config.build import build_task
from avplatform.config.run import default_config
from avplatform.data.adapters.contracts import DatasetAdapter
from avplatform.data.adapters.registry import DATASETS, make_task, register_dataset, texts_of
from avplatform.data.reading.restricted import restricted_spec
from avplatform.data.reading.source import open_data
from avplatform.data.store.schema import DataSpec, Manifest
from avplatform.data.store.writer import StoreWriter
from avplatform.models.av_model import AVModel
from avplatform.models.config import AVModelConfig
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import DataError, UsageError
from avplatform.tasks.registry import task_of_model
from avplatform.timeline.pipeline import Pipeline, PipelineConfig
from avplatform.timeline.windows import Features

EVENTS = ["dog", "train_horn", "clapping"]
SEGMENTS, SECONDS = 6, 0.5
FEATURES = FeatureSpec(audio_dim=5, visual_dim=7)
SIZES = {"train": 12, "validation": 5, "test": 5}
SMALL = [
    "--cpu",
    "--threads",
    "1",
    "--precision",
    "no",
    "--batch-size",
    "4",
    "--max-steps",
    "3",
    "--no-save-plots",
]


def spec_of(task, **changes):
    count = len(EVENTS)
    labels = {"segment": [SEGMENTS], "video": []}
    if task == "avvp":
        labels = {
            "weak": [count],
            "dense_audio": [SEGMENTS, count],
            "dense_visual": [SEGMENTS, count],
        }
    given = dict(
        name="mine",
        task=task,
        classes=EVENTS if task == "avvp" else [*EVENTS, "background"],
        features=FEATURES,
        labels=labels,
        label_dtypes=dict.fromkeys(labels, "uint8" if task == "avvp" else "int64"),
        segments=SEGMENTS,
        segment_seconds=SECONDS,
        provenance={"made": "by a test"},
    )
    return DataSpec(**{**given, **changes})


def labels_of(task, count, rng):
    video = np.arange(count) % len(EVENTS)
    inside = rng.random((count, SEGMENTS)) < 0.6
    inside[:, 0] = True
    if task == "avel":
        return {"segment": np.where(inside, video[:, None], len(EVENTS)), "video": video}
    heard = np.eye(len(EVENTS), dtype=np.uint8)[video][:, None] * inside[..., None].astype(np.uint8)
    weak = heard.max(axis=1)
    return {"weak": weak, "dense_audio": heard, "dense_visual": heard[:, ::-1].copy()}


def write(folder, spec):
    rng, row = np.random.default_rng(0), 0
    with StoreWriter(folder, spec) as writer:
        for split, count in SIZES.items():
            columns = {
                "row": np.arange(row, row + count),
                "clip_id": [f"clip{n:03d}" for n in range(row, row + count)],
                "audio": rng.standard_normal((count, spec.segments, 5)).astype(np.float32),
                "visual": rng.standard_normal((count, spec.segments, 7)).astype(np.float32),
                **labels_of(spec.task, count, rng),
            }
            writer.add(split, columns)
            row += count
    return folder


def train(task, data, out, *flags):
    width = ["--encoder-config.width", "16", "--encoder-config.hidden", "16"]
    return main(
        [
            "train",
            "--task",
            task,
            "--encoder",
            "han",
            "--data",
            str(data),
            "--output-dir",
            str(out),
            *SMALL,
            *width,
            *flags,
        ]
    )


@pytest.mark.parametrize(
    ("task", "supervision", "decoder"),
    [
        ("avvp", "weak", "mmil"),
        ("avvp", "weak", "leap"),
        ("avel", "full", "leap"),
        ("avel", "weak", "dch"),
    ],
)
def test_both_tasks_train_on_any_classes_and_any_length(tmp_path, task, supervision, decoder):
    data = write(tmp_path / "data", spec_of(task))
    assert (
        train(task, data, tmp_path / "run", "--supervision", supervision, "--decoder", decoder) == 0
    )
    model = AVModel.from_pretrained(tmp_path / "run" / "model")
    assert [name for name in model.config.classes if name != "background"] == EVENTS
    assert (model.config.segments, model.config.segment_seconds) == (SEGMENTS, SECONDS)
    if decoder == "leap":
        assert model.config.label_texts[:3] == ["dog", "train horn", "clapping"]
    loaded = task_of_model(model.config)
    spec = open_data(str(data), task=task).spec
    assert loaded.classes == build_task(default_config(task), spec).classes
    assert (
        main(["eval", str(tmp_path / "run"), "--cpu", "--data", str(data), "--bootstrap", "50"])
        == 0
    )


@pytest.mark.parametrize("task", ["avvp", "avel"])
def test_a_class_is_held_out_of_a_store_of_own_classes(tmp_path, task):
    data = write(tmp_path / "data", spec_of(task))
    flags = ["--decoder", "leap", "--held-out", "clapping"] + (
        ["--supervision", "weak"] if task == "avvp" else []
    )
    assert train(task, data, tmp_path / "run", *flags) == 0
    model = AVModel.from_pretrained(tmp_path / "run" / "model")
    assert (
        model.config.label_texts[:2] == ["dog", "train horn"]
        and "clapping" not in model.config.classes
    )
    flags = ["--cpu", "--data", str(data), "--held-out", "clapping"]
    assert main(["eval", str(tmp_path / "run"), *flags]) == 0


def test_a_store_may_leave_background_to_the_task(tmp_path):
    data = write(tmp_path / "data", spec_of("avel"))
    without = spec_of("avel", classes=EVENTS)
    assert make_task("avel", spec=without).classes == (*EVENTS, "background")
    with pytest.raises(UsageError, match="must be the last"):
        make_task("avel", spec=spec_of("avel", classes=["background", *EVENTS]))
    assert Manifest.read(data).spec.classes[-1] == "background"


def test_texts_of_the_store_are_the_models(tmp_path):
    texts = {
        "plain": ["a dog", "train horn", "broken glass"],
        "official": ["dog", "horn", "clapping"],
    }
    spec = Manifest.read(write(tmp_path / "data", spec_of("avvp", texts=texts))).spec
    config = default_config("avvp", "han", "leap")
    assert build_task(config, spec).model_classes("leap")[1] == texts["plain"]
    config.task_config.label_texts = "official"
    assert build_task(config, spec).model_classes("leap")[1] == texts["official"]
    assert restricted_spec(spec, [2]).texts == {"plain": ["broken glass"], "official": ["clapping"]}
    with pytest.raises(UsageError, match="label_texts is 'official'.*they have: plain"):
        build_task(config, spec_of("avvp", texts={"plain": texts["plain"]})).model_classes("leap")
    with pytest.raises(UsageError, match="one text per class"):
        spec_of("avvp", texts={"plain": ["dog"]})


def test_an_old_store_has_the_texts_of_the_dataset_with_its_classes(tmp_path):
    classes = list(DATASETS["llp"].classes)
    spec = spec_of("avvp", classes=classes, labels={}, label_dtypes={})
    assert texts_of(spec)["official"][5] == "fry food"
    assert not texts_of(spec_of("avvp"))


def test_the_manifest_says_what_is_new_only_where_it_is(tmp_path):
    plain = Manifest.read(write(tmp_path / "plain", spec_of("avvp", segment_seconds=1.0)))
    content = json.loads(plain.to_json())
    assert content["version"] == 3 and not {"texts", "segment_seconds"} & set(content["spec"])
    file = tmp_path / "plain" / "dataset.json"
    file.write_text(json.dumps({**content, "version": 2}))
    assert Manifest.read(tmp_path / "plain").spec.segment_seconds == 1.0
    file.write_text(json.dumps({**content, "version": 4}))
    with pytest.raises(DataError, match="reads up to 3"):
        Manifest.read(tmp_path / "plain")


def test_a_models_config_says_its_clips_only_where_they_are_not_ten_seconds():
    from avplatform.models.decoders.mmil import MMILConfig
    from avplatform.models.encoders.han import HANConfig

    given = dict(task="avvp", classes=["a"], encoder=HANConfig(), decoder=MMILConfig())
    old, new = AVModelConfig(**given).to_dict(), AVModelConfig(**given, segments=6).to_dict()
    assert old["_version"] == 1 and "segments" not in old
    assert AVModelConfig.from_dict(old).segments == 10
    assert new["_version"] == 2 and AVModelConfig.from_dict(new).segments == 6


def test_a_timeline_has_the_models_segments(tmp_path):
    data = write(tmp_path / "data", spec_of("avvp"))
    assert train("avvp", data, tmp_path / "run", "--supervision", "weak", "--decoder", "mmil") == 0
    model = AVModel.from_pretrained(tmp_path / "run" / "model")
    options = dict(name="m", labels=None, embeddings=None)
    parse = Pipeline(model, None, config=PipelineConfig(threshold=0.0), **options)
    assert (parse.window, parse.hop) == (6, 3)
    rng = np.random.default_rng(1)
    features = Features(
        audio=rng.standard_normal((9, 5)).astype(np.float32),
        visual=rng.standard_normal((9, 7)).astype(np.float32),
    )
    found = parse.parse(features)
    assert found.duration == 4.5 and {(e.onset, e.offset) for e in found.events} == {(0.0, 4.5)}
    with pytest.raises(UsageError, match="segments last 0.5 s"):
        parse("video.mp4")
    with pytest.raises(UsageError, match="leaves gaps"):
        Pipeline(model, None, config=PipelineConfig(hop=4), **options)


def test_a_dataset_from_outside_is_registered_by_one_line_and_trained_on(tmp_path):
    class Mine(DatasetAdapter):
        name, title, task = "mine", "Mine", "avvp"
        classes, texts = tuple(EVENTS), {"plain": ("bark", "bell train", "clapping")}
        features, segments, segment_seconds, counts = FEATURES, SEGMENTS, SECONDS, SIZES

        def plan(self, options):
            return Plan(options)

    class Plan:
        block, parallel = 4, True
        defects, left_out, remarks, sources, fingerprint = [], [], [], {}, []

        def __init__(self, options):
            self.spec, rng = spec_of("avvp"), np.random.default_rng(0)
            bounds = np.cumsum([0, *SIZES.values()])
            self.splits = {
                s: np.arange(a, b) for s, a, b in zip(SIZES, bounds, bounds[1:], strict=False)
            }
            count = int(bounds[-1])
            self.columns = {
                "audio": rng.standard_normal((count, SEGMENTS, 5)),
                "visual": rng.standard_normal((count, SEGMENTS, 7)),
                **labels_of("avvp", count, rng),
            }

        def read(self, split, positions, dtype):
            from avplatform.data.adapters.plan import Part

            rows = self.splits[split][list(positions)]
            columns = {name: values[rows] for name, values in self.columns.items()}
            return Part({"row": rows, "clip_id": [f"clip{row}" for row in rows], **columns})

        def bytes_of(self, rows):
            return 0

    register_dataset("mine", Mine())
    try:
        (tmp_path / "files").mkdir()
        assert (
            main(
                ["data", "import", "mine", str(tmp_path / "files"), "--out", str(tmp_path / "data")]
            )
            == 0
        )
        assert main(["data", "verify", str(tmp_path / "data")]) == 0
        spec = Manifest.read(tmp_path / "data").spec
        assert texts_of(spec)["plain"][1] == "bell train"
        assert (
            train(
                "avvp",
                tmp_path / "data",
                tmp_path / "run",
                "--supervision",
                "weak",
                "--decoder",
                "leap",
            )
            == 0
        )
        model = AVModel.from_pretrained(tmp_path / "run" / "model")
        assert model.config.label_texts == ["bark", "bell train", "clapping"]
    finally:
        del DATASETS["mine"]
