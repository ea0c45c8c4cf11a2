"""Reads checkpoint files: torch's zip format, torch's format before 1.6, and safetensors.

Nothing of a file is run (see `pickle_machine`). Sizes are checked against the file before memory is taken, so a file costs
at most a few times its own size.
"""

from __future__ import annotations

import mmap
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from avplatform.models.checkpoint.pickle_machine import PickleMachine
from avplatform.models.checkpoint.pickle_values import StorageRef, TensorRef, is_count, printable
from avplatform.models.checkpoint.state import tensors_of
from avplatform.models.errors import DataError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
LARGEST_PICKLE = 64 * 2**20
MOST_SHARING = 4  # how often the bytes of a file may be used, on average

ReadStorage = Callable[[str, int], bytearray]


@dataclass
class Checkpoint:
    """Tensors by their names in the file, and what else it holds: names of ignored entries, class of a whole module."""

    tensors: dict[str, Tensor]
    ignored: list[str] = field(default_factory=list)
    container: str = "state dict"


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read the weights of a checkpoint: a state dict, one inside a dictionary, or a whole pickled module.

    Raises:
        DataError: no file, not a checkpoint, broken, or holding what is not allowed; nothing of the file is run.
    """
    return _read(Path(path), _weights)


def read_tensor(path: str | Path) -> Tensor:
    """Read a file that holds one tensor alone.

    Raises:
        DataError: as `read_checkpoint`, or another number of tensors.
    """
    return _read(Path(path), _one_tensor)


def _weights(
    found: Any, values: Callable[[Mapping[str, TensorRef]], dict[str, Tensor]]
) -> Checkpoint:
    if isinstance(found, dict) and all(isinstance(v, Tensor) for v in found.values()):
        return Checkpoint(found)  # of safetensors
    refs, ignored, container = tensors_of(found)
    return Checkpoint(values(refs), ignored, container)


def _one_tensor(
    found: Any, values: Callable[[Mapping[str, TensorRef]], dict[str, Tensor]]
) -> Tensor:
    if isinstance(found, dict) and len(found) == 1:
        found = next(iter(found.values()))
    if isinstance(found, Tensor):
        return found
    if not isinstance(found, TensorRef):
        raise DataError("it does not hold one tensor alone")
    return values({"tensor": found})["tensor"]


def _read(path: Path, use: Callable[..., Any]) -> Any:
    """Open a file of any of the formats and hand what it holds to `use`."""
    try:
        if not path.exists():
            raise DataError("no such file")
        if not path.is_file():
            raise DataError("it is a folder; give the checkpoint file itself")
        if not path.stat().st_size:
            raise DataError("the file is empty; fetch it again")
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            start = bytes(content[:512])
            if path.suffix == ".safetensors" or start[8:9] == b"{":
                _refuse_text(start)
                return use(_safetensors(path), None)
            if start.startswith(b"PK\x03\x04"):
                return _zip(path, use)
            _refuse_text(start)
            return _legacy(content, use)
    except DataError as error:
        raise DataError(f"{path}: {printable(str(error))}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def _refuse_text(start: bytes) -> None:
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        raise DataError(
            "it is a web page, not weights; open its address in a browser and fetch the file that it offers"
        )
    if text.startswith(b"version https://git-lfs"):
        raise DataError(
            "it is a git-lfs pointer, not weights; fetch the file itself (git lfs pull)"
        )
    if start[257:262] == b"ustar":
        raise DataError(
            "it is a tar archive, as torch before 0.2 wrote; load and save it again with torch 0.2 to 1.5"
        )


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"it is not a whole safetensors file ({' '.join(str(error).split())[:200]})"
        ) from None


def _zip(path: Path, use: Callable[..., Any]) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {info.filename: info for info in archive.infolist()}
            pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
            if len(pickles) != 1 or len(entries) != len(archive.infolist()):
                raise DataError(
                    "it is a zip archive, but none that torch.save wrote (it must hold data.pkl once)"
                )
            root = pickles[0].removesuffix("data.pkl")
            if f"{root}constants.pkl" in entries:
                raise DataError(
                    "it is a TorchScript archive; give a checkpoint that torch.save wrote"
                )
            stored = sum(info.file_size for info in entries.values())
            compressed = [
                name for name, info in entries.items() if info.compress_type != zipfile.ZIP_STORED
            ]
            if compressed or stored > path.stat().st_size:
                raise DataError(
                    f"its zip entry {(compressed or pickles)[0]} is not stored as torch does, uncompressed"
                )
            if entries[pickles[0]].file_size > LARGEST_PICKLE:
                raise DataError(
                    f"its data.pkl is larger than {LARGEST_PICKLE >> 20} MiB; no checkpoint of these models' is"
                )
            if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
                raise DataError(
                    "it was written on a big-endian machine; save it again on a common one"
                )
            machine = PickleMachine()
            with archive.open(pickles[0]) as stream:
                found = machine.load(stream)

            def read(key: str, size: int) -> bytearray:
                info = entries.get(f"{root}data/{key}")
                if info is None or info.file_size != size:
                    have = "missing" if info is None else f"{info.file_size} bytes"
                    raise DataError(
                        f"its storage {key} is {have}; the file's own description says {size} bytes"
                    )
                with archive.open(info) as stream:
                    data = bytearray(stream.read())  # compares the checksum too
                if len(data) != size:
                    raise DataError(f"its storage {key} is cut off")
                return data

            return use(found, _Values(machine, read))
    except (
        zipfile.BadZipFile,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        struct.error,
        KeyError,
    ) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"the zip archive is broken or cut off ({' '.join(str(error).split())[:200]})"
        ) from None


def _legacy(content: mmap.mmap, use: Callable[..., Any]) -> Any:
    machine = PickleMachine()
    if (magic := machine.load(content)) is None or type(magic) is not int or magic != MAGIC:
        raise DataError("it is a pickle, but none that torch.save wrote")
    protocol, system = machine.load(content), machine.load(content)
    if type(protocol) is not int or protocol != PROTOCOL or type(system) is not dict:
        raise DataError("it was written by torch.save in a version that is not known")
    if system.get("little_endian") is not True:
        raise DataError("it was written on a big-endian machine; save it again on a common one")
    found, keys = machine.load(content), machine.load(content)
    if type(keys) is not list or not all(type(key) is str or is_count(key) for key in keys):
        raise DataError("its list of storages is not as torch writes it")
    places: dict[str, tuple[int, int]] = {}
    for key in map(str, keys):
        if key not in machine.storages or key in places:
            raise DataError(
                f"its list of storages names {key[:40]}, which no tensor uses or which stands there twice"
            )
        dtype, numel = machine.storages[key]
        head, size = content.read(8), numel * dtype.itemsize
        if len(head) != 8 or struct.unpack("<q", head)[0] != numel:
            raise DataError(
                f"its storage {key} is cut off, or has another size than its description ({numel} values)"
            )
        if content.tell() + size > len(content):
            raise DataError(f"its storage {key} is cut off; fetch the file again")
        places[key] = (content.tell(), size)
        content.seek(size, 1)
    if missing := sorted(set(machine.storages) - set(places)):
        raise DataError(f"its storage {missing[0][:40]} is missing")

    def read(key: str, size: int) -> bytearray:
        start, _ = places[key]
        return bytearray(content[start : start + size])

    return use(found, _Values(machine, read))


class _Values:
    """Turns descriptions into tensors; a storage is read once, so tensors that share one go on sharing it."""

    def __init__(self, machine: PickleMachine, read: ReadStorage) -> None:
        self.machine, self.read = machine, read
        self.storages: dict[str, Tensor] = {}

    def __call__(self, refs: Mapping[str, TensorRef]) -> dict[str, Tensor]:
        """Return the tensors, after checking that they are not many more than the file holds."""
        used = {ref.storage.key for ref in refs.values()}
        held = sum(
            numel * dtype.itemsize
            for key, (dtype, numel) in self.machine.storages.items()
            if key in used
        )
        wanted = sum(ref.numel * ref.storage.dtype.itemsize for ref in refs.values())
        if wanted > MOST_SHARING * held + 2**20:
            raise DataError(
                f"its tensors hold {wanted:,} bytes but the file only {held:,}; no checkpoint shares that much"
            )
        return {name: self._tensor(ref) for name, ref in refs.items()}

    def _tensor(self, ref: TensorRef) -> Tensor:
        whole = self._storage(ref.storage)
        return whole.as_strided(ref.size, ref.stride, ref.storage.offset + ref.offset)

    def _storage(self, ref: StorageRef) -> Tensor:
        if ref.key not in self.storages:
            dtype, numel = self.machine.storages[ref.key]
            data = self.read(ref.key, numel * dtype.itemsize)
            self.storages[ref.key] = (
                torch.frombuffer(data, dtype=dtype) if numel else torch.empty(0, dtype=dtype)
            )
        return self.storages[ref.key]
