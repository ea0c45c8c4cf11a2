"""Readers of files that others pickled: checkpoints of torch, and plain values.

:func:`read_checkpoint` reads torch's zip format, torch's format before 1.6, and safetensors;
:func:`read_pickle` reads what ``pickle.dump`` wrote. No code of a file is run (see
`pickle_machine`). Sizes are checked against the file before memory is allocated, so reading a
file takes at most a few times its own size.
"""

from __future__ import annotations

import functools
import io
import mmap
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from avplatform.models.checkpoint.pickle_machine import PickleMachine, broken
from avplatform.models.checkpoint.pickle_values import (
    ARRAY_CALLS,
    CALLS,
    StorageRef,
    TensorRef,
    is_count,
    kind_of,
    printable,
    rebuild_tensor,
    short,
)
from avplatform.models.checkpoint.state import tensors_of
from avplatform.models.errors import DataError
from avplatform.models.paths import expanded

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
LARGEST_PICKLE = 64 * 2**20
MOST_SHARING = 4  # how often the bytes of a file may be used, on average

ReadStorage = Callable[[str, int], bytearray]


@dataclass
class Checkpoint:
    """The weights of a checkpoint file.

    Attributes:
        tensors: the weights, by their names in the file.
        ignored: the names of the other entries of the file.
        container: what held the weights, such as a state dict or a whole module with its class.
    """

    tensors: dict[str, Tensor]
    ignored: list[str] = field(default_factory=list)
    container: str = "state dict"


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read the weights of a state dict, of one inside a dictionary, or of a pickled module.

    No code of the file is run.

    Raises:
        DataError: the file is missing, not a checkpoint, damaged, or holds what is not allowed.
    """
    return _read(expanded(path), _weights)


def read_tensor(path: str | Path) -> Tensor:
    """Read a file that holds a single tensor.

    Raises:
        DataError: as for `read_checkpoint`, or the file holds another number of tensors.
    """
    return _read(expanded(path), _one_tensor)


def read_pickle(path: str | Path) -> Any:
    """Read plain values from a file of ``pickle.dump``, of any protocol, from Python 2 or 3.

    Plain values are None, booleans, numbers, strings, bytes, lists, tuples, dictionaries, NumPy
    arrays and numbers, and tensors. Sets are returned as lists. No code of the file is run.

    Raises:
        DataError: the file is missing, damaged, or holds anything else, which is named.
    """
    return _open(expanded(path), _plain_file)


ReadTensors = Callable[[Mapping[str, TensorRef]], dict[str, Tensor]]


def _weights(found: Any, values: ReadTensors) -> Checkpoint:
    if isinstance(found, dict) and all(isinstance(v, Tensor) for v in found.values()):
        return Checkpoint(found)  # from safetensors
    refs, ignored, container = tensors_of(found)
    return Checkpoint(values(refs), ignored, container)


def _one_tensor(found: Any, values: ReadTensors) -> Tensor:
    if isinstance(found, dict) and len(found) == 1:
        found = next(iter(found.values()))
    if isinstance(found, Tensor):
        return found
    if not isinstance(found, TensorRef):
        raise DataError("it does not hold a single tensor")
    return values({"tensor": found})["tensor"]


def _open(path: Path, use: Callable[[Path, mmap.mmap], Any]) -> Any:
    """Map a file into memory and pass it to `use`; errors name the file."""
    try:
        if not path.exists():
            raise DataError("no such file")
        if not path.is_file():
            raise DataError("it is a folder; give the file itself")
        if not path.stat().st_size:
            raise DataError("the file is empty; fetch it again")
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return use(path, content)
    except DataError as error:
        raise DataError(f"{path}: {printable(str(error))}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def _read(path: Path, use: Callable[..., Any]) -> Any:
    """Open a checkpoint of any of the formats and pass its content to `use`."""
    return _open(path, lambda path, content: _torch_file(path, content, use))


def _torch_file(path: Path, content: mmap.mmap, use: Callable[..., Any]) -> Any:
    start = bytes(content[:512])
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        _refuse_text(start)
        return use(_safetensors(path), None)
    if start.startswith(b"PK\x03\x04"):
        return _zip(path, use)
    _refuse_text(start)
    return _legacy(content, len(content), use)


def _refuse_text(start: bytes) -> None:
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        remedy = "open its address in a browser and fetch the file that it offers"
        raise DataError(f"it is a web page, not weights; {remedy}")
    if text.startswith(b"version https://git-lfs"):
        remedy = "fetch the file itself (git lfs pull)"
        raise DataError(f"it is a git-lfs pointer, not weights; {remedy}")
    if start[257:262] == b"ustar":
        remedy = "load and save it again with torch 0.2 to 1.5"
        raise DataError(f"it is a tar archive, as torch before 0.2 wrote; {remedy}")


def _plain_file(path: Path, content: mmap.mmap) -> Any:
    if len(content) > LARGEST_PICKLE:
        raise DataError(f"it is larger than {LARGEST_PICKLE >> 20} MiB, too large for plain values")
    _refuse_text(bytes(content[:512]))
    found = PickleMachine(content, _PLAIN_CALLS).load()
    if content.tell() != len(content):
        raise broken("it goes on after its end")
    _check_plain(found)
    return found


_LEAVES = (type(None), bool, int, float, str, bytes, bytearray, np.ndarray, np.generic, Tensor)


def _check_plain(found: Any) -> None:
    """Raise DataError unless a value and all values inside it are plain."""
    todo, seen = [found], set()
    while todo:
        value = todo.pop()
        if isinstance(value, (list, tuple, dict)):
            if id(value) not in seen:
                seen.add(id(value))
                todo += [*value, *value.values()] if isinstance(value, dict) else value
        elif not isinstance(value, _LEAVES):
            raise DataError(f"it holds {kind_of(value)}, which is not a plain value; refused")


def _nested_storage(content: Any) -> Tensor:
    """Return the values of a storage, which ``pickle.dump`` of a tensor writes as torch's bytes."""
    if type(content) is not bytes:
        raise DataError("it holds a storage that is not bytes; refused")
    try:
        return _legacy(io.BytesIO(content), len(content), _whole_storage)
    except DataError as error:
        raise DataError(f"torch.storage._load_from_bytes: {error}") from None


def _whole_storage(found: Any, values: ReadTensors) -> Tensor:
    if not isinstance(found, StorageRef):
        raise DataError(f"it holds {kind_of(found)}, not a storage")
    return values({"": TensorRef(found, 0, (found.numel,), (1,))})[""]


def _nested_tensor(values: Any, *about: Any) -> Tensor:
    if not isinstance(values, Tensor):
        raise DataError("it rebuilds a tensor of something that is not a storage; refused")
    ref = rebuild_tensor(StorageRef("", values.dtype, 0, len(values)), *about)
    return values.as_strided(ref.size, ref.stride, ref.offset)


_CHECKPOINT_CALLS: dict[str, Callable[..., Any]] = {**CALLS, **ARRAY_CALLS}
"""Training scripts save NumPy's random state, which holds an array, beside the weights."""
_PLAIN_CALLS: dict[str, Callable[..., Any]] = {
    **_CHECKPOINT_CALLS,
    "torch.storage._load_from_bytes": _nested_storage,
    "torch._utils._rebuild_tensor_v2": _nested_tensor,
}


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"it is not a whole safetensors file ({short(error)})") from None


def _zip(path: Path, use: Callable[..., Any]) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {info.filename: info for info in archive.infolist()}
            pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
            if len(pickles) != 1 or len(entries) != len(archive.infolist()):
                what = "it is a zip archive, but torch.save did not write it"
                raise DataError(f"{what} (it must hold data.pkl once)")
            root = pickles[0].removesuffix("data.pkl")
            if f"{root}constants.pkl" in entries:
                what = "it is a TorchScript archive"
                raise DataError(f"{what}; give a checkpoint that torch.save wrote")
            stored = sum(info.file_size for info in entries.values())
            packed = [n for n, info in entries.items() if info.compress_type != zipfile.ZIP_STORED]
            if packed or stored > path.stat().st_size:
                entry = (packed or pickles)[0]
                raise DataError(f"its zip entry {entry} is not stored as torch does, uncompressed")
            if entries[pickles[0]].file_size > LARGEST_PICKLE:
                what = f"its data.pkl is larger than {LARGEST_PICKLE >> 20} MiB"
                raise DataError(f"{what}; no checkpoint of these models is that large")
            if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
                raise _big_endian()
            with archive.open(pickles[0]) as stream:
                machine = PickleMachine(stream, _CHECKPOINT_CALLS)
                found = machine.load()

            def read(key: str, size: int) -> bytearray:
                info = entries.get(f"{root}data/{key}")
                if info is None or info.file_size != size:
                    have = "missing" if info is None else f"{info.file_size} bytes"
                    says = f"the file's own description says {size} bytes"
                    raise DataError(f"its storage {key} is {have}; {says}")
                with archive.open(info) as stream:
                    data = bytearray(stream.read())  # this also checks the checksum
                if len(data) != size:
                    raise DataError(f"its storage {key} is cut off")
                return data

            return use(found, _values(machine, read))
    except DataError:
        raise
    except (
        *(zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError),
        *(struct.error, KeyError),
    ) as error:
        raise DataError(f"the zip archive is broken or cut off ({short(error)})") from None


def _legacy(content: Any, length: int, use: Callable[..., Any]) -> Any:
    """Read torch's format before 1.6: five pickles, then the bytes of each storage."""
    machine = PickleMachine(content, _CHECKPOINT_CALLS)
    magic = machine.load()
    if type(magic) is not int or magic != MAGIC:
        raise DataError("it is a pickle, but torch.save did not write it")
    protocol, system = machine.load(), machine.load()
    if type(protocol) is not int or protocol != PROTOCOL or type(system) is not dict:
        raise DataError("it was written by an unknown version of torch.save")
    if system.get("little_endian") is not True:
        raise _big_endian()
    found, keys = machine.load(), machine.load()
    if type(keys) is not list or not all(type(key) is str or is_count(key) for key in keys):
        raise DataError("its list of storages is not as torch writes it")
    starts: dict[str, int] = {}
    for key in map(str, keys):
        if key not in machine.storages or key in starts:
            names = f"its list of storages names {key[:40]}"
            raise DataError(f"{names}, which no tensor uses or which is listed twice")
        dtype, numel = machine.storages[key]
        head, size = content.read(8), numel * dtype.itemsize
        if len(head) != 8 or struct.unpack("<q", head)[0] != numel:
            what = f"its storage {key} is cut off, or has another size than its description"
            raise DataError(f"{what} ({numel} values)")
        starts[key] = content.tell()
        if starts[key] + size > length:
            raise DataError(f"its storage {key} is cut off; fetch the file again")
        content.seek(size, io.SEEK_CUR)
    if missing := sorted(set(machine.storages) - set(starts)):
        raise DataError(f"its storage {missing[0][:40]} is missing")

    def read(key: str, size: int) -> bytearray:
        content.seek(starts[key])
        return bytearray(content.read(size))

    return use(found, _values(machine, read))


def _big_endian() -> DataError:
    return DataError("it was written on a big-endian machine; save it again on a common one")


def _values(machine: PickleMachine, read: ReadStorage) -> ReadTensors:
    """Return a function from descriptions to tensors.

    Each storage is read once, so tensors that share a storage in the file share it here too.
    """

    @functools.cache
    def storage(key: str) -> Tensor:
        dtype, numel = machine.storages[key]
        data = read(key, numel * dtype.itemsize)
        return torch.frombuffer(data, dtype=dtype) if numel else torch.empty(0, dtype=dtype)

    def values(refs: Mapping[str, TensorRef]) -> dict[str, Tensor]:
        """Return the tensors, after checking that they do not use the file's bytes too often."""
        used = [machine.storages[key] for key in {ref.storage.key for ref in refs.values()}]
        held = sum(numel * dtype.itemsize for dtype, numel in used)
        wanted = sum(ref.numel * ref.storage.dtype.itemsize for ref in refs.values())
        if wanted > MOST_SHARING * held + 2**20:
            what = f"its tensors hold {wanted:,} bytes but the file only {held:,}"
            raise DataError(f"{what}; no checkpoint shares that much")
        return {
            name: storage(ref.storage.key).as_strided(
                ref.size, ref.stride, ref.storage.offset + ref.offset
            )
            for name, ref in refs.items()
        }

    return values
