"""`predict` on onnxruntime finds what it finds on torch, from a model or from an exported file."""

import json
import sys

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="needs the extra export")

import avplatform
from avplatform import pipeline
from avplatform.commands.predict import PredictOptions
from avplatform.exported.about import as_texts, read_texts
from avplatform.exported.graph import example
from avplatform.exported.runtime import ExportedModel
from avplatform.models.errors import DataError, UsageError
from avplatform.timeline.options import PipelineConfig
from tests.models.cells import build, cell
from tests.timeline.test_pipeline import FakeExtractor, noise


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    model = build("avvp", "han", "leap")
    return model, avplatform.export(model, folder / "leap.onnx").file


def parsed(model, **options):
    config = PipelineConfig(threshold=0.2, **options)
    return pipeline(model, extractor=FakeExtractor(5), config=config).parse(noise(), video="x.mp4")


def test_the_timeline_is_that_of_torch(files):
    model, file = files
    wanted, got = parsed(model), parsed(file)
    assert wanted.events and wanted.streams == got.streams and wanted.attention
    assert [(e.label, e.stream, e.onset, e.offset) for e in wanted.events] == [
        (e.label, e.stream, e.onset, e.offset) for e in got.events
    ]
    for name in wanted.scores:
        np.testing.assert_allclose(got.scores[name], wanted.scores[name], atol=1e-5)
        np.testing.assert_array_equal(got.found[name], wanted.found[name])
    for name in wanted.attention:
        np.testing.assert_allclose(got.attention[name], wanted.attention[name], atol=1e-5)


def test_a_file_parses_other_labels_too(files):
    model, file = files
    found = [
        pipeline(place, labels=["fiddle", "dog"], extractor=FakeExtractor(5)).parse(noise())
        for place in (model, file)
    ]
    assert found[1].labels == ["fiddle", "dog"]
    np.testing.assert_allclose(found[1].scores["audio"], found[0].scores["audio"], atol=1e-5)


@pytest.mark.slow
def test_a_model_is_exported_in_memory_where_the_runtime_is_asked_for():
    model = build("avel", "cmbs", "dch")
    found = [
        pipeline(
            model, extractor=FakeExtractor(5, "avel"), config=PipelineConfig(runtime=runtime)
        ).parse(noise("avel"))
        for runtime in ("torch", "onnx")
    ]
    assert found[0].scores["av"].any()
    np.testing.assert_allclose(found[1].scores["av"], found[0].scores["av"], atol=1e-5)
    assert PredictOptions.__dataclass_fields__["runtime"].default == "torch"


def test_labels_that_need_the_bank_are_refused_with_the_remedy(files):
    with pytest.raises(UsageError, match="never trained on.*--unseen plain"):
        pipeline(
            files[1],
            labels=["fiddle"],
            extractor=FakeExtractor(5),
            config=PipelineConfig(unseen="training"),
        )


@pytest.mark.parametrize("content", [b"this is no network", None])
def test_a_file_that_is_not_an_exported_network_is_named(tmp_path, content):
    file = tmp_path / "other.onnx"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=r"other\.onnx"):
        pipeline(file)


def test_a_network_of_somebody_else_is_refused(tmp_path, files):
    import onnx

    proto = onnx.load(files[1])
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "other.onnx")
    with pytest.raises(DataError, match=r"was not written by `avplatform export`"):
        ExportedModel(tmp_path / "other.onnx")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("label_embeddings", None),
        ("label_embeddings", '{"shape": [25, 50], "base64": "AAAA"}'),
        ("label_embeddings", '{"shape": [1, 1], "base64": "AAAAAA=="}'),
        ("outputs", '{"segment.audio": {}}'),
    ],
)
def test_a_file_whose_description_does_not_fit_its_network_is_refused(tmp_path, files, name, text):
    import onnx

    proto = onnx.load(files[1])
    said = {entry.key: entry.value for entry in proto.metadata_props if entry.key != name}
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, said if text is None else {**said, name: text})
    onnx.save(proto, tmp_path / "other.onnx")
    with pytest.raises(DataError, match=r"other\.onnx does not say rightly what it is"):
        ExportedModel(tmp_path / "other.onnx")


def test_sizes_that_a_network_does_not_read_are_named(files):
    model, file = files
    exported = ExportedModel(file)
    with pytest.raises(DataError, match=r"audio is \[0, 4, 6\].*reads \[batch, segments, 6\]"):
        exported(**example(model, batch=0, segments=4))  # onnxruntime might end the process
    inputs = example(model, batch=1, segments=4)
    inputs["visual"] = inputs["visual"][:, :3]
    with pytest.raises(DataError, match=r"fails at audio \[1, 4, 6\], visual \[1, 3, 8\]"):
        exported(**inputs)


@pytest.mark.slow
def test_a_network_of_one_length_refuses_a_shorter_video():
    model = cell("avvp", "mgn", "mmil", encoder_options={"audio_segments": "grouped"}).model
    parse = pipeline(
        model, extractor=FakeExtractor(5), config=PipelineConfig(threshold=0.2, runtime="onnx")
    )
    assert parse.parse(noise()).scores["audio"].any()
    with pytest.raises(DataError, match=r"audio is \[1, 7, 6\].*reads \[batch, 10, 6\]"):
        parse.parse(noise(seconds=7))


def test_a_file_of_torch_export_is_not_taken_for_a_model(tmp_path):
    (tmp_path / "m.pt2").write_bytes(b"")
    with pytest.raises(UsageError, match=r"is a file for `torch\.export\.load`"):
        pipeline(tmp_path / "m.pt2")


def test_a_missing_onnxruntime_gives_one_clear_line(files, monkeypatch, capsys):
    from avplatform.cli import main

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["predict", "x.mp4", "--model", str(files[1])]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and 'pip install "avplatform[export]"' in said


def test_what_a_file_says_is_json_or_text(files):
    about = ExportedModel(files[1]).about
    assert about["task"] == "avvp" and about["synthetic"] == "not recorded"
    assert json.dumps(about)


@pytest.mark.parametrize("text", ["1.0", "0", "true", "null", "NaN", '"quoted"', "[1]", "mit", ""])
def test_a_text_is_read_back_as_it_was_even_if_it_looks_like_a_number(text):
    about = {"config": {}, "outputs": {}, "licence": text, "segments": 10}
    assert read_texts(as_texts(about), "m.onnx") == about
