"""Files: written whole or not at all, safetensors that others may read, checksums, and paths with ~."""

from __future__ import annotations

import hashlib
import os
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
    """Write tensors or arrays to a safetensors file with the rights of any other new file.

    Departs: `safetensors` itself lets nobody but the owner read it, so that a model in a shared folder is of no use to others.

    Raises:
        OSError: the file cannot be made.
        SafetensorError: it cannot be written.
    """
    path.touch()
    mode = path.stat().st_mode
    save_file({name: _plain(value) for name, value in tensors.items()}, path, metadata=metadata)
    path.chmod(mode)


def save_array(values: np.ndarray, path: Path) -> None:
    """Write an array as .npy under exactly this name, to which NumPy would add a suffix."""
    with path.open("wb") as file:
        np.save(file, values)


def file_sha256(path: Path) -> str:
    """Return a file's sha256, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, content: str | bytes | Callable[[Path], object]) -> Path:
    """Write a file or a folder whole or not at all: under a temporary name beside `path`, then renamed.

    A folder that is in the way is moved aside first and deleted last: a process that is killed in between leaves one of the
    two, and `recover` puts it back.

    Args:
        path: of the file or the folder; the folder around it is made where it is missing.
        content: text (written as UTF-8), bytes, or a function that fills the path it is given.
    """
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
    aside = path.with_name(f".{path.name}.replaced")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if isinstance(content, str):
            temporary.write_text(content, encoding="utf-8")
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


def expanded(path: str | Path) -> Path:
    """Return a path with ~ and ~NAME written out; of a user that is not known, as it stands (pathlib raises RuntimeError)."""
    return Path(os.path.expanduser(path))


def _plain(value: Any) -> torch.Tensor:
    """Return a tensor as it is written; of an array a copy, as torch takes none that is read-only or turned round."""
    if not isinstance(value, torch.Tensor):
        array = np.asarray(value)
        value = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    return value.detach().cpu().contiguous()
