"""Whole modules as torch 0.3 and Python 2 pickled them.

Parameters are calls, and every module names its back end.

At the other end, precisions that are too new to be read are named.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from avplatform.hub.convert import convert
from avplatform.models.checkpoint.file import read_checkpoint
from avplatform.models.errors import DataError
from tests.convert.official_files import golden
from tests.convert.test_hostile_files import in_zip, refused, storage_pickle

ORDERED = b"ccollections\nOrderedDict\n)R"


def old(value):
    """A text of Python 2."""
    return b"U" + bytes([len(value)]) + value.encode()


def entry(name, value):
    return old(name) + value


def ordered(*entries):
    return ORDERED + b"(" + b"".join(entries) + b"u"


def tensor(**numbers):
    return storage_pickle(**numbers).split(b"w", 1)[1].removesuffix(b"s.")


def parameter(**numbers):
    return (
        b"ctorch.nn.parameter\nParameter\n"
        + tensor(**numbers)
        + b"\x85R(\x88\x89"
        + ORDERED
        + b"tb"
    )


def module(path, *entries, parameters=(), modules=()):
    state = [
        entry("_backend", b"ctorch.nn.backends.thnn\n_get_thnn_function_backend\n)R"),
        entry("_parameters", ordered(*parameters)),
        entry("_buffers", ordered()),
        entry("_modules", ordered(*modules)),
        entry("training", b"\x88"),
        *entries,
    ]
    name = path.rsplit(".", 1)
    return f"c{name[0]}\n{name[1]}\n".encode() + b")\x81}(" + b"".join(state) + b"ub"


def test_a_module_of_torch_0_3_gives_its_parameters(tmp_path):
    unserializable = (
        b"ctorch.backends.cudnn.rnn\nUnserializable\n)\x81" + old("<unserializable>") + b"b"
    )
    lstm = module(
        "torch.nn.modules.rnn.LSTM",
        entry("dropout_state", b"}" + old("state") + unserializable + b"s"),
        parameters=[
            entry("weight", parameter(key="1", kind="cuda.FloatStorage")),
            entry("bias", b"N"),
        ],
    )
    linear = module(
        "torch.nn.modules.linear.Linear",
        parameters=[entry("weight", parameter(size=(2, 2), stride=(1, 2)))],
    )
    whole = module(
        "models.att_Net",
        modules=[entry("lstm_audio", lstm), entry("L1", linear), entry("relu", b"N")],
    )
    storages = [(key, (torch.arange(4.0) + 10 * int(key)).numpy().tobytes()) for key in ("0", "1")]
    found = read_checkpoint(in_zip(tmp_path / "a.pt", b"\x80\x02" + whole + b".", storages))
    assert found.container == "whole module models.att_Net"
    assert {name: value.tolist() for name, value in found.tensors.items()} == {
        "lstm_audio.weight": [10, 11, 12, 13],
        "L1.weight": [[0, 2], [1, 3]],
    }


def test_a_parameter_of_something_else_is_refused(tmp_path):
    whole = module(
        "models.att_Net",
        parameters=[entry("weight", b"ctorch.nn.parameter\nParameter\nK\x01\x85R")],
    )
    refused(
        in_zip(tmp_path / "a.pt", b"\x80\x02" + whole + b"."),
        "a parameter of something that is not a tensor",
    )
    whole = module("models.att_Net", parameters=[entry("weight", old("text"))])
    refused(
        in_zip(tmp_path / "b.pt", b"\x80\x02" + whole + b"."),
        "'weight' is a value of kind str, not a tensor",
    )
    whole = module("models.att_Net", modules=[entry("child", old("text"))])
    refused(
        in_zip(tmp_path / "c.pt", b"\x80\x02" + whole + b"."),
        "'child' is a value of kind str, not a torch module",
    )


def test_weights_of_eight_bits_are_refused_by_name(tmp_path):
    tensors = {name: value.clone() for name, value in golden("ave_att")[1].items()}
    tensors["L1.weight"] = tensors["L1.weight"].to(torch.float8_e4m3fn)
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(
        DataError, match=r"not in a precision that is read: L1.weight \(float8_e4m3fn\)"
    ):
        convert(tmp_path / "a.safetensors", "ave", tmp_path / "m")
