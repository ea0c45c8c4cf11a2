"""Faults to plant in stores; see `planted.py`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from avplatform.data import open_data
from avplatform.models.files import file_sha256
from tests.faults.files import Fault, clip, overwrite


def byte_flip(store: Path) -> None:
    file = store / "train-00001.parquet"
    overwrite(file, lambda b: bytes([*b[: len(b) // 2], b[len(b) // 2] ^ 1, *b[len(b) // 2 + 1 :]]))


def swap(store: Path) -> None:
    one, two, aside = store / "train-00000.parquet", store / "train-00001.parquet", store / "aside"
    one.rename(aside), two.rename(one), aside.rename(two)


def edit_manifest(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def plant(store: Path) -> None:
        content = json.loads((store / "dataset.json").read_text())
        change(content)
        overwrite(store / "dataset.json", lambda _: json.dumps(content).encode())

    return plant


def rewrite(file: str, change: Callable[[dict[str, list[Any]]], Any]) -> Callable[[Path], None]:
    """Return a plant that changes a shard's values and its size and sha256 in the manifest."""

    def plant(store: Path) -> None:
        table = pq.read_table(store / file)
        columns = table.to_pydict()
        change(columns)
        (store / file).unlink()
        pq.write_table(pa.table(columns, schema=table.schema), store / file)

        def update(manifest: dict[str, Any]) -> None:
            for split in manifest["splits"].values():
                for shard in [s for s in split["shards"] if s["file"] == file]:
                    path = store / file
                    shard |= {
                        "rows": len(columns["row"]),
                        "bytes": path.stat().st_size,
                        "sha256": file_sha256(path),
                    }
                split["rows"] = sum(shard["rows"] for shard in split["shards"])

        edit_manifest(update)(store)

    return plant


def set_value(name: str, i: int, at: int, value: Any) -> Callable[[dict[str, list[Any]]], Any]:
    def change(columns: dict[str, list[Any]]) -> None:
        columns[name][i] = [*columns[name][i][:at], value, *columns[name][i][at + 1 :]]

    return change


def copy_clip(columns: dict[str, list[Any]]) -> None:
    for values in columns.values():
        values.append(values[0])


def set_cell(name: str, i: int, value: Any) -> Callable[[dict[str, list[Any]]], Any]:
    return lambda columns: columns[name].__setitem__(i, value)


def mapped(store: Path) -> None:
    open_data(store, task="avvp").split("test")
    (file,) = (store / ".arrays").glob("*/test/audio.npy")
    values = np.load(file, mmap_mode="r+")
    values[1, 0, 0] += 1
    values.flush()


def llp_store(clips: int) -> list[Fault]:
    train = "train-00000.parquet"
    test = clip(5 * clips // 6)
    return [
        Fault("byte flip in a shard", byte_flip, ("train-00001.parquet", "sha256 differs")),
        Fault(
            "truncated shard",
            lambda s: overwrite(s / train, lambda b: b[:-100]),
            (train, "bytes, in the manifest"),
        ),
        Fault("missing shard", lambda s: (s / train).unlink(), (train, "is missing")),
        Fault("swapped shards", swap, (train, "in the manifest")),
        Fault(
            "count edited",
            edit_manifest(lambda m: m["splits"]["test"].update(rows=3)),
            ("dataset.json", "'test' has 3 rows"),
        ),
        Fault(
            "wrong class list",
            edit_manifest(lambda m: m["spec"]["classes"].reverse()),
            ("class list", "'Clapping' instead"),
        ),
        Fault(
            "checksum edited",
            edit_manifest(lambda m: m.update(checksum="0" * 64)),
            ("checksum of the contents", "00000000"),
        ),
        Fault(
            "NaN in a shard",
            rewrite(train, set_value("visual", 2, 7, np.nan)),
            (train, "row 2", clip(2), "visual is NaN"),
        ),
        Fault(
            "label flipped",
            rewrite(train, set_value("weak", 2, 9, 1)),
            (train, "row 2", clip(2), "weak differs"),
        ),
        Fault(
            "label out of range",
            rewrite(train, set_value("weak", 2, 9, 3)),
            (train, "row 2", clip(2), "weak holds a label"),
        ),
        Fault(
            "label where none is known",
            rewrite(train, set_value("dense_audio", 2, 9, 1)),
            (train, "row 2", clip(2), "not known"),
        ),
        Fault(
            "leak between splits",
            rewrite(train, set_cell("clip_id", 2, test)),
            ("leak", test, "test-00000.parquet"),
        ),
        Fault(
            "row stored twice",
            rewrite(train, copy_clip),
            ("row stored twice", train, "row 0", clip(0)),
        ),
        Fault(
            "shard of no manifest",
            lambda s: shutil.copy(s / train, s / "train-00099.parquet"),
            ("train-00099.parquet",),
        ),
        Fault(
            "mapped arrays changed",
            mapped,
            ("mapped arrays", "test", "audio differs", f"row {5 * clips // 6 + 1}"),
        ),
    ]


def ave_store() -> list[Fault]:
    file = "train-00000.parquet"
    return [
        Fault(
            "segments against video label",
            rewrite(file, set_cell("video", 1, 20)),
            (file, "row 1", "event-00001", "contradict"),
        ),
    ]
