"""Checksums of mapped arrays: written when they are built, compared whenever they are opened, at the cost of a few reads.

The record lies in the arrays' folder as `complete`. For every file it holds the size, the time of the last change, a sha256
of the whole and one of a sample. Opening compares sizes, times and samples, and the whole file where its time is another one
than recorded: a file that was cut, half copied, overwritten or swapped is found. One whose bytes were changed under an
unchanged time and outside the sample is not; `avplatform data verify` compares every byte with the shards.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from avplatform.models.files import file_sha256, write_atomic

RECORD = "complete"
SAMPLES, SAMPLE_BYTES = 16, 4096  # 64 KiB of a file, its first and last bytes among them


def write_record(folder: Path, *, contents: str, split: str, names: list[str]) -> None:
    """Record the files of a folder, which is whole with this.

    Args:
        folder: of one split's arrays.
        contents: names what the arrays were built from.
        split: its name.
        names: of the files.
    """
    files = {name: {**_stat(folder / name), "sha256": file_sha256(folder / name)} for name in names}
    for name in names:
        files[name]["sample"] = _sample(folder / name)
    _write(folder, {"contents": contents, "split": split, "files": files})


def what_is_wrong(folder: Path, *, contents: str, split: str, names: list[str]) -> str | None:
    """Return why a folder's files are not the ones that were built, or None; arguments as for `write_record`."""
    if not (folder / RECORD).exists():
        return "they are incomplete"
    try:
        record = json.loads((folder / RECORD).read_text())
        if (record["contents"], record["split"]) != (contents, split):
            return f"they are those of {record['split']} of other data"
        files: dict[str, Any] = {name: record["files"][name] for name in names}
        moved = [name for name in names if _differs(folder / name, files[name])]
        if moved:  # copied, say; next time a sample will do
            files |= {name: {**files[name], **_stat(folder / name)} for name in moved}
            with contextlib.suppress(OSError):  # a cache that others own
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
    """Return whether a file's time differs from the recorded one; raise _ChangedError where its contents do."""
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
    """Return the sha256 of blocks spread evenly over a file."""
    digest, last = hashlib.sha256(), max(0, file.stat().st_size - SAMPLE_BYTES)
    with file.open("rb", buffering=0) as stream:
        for at in sorted({last * i // (SAMPLES - 1) for i in range(SAMPLES)}):
            stream.seek(at)
            digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _write(folder: Path, record: dict[str, Any]) -> None:
    write_atomic(folder / RECORD, json.dumps(record, indent=1))
