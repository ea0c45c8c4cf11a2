"""Files and folders: the cache folder, JSON, recovery after a kill, and errors of the disk."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from safetensors import SafetensorError

from avplatform.base.places import Remote
from avplatform.base.utf8 import print_json
from avplatform.models.errors import DataError, one_line
from avplatform.models.files import write_atomic
from avplatform.models.paths import expanded

Place = TypeVar("Place", bound=Path | Remote)


def cache_root() -> Path:
    """Return the cache folder: $AVPLATFORM_CACHE or ~/.cache/avplatform.

    It may be deleted at any time: all that it holds can be made again.

    Raises:
        DataError: the variable is not set, and there is no home folder.
    """
    told = os.environ.get("AVPLATFORM_CACHE")
    if not told and os.path.expanduser("~") == "~":
        raise DataError("this user has no home folder; set AVPLATFORM_CACHE to a folder to write")
    return expanded(told or "~/.cache/avplatform")


@contextlib.contextmanager
def cache_errors(path: Path) -> Iterator[None]:
    """Turn an error of the file system in a block that writes to the cache into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write the cache {path}: {error.strerror or error}; give a folder that can be "
            "written: --cache-dir FOLDER, or AVPLATFORM_CACHE"
        ) from None


def write_file(place: Path | Remote, content: bytes | Callable[[Path], object]) -> None:
    """Write a file or an object, completely or not at all.

    Args:
        place: the path, or the address.
        content: bytes, or a function that writes to the path that it is given.
    """
    if not isinstance(place, Remote):
        write_atomic(place, content)
    elif isinstance(content, bytes):
        place.write(content)
    else:
        with TemporaryDirectory(prefix="avplatform-") as folder:
            file = Path(folder) / place.name
            content(file)
            place.write(file)


def write_json(path: Place, value: Any) -> Place:
    """Write a value as indented JSON, completely or not at all, and return the path."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_file(path, text.encode("utf-8", "backslashreplace"))  # names of odd files
    return path


def give_json(place: str, value: Any) -> None:
    """Write a value as JSON to the file that --json names, or print it where that is "-".

    Raises:
        DataError: the file cannot be written.
    """
    if place == "-":
        print_json(value)
        return
    try:
        write_json(expanded(place), value)
    except OSError as error:
        raise DataError(f"cannot write {place}: {error.strerror}") from None


def publish(temporary: Path, path: Path, *, replace: bool = False) -> None:
    """Rename a finished temporary folder to `path`, which is missing or an empty folder.

    With `replace`, `path` may be a folder that is not empty. It is first moved aside, and deleted
    last: if the process is killed in between, `put_back` restores it.
    """
    aside = aside_of(path)
    if replace and path.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
    elif path.is_dir():
        path.rmdir()
    os.replace(temporary, path)
    shutil.rmtree(aside, ignore_errors=True)


def put_back(path: Path) -> None:
    """Put a folder back that a killed process had moved aside; delete it if a new one is there."""
    aside = aside_of(path)
    if path.exists():
        shutil.rmtree(aside, ignore_errors=True)
    elif aside.is_dir():
        aside.rename(path)


def recover(folder: Path) -> None:
    """Clean a folder up after a process that was killed inside `write_atomic`.

    The old version of a folder, moved aside as `.NAME.replaced`, is put back if the new version is
    missing, and deleted if it is there. A `.NAME.partial-*`, which is partly written, is deleted.
    """
    for path in folder.glob(".*.replaced") if folder.is_dir() else ():
        put_back(path.with_name(path.name.removeprefix(".").removesuffix(".replaced")))
    for path in folder.glob(".*.partial-*") if folder.is_dir() else ():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def aside_of(path: Path) -> Path:
    """Return where `write_atomic` and `publish` move a folder that they replace."""
    return path.with_name(f".{path.name}.replaced")


@contextlib.contextmanager
def disk_errors(path: Path, *, go_on: str = "--resume") -> Iterator[None]:
    """Turn a disk error in the block (full, read-only, over quota) into a DataError.

    Args:
        path: what the block writes; the message names it.
        go_on: the option with which the user continues afterwards; the message names it too.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = (
            error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        )
        raise DataError(
            f"cannot write {path}: {reason}; what was written before is intact: make room, then "
            f"go on with {go_on}"
        ) from None


def arrow_path(file: Path) -> Path:
    """Return the path of a file as Arrow reads it: absolute.

    Arrow would take a relative path such as file:x/train.parquet for a URL, and takes every path
    for UTF-8, whatever the locale is.
    """
    return Path(os.fsencode(file.absolute()).decode("utf-8", "surrogateescape"))
