"""Files made to do harm are refused by name, and nothing of them is run."""

from __future__ import annotations

import builtins
import os
import pickle
import random
import struct
import subprocess
import time
import tracemalloc
import zipfile
from collections import OrderedDict

import pytest
import torch

from avplatform.cli import main
from avplatform.models.checkpoint.file import MAGIC, PROTOCOL, read_checkpoint
from avplatform.models.errors import DataError
from tests.convert.official_files import save, throw_away_class


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def in_zip(path, data_pkl, storages=(), compress=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compress) as archive:
        archive.writestr("archive/data.pkl", data_pkl)
        archive.writestr("archive/byteorder", "little")
        for key, content in storages:
            archive.writestr(f"archive/data/{key}", content)
    return path


def refused(path, *words):
    with pytest.raises(DataError) as caught:
        read_checkpoint(path)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


TOUCH = "touch canary"
WEIGHT = torch.ones(2)


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Calls(os.system, TOUCH), f"{os.name}.system"),
        (Calls(builtins.eval, "open('canary', 'w')"), "eval"),
        (Calls(builtins.getattr, "a", "upper"), "getattr"),
        (Calls(subprocess.Popen, ["touch", "canary"]), "subprocess.Popen"),
        ([[{"deep": (Calls(os.system, TOUCH),)}]], f"{os.name}.system"),
        (Calls(torch.load, "canary"), "torch.serialization.load"),
        (Calls(torch.nn.Linear, 2, 2), "torch.nn.modules.linear.Linear"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["alone", "beside", "in a module"])
def test_a_call_is_refused_by_name_wherever_it_stands(
    place, value, name, legacy, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if place == "in a module":
        with throw_away_class("fully_model.psp_net") as cls:
            found = cls()
            found.weight, found.extra = torch.nn.Parameter(WEIGHT), value
            file = save(found, tmp_path / "a.pt", legacy=legacy)
    else:
        file = save({"alone": value, "beside": {"state_dict": {"w": WEIGHT}, "note": value}}[place],
                    tmp_path / "a.pt", legacy=legacy)  # fmt: skip
    refused(file, name, "refused")
    assert main(["convert", str(file), "--from", "ave", "--out", "out"]) == 1
    assert not (tmp_path / "canary").exists() and not (tmp_path / "out").exists()


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def op_global(module, name):
    return b"\x80\x04" + text(module) + text(name) + b"\x93"


ARGS = text(TOUCH) + b"\x85"
OPCODES = {
    "protocol 0": (b"cposix\nsystem\n(Vtouch canary\ntR.", "posix.system"),
    "windows": (b"cnt\nsystem\n(Vtouch canary\ntR.", "nt.system"),
    "python 2 builtins": (b"c__builtin__\neval\n(Vopen('canary','w')\ntR.", "builtins.eval"),
    "inst": (b"(Vtouch canary\niposix\nsystem\n.", "posix.system"),
    "obj": (b"(cposix\nsystem\nVtouch canary\no.", "posix.system"),
    "dotted name": (
        op_global("collections", "OrderedDict.__init__.__globals__") + b".",
        "OrderedDict.__init__.__globals__",
    ),
    "dotted name of torch": (op_global("torch", "nn.__builtins__") + b".", "torch.nn.__builtins__"),
    "name of spaces": (b"ccollections\nOrderedDict x\n.", "OrderedDict x"),
    "numbers for names": (b"\x80\x04K\x01K\x02\x93.", "not a plain name"),
    "newobj": (op_global("subprocess", "Popen") + text("touch") + b"\x85\x81.", "subprocess.Popen"),
    "newobj_ex": (op_global("subprocess", "Popen") + b"){\x92.", "subprocess.Popen"),
    "stand-in called": (op_global("fully_model", "psp_net") + ARGS + b"R.", "fully_model.psp_net"),
    "stand-in called by inst": (b"(Vx\nifully_model\npsp_net\n.", "fully_model.psp_net"),
    "an object called": (
        op_global("fully_model", "psp_net") + b")\x81" + ARGS + b"R.",
        "calls an object of fully_model.psp_net",
    ),
    "setstate": (
        op_global("their", "Net") + b")\x81}" + text("__setstate__") + b"cos\nsystem\nsb.",
        "os.system",
    ),
    "state of a function": (
        op_global("their", "Net") + b"}" + text("__call__") + b"K\x01sb.",
        "sets the state of their.Net",
    ),
    "state of a text": (b"\x80\x02" + text("a") + b"}b.", "sets the state of a value of kind str"),
    "ext": (b"\x80\x02\x82\x01.", "EXT1"),
    "ext4": (b"\x80\x02\x84\x01\x01\x01\x01.", "EXT4"),
    "persistent text": (b"Pstorage\n.", "PERSID"),
    "persistent stranger": (b"\x80\x02" + text("boom") + b"\x85Q.", "boom"),
    "buffer": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    "nested checkpoint": (
        op_global("torch.storage", "_load_from_bytes") + b"C\x01a\x85R.",
        "torch.storage._load_from_bytes",
    ),
    "numpy array": (
        op_global("numpy.core.multiarray", "_reconstruct") + b")R.",
        "numpy.core.multiarray._reconstruct",
    ),
    "wrong arguments": (
        op_global("collections", "OrderedDict") + text("ab") + b"\x85R.",
        "OrderedDict",
    ),
    "too many arguments": (
        op_global("collections", "OrderedDict") + b"K\x01K\x02K\x03\x87R.",
        "OrderedDict with 3 values",
    ),
    "empty stack": (b"\x80\x02R.", "a value is missing"),
    "no mark": (b"\x80\x02t.", "a mark is missing"),
    "memo of nothing": (b"\x80\x02h\x05.", "never stored"),
    "huge memo": (b"\x80\x02K\x01p99999999999999\n.", "memo entry"),
    "huge memo index": (b"\x80\x02K\x01r\xff\xff\xff\xff0" + b"j\x01\x00\x00\x00.", "never stored"),
    "huge text": (b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"a.", "not a whole checkpoint"),
    "no end": (b"\x80\x02K\x01", "not a whole checkpoint"),
}


@pytest.mark.parametrize("name", OPCODES)
def test_a_pickle_written_by_hand_is_refused_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, words = OPCODES[name]
    (tmp_path / "plain.pth").write_bytes(content)
    refused(tmp_path / "plain.pth", words)
    refused(in_zip(tmp_path / "zip.pth", content), words)
    assert not (tmp_path / "canary").exists()


def test_the_canary_is_no_empty_promise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(OPCODES["protocol 0"][0])
    assert (tmp_path / "canary").exists()


BOMBS = {
    "a list of itself twice, fifty times": b"\x80\x02]K\x01a" + b"2\x86" * 50 + b".",
    "a key of tuples of itself": b"\x80\x02}K\x01" + b"2\x86" * 60 + b"K\x01s.",
    "thousands of lists, each in the next": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "a deep tuple as a key": b"\x80\x02}K\x01" + b"\x85" * 200_000 + b"K\x01s.",
    "too many values": b"\x80\x02(" + b"K\x01" * 500_001 + b"t.",
    "a claimed list of bytes": b"\x80\x04B" + struct.pack("<I", 2**32 - 1) + b".",
    "memo far away": b"\x80\x02K\x01r\xf0\xff\xff\xff.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_neither_time_nor_memory(name, tmp_path):
    (tmp_path / "a.pth").write_bytes(BOMBS[name])
    tracemalloc.start()
    started = time.process_time()
    refused(tmp_path / "a.pth")
    assert time.process_time() - started < 60
    assert tracemalloc.get_traced_memory()[1] < 400e6
    tracemalloc.stop()


MANY = 100_000
LONG_LIST = b"\x80\x02(" + b"N" * MANY + b"lq\x000"
LONG_STATE = (
    b"\x80\x02(" + b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(MANY)) + b"dq\x000"
)
LONG_PAIRS = (
    b"\x80\x02("
    + b"".join(b"J" + struct.pack("<i", i) + b"N\x86" for i in range(60_000))
    + b"lq\x000"
)
COPIES = {
    "sets of one list": LONG_LIST
    + b"c__builtin__\nset\nq\x01("
    + b"h\x01h\x00\x85R" * 90_000
    + b"l.",
    "sizes of one list": LONG_LIST + b"ctorch\nSize\nq\x01(" + b"h\x01h\x00\x85R" * 90_000 + b"l.",
    "dictionaries of one list": LONG_PAIRS
    + b"ccollections\nOrderedDict\nq\x01("
    + b"h\x01h\x00\x85R" * 60_000
    + b"l.",
    "one state set again and again": LONG_STATE + b"ctheir\nNet\n)\x81" + b"h\x00b" * 90_000 + b".",
}


@pytest.mark.parametrize("name", COPIES)
def test_values_that_are_copied_again_and_again_are_refused(name, tmp_path):
    refused(in_zip(tmp_path / "a.pth", COPIES[name]), "copies the same values")


def test_one_long_list_of_parameters_under_many_modules_is_refused(tmp_path):
    entries = b"}(" + b"".join(text(f"p{i}") + b"N" for i in range(40_000)) + b"u"
    inner = b"ctheir\nNet\nq\x02)\x81}" + text("_parameters") + entries + b"sbq\x030"
    children = b"}(" + b"".join(text(f"m{i}") + b"h\x03" for i in range(15_000)) + b"u"
    outer = b"h\x02)\x81}(" + text("_parameters") + b"}" + text("_modules") + children + b"ub."
    refused(in_zip(tmp_path / "a.pth", b"\x80\x02" + inner + outer), "more than 500,000 entries")


def test_names_that_could_steer_a_terminal_are_shown_without_it(tmp_path, capsys):
    name = "\x1b]0;title\x07\x1b[2Jw\u202e"
    long = b"X" + struct.pack("<I", len(name.encode())) + name.encode()
    file = in_zip(
        tmp_path / "a.pth", storage_pickle().replace(text("w"), long), [("0", b"\0" * 16)]
    )
    assert main(["convert", str(file), "--from", "ave", "--out", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr().err
    assert "?]0;title" in shown and not set(shown.rstrip("\n")) & set(name[:1] + "\x07\u202e")
    assert "\x1b" not in refused(
        in_zip(tmp_path / "b.pth", b"\x80\x02c\x1b[31mos\nsystem\n."), "?[31mos.system"
    )


def legacy(found, keys, tail=b""):
    """A file of torch before 1.6: four pickles, the names of storages, their bytes."""
    system = dict(little_endian=True, protocol_version=1001, type_sizes={})
    return (
        b"".join(pickle.dumps(value, 2) for value in (MAGIC, PROTOCOL, system))
        + found
        + keys
        + tail
    )


def test_names_of_storages_that_are_huge_numbers_are_refused(tmp_path):
    number = (10**6000).to_bytes(2500, "little")
    (tmp_path / "a.pth").write_bytes(
        legacy(b"\x80\x02}.", b"\x80\x02]\x8b" + struct.pack("<I", 2500) + number + b"a.")
    )
    refused(tmp_path / "a.pth", "list of storages")


def storage_pickle(
    numel=4, size=(4,), stride=(1,), offset=0, kind="FloatStorage", key="0", extra=b""
):
    """{"w": tensor} as torch pickles it, with any numbers."""

    def integers(values):
        return (
            b"("
            + b"".join(b"\x8a\x09" + int(v).to_bytes(9, "little", signed=True) for v in values)
            + b"t"
        )

    storage = (
        b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu")
        + b"\x8a\x09" + int(numel).to_bytes(9, "little", signed=True) + extra + b"tQ"
    )  # fmt: skip
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + b"\x8a\x09"
        + int(offset).to_bytes(9, "little", signed=True)
    )
    return (
        b"\x80\x02}"
        + text("w")
        + tensor
        + integers(size)
        + integers(stride)
        + b"\x89ccollections\nOrderedDict\n)RtRs."
    )


def test_the_hand_written_tensor_is_read(tmp_path):
    values = torch.arange(4.0)
    file = in_zip(tmp_path / "a.pt", storage_pickle(), [("0", values.numpy().tobytes())])
    assert torch.equal(read_checkpoint(file).tensors["w"], values)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(numel=2**40, size=(2**40,)), "16 bytes; the file's own description says"),
        (dict(numel=2**60), "without a name or a size"),
        (dict(size=(5,)), "beyond its storage"),
        (dict(size=(2**30, 2**30), stride=(0, 0)), "beyond its storage"),
        (dict(size=(2,), stride=(4,)), "beyond its storage"),
        (dict(offset=1), "beyond its storage"),
        (dict(offset=-1), "impossible"),
        (dict(size=(-1,)), "impossible"),
        (dict(size=(2, 2)), "impossible"),
        (dict(size=(1,) * 9, stride=(1,) * 9), "impossible"),
        (dict(size=(2**47, 2**47, 0), stride=(1, 1, 1)), "impossible"),
        (dict(kind="load"), "storage of torch.load"),
        (dict(key="../data.pkl"), "missing"),
        (dict(numel=3, size=(3,)), "16 bytes; the file's own description says 12"),
    ],
)
def test_a_tensor_that_does_not_lie_in_its_storage_is_refused(changes, words, tmp_path):
    refused(in_zip(tmp_path / "a.pt", storage_pickle(**changes), [("0", b"\0" * 16)]), words)


def test_an_empty_tensor_of_endless_axes_is_refused_in_the_old_format_too(tmp_path):
    found = storage_pickle(size=(2**47, 2**47, 0), stride=(1, 1, 1))
    (tmp_path / "a.pth").write_bytes(
        legacy(found, pickle.dumps(["0"], 2), struct.pack("<q", 4) + b"\0" * 16)
    )
    refused(tmp_path / "a.pth", "impossible")


def test_a_part_of_a_storage_is_read_where_it_lies(tmp_path):
    """Before 1.6, torch described storages that are views of others."""
    view = b"(" + text("1") + b"K\x01K\x02t"
    file = in_zip(
        tmp_path / "a.pt",
        storage_pickle(size=(2,), extra=view),
        [("0", torch.arange(4.0).numpy().tobytes())],
    )
    assert read_checkpoint(file).tensors["w"].tolist() == [1, 2]
    view = b"(" + text("1") + b"K\x03K\x02t"
    refused(
        in_zip(tmp_path / "b.pt", storage_pickle(size=(2,), extra=view), [("0", b"\0" * 16)]),
        "reaches beyond",
    )


def test_a_storage_that_thousands_of_tensors_share_is_refused(tmp_path):
    shared = torch.zeros(300_000)
    file = save({f"w{i}": shared.view(300_000) for i in range(50)}, tmp_path / "a.pt", legacy=False)
    refused(file, "no checkpoint shares that much")


def test_a_compressed_entry_is_refused(tmp_path):
    refused(
        in_zip(tmp_path / "a.pt", storage_pickle(), [("0", b"\0" * 16)], zipfile.ZIP_DEFLATED),
        "uncompressed",
    )


def test_modules_that_contain_themselves_or_double_at_each_level_are_refused(tmp_path):
    with throw_away_class("fully_model.psp_net") as cls:
        ring, doubling = cls(), cls()
        ring._modules["again"] = ring
        ring_file = save(ring, tmp_path / "ring.pt", legacy=True)
        for _ in range(40):
            outer = cls()
            outer.a = outer.b = doubling
            doubling = outer
        doubling_file = save(doubling, tmp_path / "doubling.pt", legacy=True)
    refused(ring_file, "contains itself")
    refused(doubling_file, "too many")


@pytest.fixture(scope="module")
def small_files(tmp_path_factory):
    """One small file of each format, and what it holds."""
    folder = tmp_path_factory.mktemp("small")
    state = torch.nn.Sequential(
        OrderedDict(a=torch.nn.Linear(3, 2), b=torch.nn.BatchNorm1d(2))
    ).state_dict()
    with throw_away_class("fully_model.psp_net") as cls:
        module = cls()
        module.layer = torch.nn.Linear(2, 2)
        files = [save(module, folder / "module.pt", legacy=True)]
    files += [
        save(state, folder / "zip.pt", legacy=False),
        save(state, folder / "legacy.pt", legacy=True),
    ]
    from safetensors.torch import save_file

    save_file(dict(state), folder / "a.safetensors")
    return [*files, folder / "a.safetensors"]


@pytest.mark.parametrize("index", range(4))
def test_a_damaged_file_is_read_or_refused_and_never_more(index, small_files, tmp_path):
    source = small_files[index]
    content, draw = source.read_bytes(), random.Random(index)
    file, outcomes = tmp_path / source.name, {"read": 0, "refused": 0}
    for turn in range(150):
        data = bytearray(content)
        if turn % 3 == 0:
            del data[draw.randrange(len(data)) :]
        else:
            for _ in range(draw.choice((1, 1, 2, 8, 40))):
                data[draw.randrange(len(data))] = draw.randrange(256)
        file.write_bytes(data)
        try:
            read_checkpoint(file)
            outcomes["read"] += 1
        except DataError as error:
            outcomes["refused"] += 1
            assert str(file) in str(error)
    assert outcomes["refused"] > 50
