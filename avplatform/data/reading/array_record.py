"""Checksums of mapped arrays: recorded when they are built, compared whenever they are opened.

The record is the file `complete` in the arrays' folder. For every file it holds the size, the time
of the last change, and the sha256 of the whole file and of a sample. Opening compares size, time
and sample, and the whole file if its time differs. This finds files that were cut, half copied,
overwritten or swapped, but not bytes that changed outside the sample while the time stayed the
same; `avplatform data verify` compares every byte with the shards.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from avplatform.models.files import file_sha256, write_atomic

RECORD = "complete"
SAMPLES, SAMPLE_BYTES = 16, 4096  # 64 KiB per file, including its first and last bytes


def write_record(folder: Path, *, contents: str, split: str, names: list[str]) -> None:
    """Record the files of a folder, which is complete with this record.

    Args:
        folder: folder of one split's arrays.
        contents: fingerprint of the store from which the arrays were built.
        split: name of the split.
        names: names of the files.
    """
    files = {name: {**_stat(folder / name), "sha256": file_sha256(folder / name)} for name in names}
    for name in names:
        files[name]["sample"] = _sample(folder / name)
    _write(folder, {"contents": contents, "split": split, "files": files})


def what_is_wrong(folder: Path, *, contents: str, split: str, names: list[str]) -> str | None:
    """Return why a folder's files are not those that `write_record` recorded, or None."""
    if not (folder / RECORD).exists():
        return "they are incomplete"
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if (record["contents"], record["split"]) != (contents, split):
            return f"they are those of {record['split']} of other data"
        files: dict[str, Any] = {name: record["files"][name] for name in names}
        moved = [name for name in names if _differs(folder / name, files[name])]
        if moved:  # e.g. copied; with the new time recorded, the next opening reads samples only
            files |= {name: {**files[name], **_stat(folder / name)} for name in moved}
            with contextlib.suppress(OSError):  # a cache that belongs to another user
                _write(folder, {**record, "files": files})
    except _ChangedError as error:
        return str(error)
    except OSError as error:
        return f"{Path(error.filename or RECORD).name} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError):
        return "their checksums are missing"
    return None


class _ChangedError(Exception):
    pass


def _differs(file: Path, known: dict[str, Any]) -> bool:
    """Return whether a file's time differs from the record; raise _ChangedError if its bytes do."""
    found = _stat(file)
    if found["bytes"] != known["bytes"]:
        raise _ChangedError(f"{file.name} has {found['bytes']} bytes instead of {known['bytes']}")
    moved: bool = found["mtime_ns"] != known["mtime_ns"]
    if (file_sha256(file) != known["sha256"]) if moved else (_sample(file) != known["sample"]):
        raise _ChangedError(f"the checksum of {file.name} differs")
    return moved


def _stat(file: Path) -> dict[str, Any]:
    stat = file.stat()
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _sample(file: Path) -> str:
    """Return the sha256 of blocks that are spread evenly over a file."""
    digest, last = hashlib.sha256(), max(0, file.stat().st_size - SAMPLE_BYTES)
    with file.open("rb", buffering=0) as stream:
        for at in sorted({last * i // (SAMPLES - 1) for i in range(SAMPLES)}):
            stream.seek(at)
            digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _write(folder: Path, record: dict[str, Any]) -> None:
    write_atomic(folder / RECORD, json.dumps(record, indent=1))
