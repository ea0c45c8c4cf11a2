"""An exported network computes what its model computes, at any size, and says what it is."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime", reason="needs the extra export")

import avplatform
from avplatform.cli import main
from avplatform.config.compose import compose
from avplatform.config.presets import list_presets
from avplatform.config.run import RunConfig, default_config
from avplatform.exported import write
from avplatform.exported.about import unpacked
from avplatform.exported.graph import example, trace, values_of
from avplatform.models.errors import DataError, UsageError
from avplatform.tasks.registry import TASKS
from avplatform.training_free.model import TRAINING_FREE
from tests.models.cells import (
    FEATURES,
    SUPERVISED_CELLS,
    build,
    build_cell,
    cell,
    shrunk,
    with_small_texts,
)

ROOT = Path(__file__).resolve().parents[2]
FAST = ("avvp-han-leap-pseudo", "avel-psp-dch-full")


def networks() -> dict[str, RunConfig]:
    """Return a run of each network that cells and presets declare, by the name of the first."""
    runs = {"-".join(key): default_config(*key) for key in SUPERVISED_CELLS}
    runs |= {name: compose((name, {"preset": name})) for name in list_presets()}
    found: dict[tuple[str, ...], tuple[str, RunConfig]] = {}
    for name, run in runs.items():
        small = shrunk(run)
        found.setdefault(
            (run.task, repr(small.encoder_config), repr(small.decoder_config)), (name, small)
        )
    return dict(found.values())


NETWORKS = networks()
SIZES = {"batch": 6, "segments": 23, "labels": 30}  # of few texts, no cosine may be positive


@pytest.fixture(scope="module")
def leap(tmp_path_factory):
    """A model of event texts, its folder, and its ONNX file."""
    folder = tmp_path_factory.mktemp("leap")
    model = build("avvp", "han", "leap")
    model.save_pretrained(folder / "model")
    done = avplatform.export(folder / "model", folder / "leap.onnx")
    return model, folder, done


def run_onnx(file, inputs):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    arrays = session.run(None, {name: values.numpy() for name, values in inputs.items()})
    return dict(zip(names, map(torch.from_numpy, arrays), strict=True))


@pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS],
)
def test_a_network_computes_the_same_at_sizes_that_were_never_traced(name, tmp_path, monkeypatch):
    run = NETWORKS[name]
    model = build_cell(with_small_texts(run), FEATURES[run.task]).model.eval()
    traced = trace(model)
    monkeypatch.setattr(write, "trace", lambda _: traced)  # once for both formats: it takes long
    free = getattr(run.encoder_config, "audio_segments", "") != "grouped"
    inputs = example(model, seed=9, **SIZES | ({} if free else {"segments": model.config.segments}))
    with torch.no_grad():
        wanted = values_of(model(**inputs).parse.for_decisions)
    for to, ending in write.ENDINGS.items():
        file = tmp_path / f"model{ending}"
        done = avplatform.export(model, file, to=to)
        assert len(done.differences) == (4 if free else 3) and done.largest < 1e-4
        assert ("segments" in done.about["inputs"]["audio"]) == free
        with torch.no_grad():
            got = (
                run_onnx(file, inputs)
                if to == "onnx"
                else torch.export.load(file).module()(**inputs)
            )
        assert list(got) == list(wanted) == list(done.about["outputs"])
        for output, values in wanted.items():
            assert values.abs().max() > 0
            torch.testing.assert_close(got[output], values, atol=1e-4, rtol=1e-4)


def test_the_page_says_which_networks_are_exported_and_which_keep_their_length():
    page = " ".join((ROOT / "docs" / "export.md").read_text(encoding="utf-8").split())
    assert f"they are {len(NETWORKS)} networks" in page
    grouped = [run for run in NETWORKS.values() if hasattr(run.encoder_config, "audio_segments")]
    grouped = [run for run in grouped if run.encoder_config.audio_segments == "grouped"]
    assert {(run.encoder, run.decoder) for run in grouped} == {("mgn", "group")}
    assert {run.task for run in grouped} == set(TASKS)  # so the page need not name the task
    assert "MGN with `audio_segments grouped`, the default with the decoder `group`, has" in page
    assert f"Only `{TRAINING_FREE}` is not exported" in page


@pytest.mark.slow
def test_a_model_of_clips_of_one_length_keeps_it_and_leaves_the_batch_free(tmp_path):
    options = {"audio_segments": "grouped"}
    model = cell("avvp", "mgn", "mmil", encoder_options=options).model.eval()
    done = avplatform.export(model, tmp_path / "mgn.pt2", to="torch-export")
    assert done.about["inputs"]["audio"] == ["batch", 10, 6]
    assert any("audio [4, 10, 6]" in shape for shape in done.differences)


@pytest.mark.slow
def test_clips_of_which_a_convolution_leaves_one_step_are_read(tmp_path):
    model = build("avel", "dhhn", "dch")  # strides of 2 and 5 segments
    done = avplatform.export(model, tmp_path / "dhhn.pt2", to="torch-export")
    network = torch.export.load(done.file).module()
    for segments in (1, 2, 5, 6):
        inputs = example(model, seed=4, batch=1, segments=segments)
        with torch.no_grad():
            wanted, got = values_of(model(**inputs).parse.for_decisions), network(**inputs)
        for output, values in wanted.items():
            torch.testing.assert_close(got[output], values, atol=1e-4, rtol=1e-4)
    inputs["visual"] = inputs["visual"][:, :3]
    with pytest.raises(AssertionError, match="Guard failed"):  # sizes that must agree still do
        network(**inputs)


@pytest.mark.slow
def test_a_model_of_half_precision_is_exported_in_single_and_stays_as_it_was(tmp_path):
    model = build("avvp", "han", "mmil").bfloat16().train()
    done = avplatform.export(model, tmp_path / "half.pt2", to="torch-export")
    assert done.largest < 1e-4
    assert model.training and model.dtype == torch.bfloat16


def test_the_file_alone_says_how_it_is_used(leap):
    import onnx

    model, _, done = leap
    proto = onnx.load(done.file)
    said = {entry.key: entry.value for entry in proto.metadata_props}
    assert said["task"] == "avvp" and json.loads(said["classes"]) == model.config.classes
    assert said["avplatform"] == avplatform.__version__ and said["licence"] == "apache-2.0"
    assert json.loads(said["decision"])["options"]["threshold"] == 0.5
    inputs, outputs = json.loads(said["inputs"]), json.loads(said["outputs"])
    assert inputs["label_embeddings"] == ["labels", 50]
    assert outputs["segment.audio"] == {
        "axes": ["batch", "segments", "labels"],
        "kind": "logit",
        "activation": "sigmoid",
    }
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*proto.graph.input, *proto.graph.output)
    }
    assert shapes == inputs | {name: told["axes"] for name, told in outputs.items()}
    texts = unpacked(json.loads(said["label_embeddings"]))
    torch.testing.assert_close(texts, model.label_embeddings)
    assert str(write.__file__).encode() not in done.file.read_bytes()


@pytest.mark.slow
def test_a_torch_export_file_needs_no_avplatform(tmp_path):
    done = avplatform.export(build("avel", "ave", "dch"), tmp_path / "a.pt2", to="torch-export")
    code = (
        "import json, sys, torch\n"
        "files = {'about.json': ''}\n"
        "network = torch.export.load(sys.argv[1], extra_files=files).module()\n"
        "assert 'avplatform' not in sys.modules\n"
        "found = network(audio=torch.ones(5, 13, 6), visual=torch.ones(5, 13, 2, 3, 8))\n"
        "print(json.loads(files['about.json'])['task'], list(found['segment.av'].shape))"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-c", code, str(done.file)], cwd=tmp_path, capture_output=True,
        encoding="utf-8",
    )  # fmt: skip
    assert ran.stdout.split(maxsplit=1) == ["avel", "[5, 13, 29]\n"], ran.stderr


def test_the_command_says_what_it_wrote_and_how_far_it_was_checked(leap, capsys):
    _, folder, _ = leap
    asked = ["export", str(folder / "model"), "--to", "onnx", "--out", str(folder / "leap.onnx")]
    assert main(asked) == 2
    assert "exists; give --replace" in capsys.readouterr().err
    assert main([*asked, "--replace"]) == 0
    said = capsys.readouterr().out
    assert "label_embeddings [25, 50]: largest difference" in said
    assert "audio [batch, segments, 6]" in said and "(onnx, 0.1 MB)" in said


@pytest.mark.parametrize(
    ("file", "to", "why"),
    [
        ("m.pt2", "onnx", "does not end in .onnx"),
        ("m.onnx", "torch-export", "does not end in .pt2"),
        ("m.onnx", "tflite", "unknown format 'tflite'"),
        ("", "onnx", "is a folder"),
    ],
)
def test_a_wrong_request_is_refused_before_any_work(leap, tmp_path, file, to, why):
    with pytest.raises(UsageError, match=why):
        avplatform.export(leap[1] / "model", tmp_path / file, to=to)


def test_a_file_is_not_exported_again(leap, tmp_path):
    with pytest.raises(UsageError, match=r"leap\.onnx is a file; give the run or model folder"):
        avplatform.export(leap[2].file, tmp_path / "m.onnx")


def test_a_network_that_branches_on_its_values_is_refused_in_one_sentence(
    leap, tmp_path, monkeypatch, capsys
):
    kind = type(leap[0].encoder)
    forward = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, audio, visual: forward(
        self, audio if audio.sum() > 0 else -audio, visual
    ))  # fmt: skip
    file = tmp_path / "m.onnx"
    assert main(["export", str(leap[1] / "model"), "--to", "onnx", "--out", str(file)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "error: the model cannot be exported: " in said
    assert not file.exists()


def test_the_training_free_model_is_refused_in_one_sentence(tmp_path, capsys):
    file = tmp_path / "m.onnx"
    assert main(["export", "training-free", "--to", "onnx", "--out", str(file)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "consists of CLIP and CLAP and has no network" in said
    assert not file.exists()


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="no model folder nowhere"):
        avplatform.export("nowhere", tmp_path / "m.onnx")


@pytest.mark.parametrize("name", ["file/m.onnx", f"{'m' * 250}.onnx"])
def test_a_place_that_cannot_be_written_is_named_before_any_work(leap, tmp_path, monkeypatch, name):
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(write, "trace", lambda model: pytest.fail("traced"))
    with pytest.raises(DataError, match="cannot write"):
        avplatform.export(leap[0], tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_is_full_at_the_end_is_named(leap, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "onnx_bytes", lambda *_: leap[2].file.read_bytes())
    monkeypatch.setattr(write, "checked", lambda *_: {"": 0.0})
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(write, "write_atomic", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(DataError, match="cannot write .*: No space left on device"):
        avplatform.export(leap[0], tmp_path / "m.onnx")


def test_a_missing_package_is_named_with_the_command_that_installs_it(leap, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match=r"onnxscript.*pip install \"avplatform\[export\]\""):
        avplatform.export(leap[0], tmp_path / "m.onnx")


def test_a_network_that_is_not_equal_is_not_kept(leap, tmp_path, monkeypatch):
    model, _, done = leap
    content = done.file.read_bytes()
    monkeypatch.setattr(write, "onnx_bytes", lambda *_: content)
    other = build("avvp", "han", "leap")
    with torch.no_grad():
        other.decoder.labels.bias.add_(0.5)
    with pytest.raises(DataError, match=r"is not equal to the model: segment\.audio differs by"):
        avplatform.export(other, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
    assert np.isfinite(done.largest)
