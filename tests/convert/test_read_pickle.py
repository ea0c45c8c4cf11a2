"""Plain values of foreign pickles are read as they were written; anything else is refused."""

from __future__ import annotations

import pickle
import random
import struct
from collections import OrderedDict

import numpy as np
import pytest
import torch

from avplatform.models.checkpoint.file import read_pickle
from avplatform.models.errors import DataError
from tests.convert.official_files import throw_away_class
from tests.convert.test_hostile_files import BOMBS, COPIES, OPCODES, op_global, text

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def dumped(value, path, protocol=4):
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def refused(path, *words):
    with pytest.raises(DataError) as caught:
        read_pickle(path)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert len(str(caught.value)) < 1000


def same(a, b):
    if isinstance(a, (np.ndarray, np.generic)):
        return type(a) is type(b) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values_and_arrays_of_every_protocol_are_read(protocol, tmp_path):
    values = {
        "plain": [None, True, -1, 2**70, 1.5, "café", b"\x00\xff", b"", (), (1,), (1, 2, 3, 4)],
        7: {"nested": [[], {}, [1, [2]]]},
        "ordered": OrderedDict(a=1),
        "numbers": [np.float64(1.5), np.int32(-3), np.bool_(True)],
        "arrays": [
            np.arange(6, dtype="int16").reshape(2, 3),
            np.arange(6.0).reshape(2, 3).T,
            np.array(3.5),
            np.zeros((0, 4), "float16"),
            np.array([True, False]),
            np.array(["a", "bcd"]),
            np.arange(2000.0),
        ],
        "tensors": [torch.tensor(5), torch.arange(6.0).reshape(2, 3).T, torch.zeros(0, 3)],
    }
    found = read_pickle(dumped(values, tmp_path / "a.pkl", protocol))
    assert same(values, found)
    found["arrays"][0][0, 0] = 9  # they can be written to


def test_the_form_of_published_exchanged_labels_is_read(tmp_path):
    """[visual, audio], each one list a class of row numbers, which are tensors without axes."""
    rows = [[[3, 17, 25], [], [4]], [[1], [2, 40], []]]
    values = [[[torch.tensor(row) for row in one] for one in kind] for kind in rows]
    found = read_pickle(dumped(values, tmp_path / "need_to_change.pkl"))
    assert [[[row.item() for row in one] for one in kind] for kind in found] == rows
    assert found[0][0][0].dtype == torch.int64 and found[0][0][0].ndim == 0


def test_an_array_of_python_2_is_read(tmp_path):
    unset = b"J\xff\xff\xff\xff"
    kind = b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNN" + unset + unset + b"K\x00tb"
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    data = np.array([1.5, -2.5], "<f4").tobytes()
    state = b"(K\x01K\x02\x85" + kind + b"\x89U" + bytes([len(data)]) + data + b"tb"
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02" + made + state + b".")
    assert same(read_pickle(tmp_path / "a.pkl"), np.array([1.5, -2.5], "float32"))


def test_sets_come_as_lists_and_shared_values_stay_shared(tmp_path):
    shared = [1]
    found = read_pickle(dumped([{5, 6}, frozenset({7}), shared, shared], tmp_path / "a.pkl"))
    assert sorted(found[0]) == [5, 6] and found[1] == [7] and found[2] is found[3]
    ring: list = []
    ring.append(ring)
    found = read_pickle(dumped(ring, tmp_path / "b.pkl"))
    assert found[0] is found


@pytest.mark.parametrize("name", OPCODES)
def test_a_hostile_pickle_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pkl").write_bytes(OPCODES[name][0])
    refused(tmp_path / "a.pkl", OPCODES[name][1])
    assert not (tmp_path / "canary").exists()


HARMLESS = ("a list of itself twice, fifty times", "memo far away",
            "thousands of lists, each in the next")  # fmt: skip


@pytest.mark.parametrize("name", [*BOMBS, *COPIES])
def test_a_bomb_is_refused_or_costs_nothing(name, tmp_path):
    (tmp_path / "a.pkl").write_bytes({**BOMBS, **COPIES}[name])
    if name in HARMLESS:
        read_pickle(tmp_path / "a.pkl")
    else:
        refused(tmp_path / "a.pkl")


def test_an_object_of_any_class_is_refused_by_name(tmp_path):
    with throw_away_class("their.module.Thing", (object,)) as cls:
        thing = cls()
        thing.a = 1
        for protocol in (2, 4):
            dumped({"x": [thing]}, tmp_path / f"{protocol}.pkl", protocol)
        dumped(cls, tmp_path / "class.pkl")
    refused(tmp_path / "2.pkl", "their.module.Thing")
    refused(tmp_path / "4.pkl", "their.module.Thing")
    refused(tmp_path / "class.pkl", "their.module.Thing, which is not a plain value")
    refused(dumped({("a", 1): 2}, tmp_path / "key.pkl"), "a value of kind tuple")
    refused(dumped(torch.nn.ReLU(), tmp_path / "module.pkl"), "activation.ReLU")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.array([{}, None], dtype=object), "of kind 'O8'"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), "of kind 'M8'"),
        (np.zeros(1, dtype=[("a", "f4")]), "of kind 'V4'"),
        (np.arange(3, dtype=">i4"), "another byte order"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_of_other_kinds_are_refused(value, words, protocol, tmp_path):
    refused(dumped(value, tmp_path / "a.pkl", protocol), words)


def array(shape, data, kind="f4"):
    """An array as protocol 5 writes it, with any numbers."""
    numbers = b"(" + b"".join(b"\x8a\x09" + n.to_bytes(9, "little", signed=True) for n in shape)
    made = op_global("numpy", "dtype") + text(kind) + b"\x89\x88\x87R"
    content = b"B" + struct.pack("<I", len(data)) + data
    call = op_global("numpy._core.numeric", "_frombuffer")
    return call + b"(" + content + made + numbers + b"t" + text("C") + b"tR"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (array((3,), b"\0" * 8), "not as many as its shape [3]"),
        (array((2**40,), b"\0" * 8), "not as many"),
        (array((-1,), b"\0" * 4), "impossible"),
        (array((0, 2**47, 2**47), b""), "impossible"),
        (array((1,) * 9, b"\0" * 4), "impossible"),
        (array((1,), b"\0" * 4, "float99"), "of kind 'float99'"),
        (op_global("numpy", "dtype") + b"]" + b"2\x86" * 60 + b"\x85R", "of kind"),
        (op_global("numpy._core.multiarray", "_reconstruct") + b")R", "_reconstruct with 0 values"),
    ],
)
def test_an_array_that_is_not_in_its_bytes_is_refused(content, words, tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04" + content + b".")
    refused(tmp_path / "a.pkl", words)


def test_bytes_that_are_read_again_and_again_are_refused(tmp_path):
    nested = pickle.dumps(torch.zeros(20_000))
    assert same(read_pickle(dumped(torch.zeros(20_000), tmp_path / "a.pkl")), torch.zeros(20_000))
    start = nested.index(b"B", nested.index(b"_load_from_bytes"))
    size = struct.unpack("<I", nested[start + 1 : start + 5])[0]
    content = nested[start : start + 5 + size] + b"\x94\x85R"
    again = b"h\x00" + b"h\x01\x85R"
    call = b"\x80\x04](" + op_global("torch.storage", "_load_from_bytes")[2:] + b"\x94" + content
    (tmp_path / "b.pkl").write_bytes(call + again * 100 + b"e.")
    refused(tmp_path / "b.pkl", "copies the same values")


def test_files_that_hold_something_else_are_told_apart(tmp_path):
    refused(tmp_path / "nothing.pkl", "no such file")
    for name, content, words in (
        ("empty", b"", "empty"),
        ("page", b"<html>", "web page"),
        ("pointer", b"version https://git-lfs", "git-lfs"),
        ("more", pickle.dumps(1) + b"x", "goes on after its end"),
        ("cut", pickle.dumps([1, 2])[:-2], "no end"),
    ):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, words)
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt")


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_damaged_file_is_read_or_refused_and_never_more(protocol, tmp_path):
    value = {"a": [np.arange(5.0), torch.arange(3)], "b": (1, "text", np.float32(2))}
    content, draw = pickle.dumps(value, protocol), random.Random(protocol)
    for _ in range(200):
        data = bytearray(content)
        for _ in range(draw.choice((1, 2, 8))):
            data[draw.randrange(len(data))] = draw.randrange(256)
        (tmp_path / "a.pkl").write_bytes(data)
        try:
            read_pickle(tmp_path / "a.pkl")
        except DataError as error:
            assert str(tmp_path / "a.pkl") in str(error)
