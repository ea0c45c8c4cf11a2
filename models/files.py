"""File helpers: atomic writes, safetensors with normal permissions, and checksums."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file


def save_tensors(
    tensors: Mapping[str, Any], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write tensors or arrays to a safetensors file with the permissions of any other new file.

    Departs: `safetensors` makes a file that only its owner can read, so that others cannot use a
    model in a shared folder.

    Raises:
        OSError: the file cannot be created.
        SafetensorError: the file cannot be written.
    """
    path.touch()
    mode = path.stat().st_mode
    save_file({name: _plain(value) for name, value in tensors.items()}, path, metadata=metadata)
    path.chmod(mode)


def save_array(values: np.ndarray, path: Path) -> None:
    """Write an array as .npy under exactly this name; NumPy itself would add a suffix."""
    with path.open("wb") as file:
        np.save(file, values)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, which is read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, content: str | bytes | Callable[[Path], object]) -> Path:
    """Write a file or a folder completely or not at all.

    It is written under a temporary name beside `path` and then renamed. A folder that already
    exists is first moved aside, and deleted last: if the process is killed in between, one of the
    two remains, and `recover` puts it back.

    Args:
        path: the file or the folder; a missing parent folder is created.
        content: text (written as UTF-8), bytes, or a function that writes to the path that it is
            given.
    """
    # Processes of two machines that share the folder may have the same number.
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}-{secrets.token_hex(4)}")
    aside = path.with_name(f".{path.name}.replaced")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if isinstance(content, str):
            temporary.write_text(content, encoding="utf-8", newline="\n")  # the same everywhere
        elif isinstance(content, bytes):
            temporary.write_bytes(content)
        else:
            content(temporary)
        if temporary.is_dir() and path.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
        os.replace(temporary, path)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
    return path


def _plain(value: Any) -> torch.Tensor:
    """Return a tensor to write; arrays are copied, as torch refuses read-only and swapped ones."""
    if not isinstance(value, torch.Tensor):
        array = np.asarray(value)
        value = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    return value.detach().cpu().contiguous()
