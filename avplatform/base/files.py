"""Files and folders of this platform: the cache, JSON, recovery after a kill, and errors of the disk."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from avplatform.models.errors import DataError
from avplatform.models.files import write_atomic


def cache_root() -> Path:
    """Folder for what can be made again: $AVPLATFORM_CACHE or ~/.cache/avplatform."""
    return Path(os.environ.get("AVPLATFORM_CACHE") or Path.home() / ".cache" / "avplatform")


def write_json(path: Path, value: Any) -> Path:
    """Write JSON, indented, whole or not at all."""
    return write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def publish(temporary: Path, path: Path) -> None:
    """Let a folder that was written under another name appear as `path`, where an empty folder may be."""
    if path.is_dir():
        path.rmdir()
    os.replace(temporary, path)


def recover(folder: Path) -> None:
    """Tidy up after a process that was killed inside `write_atomic`: folders moved aside come back, half-written ones go."""
    for path in folder.glob(".*.replaced") if folder.is_dir() else ():
        whole = path.with_name(path.name.removeprefix(".").removesuffix(".replaced"))
        if whole.exists():
            shutil.rmtree(path)
        else:
            path.rename(whole)
    for path in folder.glob(".*.partial-*") if folder.is_dir() else ():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def disk_errors(path: Path, *, go_on: str = "--resume") -> Iterator[None]:
    """Turn an error of the disk (full, read-only, over quota) into a DataError that says how to go on: with `go_on`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = (
            error.strerror
            if isinstance(error, OSError) and error.strerror
            else " ".join(str(error).split())
        )
        raise DataError(
            f"cannot write {path}: {reason}; what was written before is whole: make room, then go on with {go_on}"
        ) from None


def arrow_path(file: Path) -> Path:
    """Return a file's absolute path: Arrow takes a relative one such as file:x/train.parquet for an address."""
    return file.absolute()
