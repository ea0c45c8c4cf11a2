"""What `avplatform convert` says, refuses and writes, on the smaller published models."""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from avplatform.cli import main
from avplatform.data.adapters.llp.classes import OFFICIAL_LABEL_TEXTS
from avplatform.labels.cache import label_embeddings
from avplatform.models.av_model import AVModel
from avplatform.models.contracts import Output
from avplatform.models.errors import DataError, UsageError
from tests.convert.official_files import CASES, golden, save, save_as
from tests.hub.fake_hub import FakeHub, metadata_errors
from tests.hub.test_hub import client, command, done
from tests.models.test_models import build, inputs
from tests.parity.golden_case import DEFAULT_GOLDEN, Case


def convert(file, name, out, *flags):
    return main(["convert", str(file), "--from", name, "--out", str(out), *flags])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The smaller published models, as plain state dicts."""
    folder = tmp_path_factory.mktemp("published")
    found = {}
    for case in (
        "ave_att",
        "ave_dmrn",
        "psp_full",
        "psp_weak",
        "cmbs_full",
        "cmbs_weak",
        "valor_han_pre",
        "valor_han_post",
    ):
        found[case] = save_as("zip", golden(case)[1], folder / f"{case}.pt")
    return found


def changed(file, path, change):
    """A copy of a state dict after `change` was at it."""
    tensors = torch.load(file, weights_only=True)
    found = change(tensors)
    return save(tensors if found is None else found, path, legacy=False)


def test_what_was_inferred_assumed_and_given_is_said(files, tmp_path, capsys):
    lines = {}
    for case, flags in [
        ("cmbs_full", ()),
        ("psp_weak", ()),
        ("valor_han_post", ()),
        ("valor_han_pre", ("--norm", "pre")),
    ]:
        assert convert(files[case], CASES[case][0], tmp_path / case, *flags) == 0
        lines[case] = capsys.readouterr().out
    assert (
        "heads 4: default" in lines["cmbs_full"]
        and "interaction heads 4: default" in lines["cmbs_full"]
    )
    assert "weak no: read from the file" in lines["cmbs_full"]
    assert "weak yes: read from the file (it has 'W3.weight'" in lines["psp_weak"]
    assert "norm post: default (keys and shapes do not tell it" in lines["valor_han_post"]
    assert (
        "norm pre: given" in lines["valor_han_pre"] and "heads 8: default" in lines["valor_han_pre"]
    )
    assert "no value changed" in lines["psp_weak"]


def test_final_norms_as_they_start_speak_for_post(files, tmp_path, capsys):
    def untrained(tensors):
        for name, value in tensors.items():
            if "final_norm" in name:
                value.fill_(1.0 if name.endswith("weight") else 0.0)

    file = changed(files["valor_han_post"], tmp_path / "a.pt", untrained)
    assert convert(file, "valor", tmp_path / "m") == 0
    assert "have their initial values, which speaks for post" in capsys.readouterr().out


def test_the_wrong_norm_misses_the_golden_outputs(files, tmp_path, handlers):
    assert convert(files["valor_han_pre"], "valor", tmp_path / "m", "--norm", "post") == 0
    with pytest.raises(AssertionError, match="valor_han_pre"):
        handlers["valor_han_pre"](
            golden("valor_han_pre")[0], model=AVModel.from_pretrained(tmp_path / "m")
        )


@pytest.mark.parametrize(
    ("case", "flags", "code", "words"),
    [
        ("psp_full", ["--weak"], 1, ["--weak contradicts the file", "lacks 'W3.weight'"]),
        (
            "cmbs_full",
            ["--weak"],
            1,
            ["--weak contradicts the file", "CAS_model.classifier.0.weight"],
        ),
        ("cmbs_weak", ["--norm", "pre"], 2, ["--norm means nothing for cmbs", "valor"]),
        (
            "psp_weak",
            ["--heads", "4"],
            2,
            ["--heads means nothing for psp", "han, mmpyr, leap, cmbs, valor"],
        ),
        ("ave_dmrn", ["--weak"], 2, ["--weak means nothing for dmrn", "ave, psp, cmbs"]),
        ("ave_att", ["--blocks", "2"], 2, ["--blocks means nothing for ave", "leap"]),
        (
            "ave_att",
            ["--label-embeddings", "x.npy"],
            2,
            ["--label-embeddings means nothing for ave", "leap"],
        ),
        ("cmbs_full", ["--heads", "3"], 2, ["heads is 3", "must divide"]),
        ("cmbs_full", ["--heads", "0"], 2, ["heads is 0"]),
    ],
)
def test_a_flag_that_contradicts_the_file_or_the_model_is_refused(
    files, tmp_path, capsys, case, flags, code, words
):
    assert convert(files[case], CASES[case][0], tmp_path / "m", *flags) == code
    shown = capsys.readouterr().err
    assert all(word in shown for word in words), shown
    assert not (tmp_path / "m").exists()


def test_leap_needs_its_label_embeddings(files, tmp_path, capsys):
    assert convert(files["ave_att"], "leap", tmp_path / "m") == 2
    assert "--label-embeddings FILE" in capsys.readouterr().err


def test_blocks_and_label_embeddings_are_held_against_a_leap_checkpoint(tmp_path, capsys):
    """A LEAP checkpoint of width 8 and two blocks."""
    case = Case("mmpyr_leap", DEFAULT_GOLDEN)
    cut = lambda n: {512: 8, 1024: 16, 2048: 12, 300: 5}.get(n, n)  # noqa: E731
    tensors = {
        name: torch.randn([cut(n) for n in shape])
        for name, shape in case.json["parameters"].items()
    }
    for alias, first in case.json["aliases"].items():
        tensors[alias] = tensors[first]
    file = save(tensors, tmp_path / "leap.pt", legacy=False)
    np.save(
        tmp_path / "labels.npy", np.random.default_rng(0).normal(size=(25, 5)).astype("float32")
    )
    labels = ["--label-embeddings", str(tmp_path / "labels.npy")]
    assert convert(file, "leap", tmp_path / "m", *labels, "--blocks", "2", "--heads", "4") == 0
    assert "blocks 2: read from the file" in capsys.readouterr().out
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert (
        config["label_texts"] == list(OFFICIAL_LABEL_TEXTS)
        and config["task_config"]["label_texts"] == "official"
    )
    assert config["task_config"]["avss"] == "official" and config["decoder"]["heads"] == 4
    assert convert(file, "leap", tmp_path / "x", *labels, "--blocks", "3") == 1
    assert "--blocks 3 contradicts the file: it has 2 projection blocks" in capsys.readouterr().err
    np.save(tmp_path / "labels.npy", np.zeros((25, 6), "float32"))
    assert convert(file, "leap", tmp_path / "x", *labels) == 1
    assert "shape [25, 6]; the checkpoint needs [25, 5]" in capsys.readouterr().err


def test_unknown_missing_and_misshapen_keys_are_listed_in_one_message(files, tmp_path, capsys):
    def change(tensors):
        tensors["stranger.weight"] = torch.ones(1)
        tensors["psp.layer_norm.bias"] = torch.ones(3)
        tensors["attention.affine_g.weight"] = torch.full((49, 512), torch.nan)
        tensors["L1.weight"] = tensors["L1.weight"].int()
        del tensors["lstm_a_v.lstm_audio.bias_hh_l0"]

    file = changed(files["psp_full"], tmp_path / "a.pt", change)
    assert convert(file, "psp", tmp_path / "m") == 1
    shown = capsys.readouterr().err
    for words in (
        "missing: lstm_a_v.lstm_audio.bias_hh_l0 (ours: encoder.audio_lstm.bias_hh_l0)",
        "unknown: stranger.weight",
        "misshapen: psp.layer_norm.bias [3] (ours: encoder.propagation.norm.bias [256])",
        "not in a precision that is read: L1.weight (int32)",
    ):
        assert words in shown, shown


def test_another_models_checkpoint_is_refused(files, tmp_path, capsys):
    assert convert(files["ave_att"], "psp", tmp_path / "m") == 1
    shown = capsys.readouterr().err
    assert "not a checkpoint of PSP (CVPR 2021)" in shown and "unknown: affine_audio.bias" in shown


def test_values_that_are_not_finite_are_refused(files, tmp_path, capsys):
    file = changed(
        files["ave_att"],
        tmp_path / "a.pt",
        lambda t: {**t, "L2.bias": torch.full((29,), torch.inf)},
    )
    assert convert(file, "ave", tmp_path / "m") == 1
    assert "not finite: L2.bias" in capsys.readouterr().err


def test_a_number_of_classes_that_is_not_the_tasks_is_refused(files, tmp_path, capsys):
    def fewer(tensors):
        tensors["L2.weight"], tensors["L2.bias"] = (
            tensors["L2.weight"][:20],
            tensors["L2.bias"][:20],
        )

    assert convert(changed(files["ave_att"], tmp_path / "a.pt", fewer), "ave", tmp_path / "m") == 1
    assert "'L2.weight' is for 20 classes, but the task has 29" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net"])
def test_weights_inside_a_dictionary_are_found_and_the_rest_is_named(files, tmp_path, capsys, key):
    wrapped = lambda t: {  # noqa: E731
        key: t,
        "epoch": 3,
        "optimizer": {"state": {0: torch.ones(1)}},
        "best": np.float64(1),
    }
    file = changed(files["ave_att"], tmp_path / "a.pt", wrapped)
    assert convert(file, "ave", tmp_path / "m") == 0
    assert "ignored beside the weights: best, epoch, optimizer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {**t, "epoch": 3}, "not tensors: epoch (a value of kind int)"),
        (lambda t: {**t, ("a", "b"): torch.ones(1)}, "not tensors: a value of kind tuple"),
        (lambda t: {"net": t, "model": t}, "under 'model' and 'net'"),
        (lambda t: [t], "a value of kind list"),
        (lambda t: torch.ones(2), "it holds a tensor;"),
        (lambda t: {"state_dict": {}}, "empty"),
    ],
)
def test_other_containers_are_refused(files, tmp_path, capsys, change, words):
    assert convert(changed(files["ave_att"], tmp_path / "a.pt", change), "ave", tmp_path / "m") == 1
    assert words in capsys.readouterr().err


def test_a_wrapped_whole_module_half_precision_and_safetensors_are_read(files, tmp_path):
    weights = golden("ave_att")[1]
    assert (
        convert(save_as("wrapped module", weights, tmp_path / "a.pt"), "ave", tmp_path / "a") == 0
    )
    assert (
        convert(
            save({k: v.half() for k, v in weights.items()}, tmp_path / "b.pt", legacy=True),
            "ave",
            tmp_path / "b",
        )
        == 0
    )
    save_file(weights, tmp_path / "c.safetensors")
    assert convert(tmp_path / "c.safetensors", "ave", tmp_path / "c") == 0
    a, b, c = (AVModel.from_pretrained(tmp_path / x).state_dict() for x in "abc")
    assert all(torch.equal(a[k], c[k]) and torch.equal(b[k], a[k].half().float()) for k in a)


def test_rounding_is_said_and_double_precision_is_kept_on_demand(tmp_path, capsys):
    weights = {k: v.double() for k, v in golden("ave_dmrn")[1].items()}
    weights["L2.bias"][0] = 1 + 2.0**-30
    file = save(weights, tmp_path / "a.pt", legacy=False)
    assert convert(file, "dmrn", tmp_path / "single") == 0
    assert f"no value changed by more than {2.0**-30:.3g}" in capsys.readouterr().out
    assert convert(file, "dmrn", tmp_path / "double", "--dtype", "float64") == 0
    model = AVModel.from_pretrained(tmp_path / "double")
    assert model.dtype == torch.float64 and model.decoder.classifier.bias[0] == 1 + 2.0**-30
    weights["L2.bias"][0] = 1e300
    assert convert(save(weights, tmp_path / "b.pt", legacy=False), "dmrn", tmp_path / "x") == 1
    assert "too large for float32; give --dtype float64" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        (b"\0" * 257 + b"ustar" + b"\0" * 300, "tar archive"),
        (b"hello", "not a whole checkpoint"),
        (b"PK\x03\x04 and no more", "zip archive is broken"),
        (b"\x80\x02K\x01.", "torch.save did not write it"),
    ],
)
def test_what_is_no_checkpoint_is_told_apart(tmp_path, capsys, content, words):
    (tmp_path / "a.pt").write_bytes(content)
    assert convert(tmp_path / "a.pt", "ave", tmp_path / "m") == 1
    assert words in capsys.readouterr().err


def test_an_unknown_model_is_refused_with_the_nearest(tmp_path, capsys):
    assert (
        main(["convert", str(tmp_path / "x.pt"), "--from", "hann", "--out", str(tmp_path / "out")])
        == 2
    )
    assert "unknown published model 'hann'; did you mean 'han'?" in capsys.readouterr().err


def test_the_help_shows_each_default_once(capsys):
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    parts = re.split(r" --(?=[a-z])", capsys.readouterr().out)
    assert len(parts) > 8 and max(part.count("(default") for part in parts) == 1


def test_a_missing_file_a_folder_and_a_cut_file_are_data_errors(files, tmp_path, capsys):
    assert convert(tmp_path / "nothing.pt", "ave", tmp_path / "m") == 1
    assert "no such file" in capsys.readouterr().err
    assert convert(tmp_path, "ave", tmp_path / "m") == 1
    assert "a folder" in capsys.readouterr().err
    legacy = save(golden("ave_att")[1], tmp_path / "legacy.pt", legacy=True)
    save_file(golden("ave_att")[1], tmp_path / "a.safetensors")
    for file in (files["ave_att"], legacy, tmp_path / "a.safetensors"):
        (tmp_path / file.name).write_bytes(file.read_bytes()[:-1000])
        assert convert(tmp_path / file.name, "ave", tmp_path / "m") == 1
        assert str(tmp_path / file.name) in capsys.readouterr().err


def test_a_folder_that_is_not_empty_is_left_alone(files, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "empty").mkdir()
    assert convert(files["ave_att"], "ave", tmp_path / "full") == 2
    assert "not empty" in capsys.readouterr().err
    assert convert(files["ave_att"], "ave", tmp_path / "empty") == 0
    assert sorted(p.name for p in (tmp_path / "empty").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "full"]
    (tmp_path / "file").write_text("")
    assert convert(files["ave_att"], "ave", tmp_path / "file" / "m") == 1


def test_the_card_says_where_the_weights_come_from_and_states_no_figures(files, tmp_path):
    assert convert(files["cmbs_weak"], "cmbs", tmp_path / "m") == 0
    card = (tmp_path / "m" / "README.md").read_text()
    assert hashlib.sha256(files["cmbs_weak"].read_bytes()).hexdigest() in card
    assert (
        "CMBS (CVPR 2022)" in card
        and "`cmbs_weak.pt`" in card
        and "| heads | 4 | default |" in card
    )
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert (
        "model-index" not in metadata
        and metadata["license"] == "other"
        and metadata_errors(card) == []
    )
    names: dict = {}
    code = (
        card.split("```python\n")[1]
        .split("```")[0]
        .replace("<this folder or repository>", str(tmp_path / "m"))
    )
    exec(compile(code, "card", "exec"), names)
    assert names["decisions"]["segment"].shape == (1, 10)


def test_a_converted_folder_is_evaluated_and_pushed(files, small_stores, tmp_path):
    folder = tmp_path / "m"
    assert convert(files["psp_weak"], "psp", folder, "--dtype", "float64") == 0
    store, scores = small_stores["avel"], tmp_path / "scores.json"
    assert main(["eval", str(folder), "--data", str(store), "--json", str(scores), "--cpu"]) == 0
    content = json.loads(scores.read_text())
    assert content["supervision"] == "weak" and 0 <= content["test"]["accuracy"] <= 100
    hub = FakeHub()
    try:
        done(client(hub, tmp_path, command("push", folder, "tester/psp-weak")))
        assert set(hub.repos["models/tester/psp-weak"].files()) == {
            "config.json",
            "model.safetensors",
            "README.md",
        }
    finally:
        hub.close()


@pytest.mark.parametrize("suffix", [".npy", ".safetensors", ".pt", ".pth", ".pkl"])
def test_label_embeddings_are_read_from_arrays_and_tensors(tmp_path, suffix):
    texts, table, file = ["a", "b"], torch.randn(2, 3), tmp_path / f"labels{suffix}"

    def write(values):
        if suffix == ".npy":
            np.save(file, values.numpy())
        elif suffix == ".safetensors":
            save_file({"labels": values.contiguous()}, file)
        else:
            save(values.clone(), file, legacy=suffix != ".pt")
        return file

    assert torch.equal(label_embeddings(texts, str(write(table))).values, table)
    assert torch.equal(label_embeddings(texts, str(write(table.expand(4, 2, 3)))).values, table)
    for wrong, words in [
        (torch.randn(4, 2, 3), "4 tables of label embeddings that differ"),
        (torch.randn(3, 3), "3 rows and no texts"),
        (torch.randn(3), r"holds \[3\]"),
        (table * torch.nan, "NaN"),
    ]:
        with pytest.raises(DataError, match=words):
            label_embeddings(texts, str(write(wrong)))


def test_label_embeddings_that_would_run_code_or_take_memory_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    header = (
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }".ljust(117) + "\n"
    )
    (tmp_path / "b.npy").write_bytes(
        b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    )
    (tmp_path / "c.npy").write_bytes(b"hello")
    np.save(tmp_path / "d.npy", np.ones((2, 3), dtype=int))
    (tmp_path / "e.pt").write_bytes(b"cposix\nsystem\n(Vtrue\ntR.")
    for name in "abcd":
        with pytest.raises(DataError, match=f"{name}.npy"):
            label_embeddings(["a", "b"], str(tmp_path / f"{name}.npy"))
    with pytest.raises(DataError, match="posix.system"):
        label_embeddings(["a", "b"], str(tmp_path / "e.pt"))
    with pytest.raises(UsageError, match="neither a source of label embeddings nor a file"):
        label_embeddings(["a", "b"], str(tmp_path / "f.npy"))


def test_a_glove_file_embeds_the_published_texts(tmp_path):
    (tmp_path / "glove.txt").write_text("dog 1 0\nguitar 0 1\nacoustic 1 1\n")
    found = label_embeddings(["dog", "acoustic guitar"], str(tmp_path / "glove.txt")).values
    assert found.tolist() == [[1, 0], [0.5, 1]]
    with pytest.raises(DataError, match="infancy"):
        label_embeddings(["infancy"], str(tmp_path / "glove.txt"))


@pytest.mark.parametrize(
    "cell", [("avel", "ave", "leap"), ("avvp", "han", "leap"), ("avel", "cmbs", "dch")]
)
def test_features_of_another_precision_are_cast_to_the_weights(cell):
    model, features = build(*cell), inputs(cell[0])

    def scores(output: Output):
        return (
            output.parse.segment.av or output.parse.segment.audio or output.parse.video.av
        ).values

    def given(dtype):
        return [None if x is None else x.to(dtype) for x in features]

    if cell != ("avel", "cmbs", "dch"):
        half = [None if x is None else x.half().float() for x in features]
        assert torch.equal(scores(model(*given(torch.float16))), scores(model(*half)))
        labels = model.label_embeddings
        assert torch.equal(
            scores(model(*features, label_embeddings=labels.double())), scores(model(*features))
        )
    assert scores(model.double()(*given(torch.float32))).dtype == torch.float64
    with pytest.raises(DataError, match="audio has shape"):
        model(features[0][..., :2].half(), *features[1:])
