"""Models: shapes, exact shortcuts, saving, loading, and errors a user can act on."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from avplatform.models.av_model import AVModel
from avplatform.models.config import AVModelConfig
from avplatform.models.contracts import Encoding
from avplatform.models.decoders import DECODERS
from avplatform.models.errors import DataError, UsageError
from avplatform.models.stem import pool_clap, pool_frames
from avplatform.models.texts.glove import glove_embedder
from tests.models.cells import build, inputs


def test_a_fresh_process_gives_the_same_bits(tmp_path):
    model = build("avel", "ave", "leap")
    model.save_pretrained(tmp_path)
    code = (
        "import sys, torch; from avplatform.models.av_model import AVModel; "
        "from tests.models.cells import inputs; "
        "torch.set_num_threads(int(sys.argv[2])); m = AVModel.from_pretrained(sys.argv[1]); "
        "print(m(*inputs('avel')).parse.segment.av.values.double().flatten().tolist())"
    )
    threads = str(torch.get_num_threads())
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), threads],
        capture_output=True,
        text=True,
        check=True,
    )
    expected = model(*inputs("avel")).parse.segment.av.values.double().flatten().tolist()
    assert json.loads(done.stdout) == expected


def test_pooling_before_the_linear_map_equals_pooling_after():
    model = build("avvp", "han", "mmil").double()
    audio, _, motion = (x.double() for x in inputs("avvp"))
    frames = torch.randn(2, 80, 8, dtype=torch.float64)
    stem = model.stem
    late = stem.visual(frames).unflatten(1, (10, 8)).mean(dim=2)
    expected = stem.fusion(torch.cat([late, stem.motion(motion)], dim=-1))
    torch.testing.assert_close(stem(audio, frames, motion)[1], expected, rtol=1e-12, atol=1e-12)
    assert pool_frames(frames, 10).shape == (2, 10, 8)


def test_clap_tokens_may_be_pooled_before_the_linear_map():
    tokens = torch.randn(2, 64, 8, dtype=torch.float64)
    linear = torch.nn.Linear(8, 5).double()
    late = linear(
        torch.nn.functional.interpolate(
            tokens.mT.reshape(2, 8, 2, 32), size=(2, 1024), mode="bicubic"
        ).permute(0, 2, 3, 1)
    )
    expected = torch.nn.functional.adaptive_avg_pool1d(late.mean(dim=1).mT, 10).mT
    torch.testing.assert_close(linear(pool_clap(tokens)), expected, rtol=1e-10, atol=1e-12)
    with pytest.raises(DataError, match="64 tokens"):
        pool_clap(tokens[:, :60])


@pytest.mark.parametrize(
    ("weights", "features"), [(torch.float64, torch.float32), (torch.float32, torch.float16)]
)
def test_features_are_cast_to_the_precision_of_the_weights(weights, features):
    model = build("avel", "ave", "leap").to(weights)
    data = [x.to(features) for x in inputs("avel")[:2]]
    found = model(
        *data, label_embeddings=glove_embedder()(["dog"]).to(features)
    ).parse.segment.av.values
    assert found.dtype == weights
    expected = model(
        *(x.to(weights) for x in data),
        label_embeddings=glove_embedder()(["dog"]).to(features).to(weights),
    )
    assert torch.equal(found, expected.parse.segment.av.values)


def test_leap_parses_any_labels_and_their_order_does_not_matter():
    model = build("avel", "ave", "leap")
    data = inputs("avel")
    labels = glove_embedder()(["dog", "train", "cello"])
    segment = model(*data, label_embeddings=labels).parse.segment.av.values
    turned = model(*data, label_embeddings=labels[[2, 0, 1]]).parse.segment.av.values
    assert segment.shape == (2, 10, 3)
    torch.testing.assert_close(turned, segment[..., [2, 0, 1]])


def test_leap_weights_do_not_depend_on_the_number_of_classes():
    decoder = DECODERS["leap"]
    shapes = [
        {
            k: v.shape
            for k, v in decoder(
                config=decoder.Config(heads=2), width=16, num_classes=c, label_dim=50
            )
            .state_dict()
            .items()
        }
        for c in (3, 29)
    ]
    assert shapes[0] == shapes[1]


def test_official_init_starts_maps_and_blocks_as_copies():
    for copies in (True, False):
        decoder = DECODERS["leap"](
            config=DECODERS["leap"].Config(heads=2, official_init=copies), width=16, label_dim=5
        )
        first, last = decoder.audio_blocks[0].attention, decoder.visual_blocks[-1].attention
        assert torch.equal(first.query.weight, last.key.weight) is copies


def test_the_paper_form_scores_with_the_query_before_its_update():
    decoder = DECODERS["leap"](
        config=DECODERS["leap"].Config(
            form="paper", heads=1, blocks=1, shared_video_classifier=True
        ),
        width=4,
        label_dim=3,
    ).eval()
    encoding = Encoding(audio=torch.randn(1, 5, 4), visual=torch.randn(1, 5, 4))
    queries = torch.randn(2, 4)
    block = decoder.audio_blocks[0]
    expected = block.query(queries) @ block.key(encoding.audio[0]).T / 2
    torch.testing.assert_close(
        decoder.project(queries, encoding).segment.audio.values[0], expected.T
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda a, v, m: (a[..., :5], v, m),
            r"audio has shape \[2, 10, 5\]; the model reads \[B, T, 6\]",
        ),
        (lambda a, v, m: (a, v[:, :7], m), r"visual has shape \[2, 7, 8\]"),
        (lambda a, v, m: (a, v, None), "motion features are missing"),
        (lambda a, v, m: (a, v, m[:, :4]), r"motion has shape \[2, 4, 4\]"),
    ],
)
def test_streams_of_the_wrong_shape_are_named(change, message):
    with pytest.raises(DataError, match=message):
        build("avvp", "han", "mmil")(*change(*inputs("avvp")))


def test_a_model_without_its_label_embeddings_is_refused():
    config = build("avel", "ave", "leap").config
    with pytest.raises(UsageError, match="needs label embeddings"):
        AVModel(config)


def _break(folder, name):
    weights = load_file(folder / "model.safetensors")
    first = sorted(k for k in weights if k != "label_embeddings")[0]
    if name == "missing key":
        del weights[first]
    elif name == "unknown key":
        weights["stranger"] = torch.zeros(1)
    elif name == "misshapen key":
        weights[first] = torch.zeros(1, 2, 3)
    elif name == "no labels":
        del weights["label_embeddings"]
    elif name == "truncated":
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
        return
    elif name == "no weights":
        (folder / "model.safetensors").unlink()
        return
    elif name == "no config":
        (folder / "config.json").unlink()
        return
    elif name == "broken config":
        (folder / "config.json").write_text("{")
        return
    elif name == "not a config":
        (folder / "config.json").write_text('"abc"')
        return
    elif name == "unknown encoder":
        config = json.loads((folder / "config.json").read_text())
        config["encoder"]["_type"] = "hna"
        (folder / "config.json").write_text(json.dumps(config))
        return
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing key", "missing: "),
        ("unknown key", "unknown: stranger"),
        ("misshapen key", "misshapen: "),
        ("no labels", "no label_embeddings"),
        ("truncated", "not a whole safetensors file"),
        ("no weights", "no model.safetensors"),
        ("no config", "no config.json"),
        ("broken config", "not valid JSON"),
        ("not a config", "lacks an encoder, a decoder or features"),
        ("unknown encoder", "did you mean 'han'"),
    ],
)
def test_a_damaged_model_folder_is_refused_with_the_reason(tmp_path, damage, message):
    build("avel", "ave", "leap").save_pretrained(tmp_path)
    _break(tmp_path, damage)
    with pytest.raises(DataError, match=message):
        AVModel.from_pretrained(tmp_path)


def test_a_place_that_is_neither_folder_nor_hub_id_is_named(tmp_path):
    with pytest.raises(DataError, match="no model folder"):
        AVModel.from_pretrained(str(tmp_path / "nothing"))
    with pytest.raises(DataError, match="owner/name"):
        AVModel.from_pretrained("owner/name")


def test_config_survives_json():
    config = build("avvp", "han", "leap").config
    assert AVModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_config_of_a_newer_version_is_refused():
    data = {**build("avvp", "han", "leap").config.to_dict(), "_version": 99}
    with pytest.raises(DataError, match="upgrade"):
        AVModelConfig.from_dict(data)
