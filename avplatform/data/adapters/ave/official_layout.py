"""AVE in its authors' layout: h5 arrays of float64 with one row per line of Annotations.txt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from avplatform.data.adapters.ave.annotations import (
    SPLIT_FILES,
    locate,
    places,
    read_annotations,
)
from avplatform.data.adapters.ave.classes import CLASSES
from avplatform.data.adapters.ave.h5 import KEY
from avplatform.data.adapters.contracts import OfficialFiles
from avplatform.data.adapters.official_files import copy_files, read_lines


def copy_annotations(source: str | Path, out: Path, rows: Sequence[int] | None = None) -> None:
    """Copy Annotations.txt, order and label files; if `rows` is given, keep only these clips.

    The order files then hold the new row numbers.
    """
    folder = locate(source)
    copy_files(places(folder), "*", out)
    if rows is not None:
        _cut(folder, out, sorted(rows))


def write_official(files: OfficialFiles, split: str, columns: dict[str, Any]) -> None:
    """Write features and labels; background clips go to separate files."""
    background, rows = split == "background", np.asarray(columns["row"])
    suffix = "_noisy" if background else ""
    arrays = {
        f"visual_feature{suffix}.h5": columns["visual"],
        f"audio_feature{suffix}.h5": columns["audio"],
    }
    if not background:
        arrays["labels.h5"] = np.eye(len(CLASSES), dtype=np.float64)[columns["segment"]]
    for name, values in arrays.items():
        files.h5(name, KEY, values, rows, background=background)


def _cut(folder: Path, out: Path, rows: list[int]) -> None:
    data = read_annotations(folder)
    count = len(data.clip_ids)
    kept = [row for row in rows if row < count]
    background = [row - count for row in rows if row >= count]
    file = out / "Annotations.txt"
    lines = [f"{line}\n" for line in read_lines(file) if line.strip()]
    header, lines = lines[: len(lines) - count], lines[len(lines) - count :]
    file.write_text("".join([*header, *(lines[row] for row in kept)]), encoding="utf-8")
    position = {row: place for place, row in enumerate(kept)}
    for split, name in SPLIT_FILES.items():
        with h5py.File(out / name, "w") as h5:
            order = [position[row] for row in data.splits[split].tolist() if row in position]
            h5["order"] = np.array(order, np.int64)
    for file in out.glob("*.h5"):
        if file.name.endswith("_noisy.h5"):
            _cut_array(file, data.background_count, background)
        elif file.name not in SPLIT_FILES.values():
            _cut_array(file, count, kept)


def _cut_array(file: Path, count: int, rows: list[int]) -> None:
    """Keep some rows of an array that has one row per clip; leave any other file unchanged."""
    if len(rows) == count:
        return
    try:
        with h5py.File(file) as h5:
            values = h5[KEY][()] if h5[KEY].shape[:1] == (count,) else None
    except (OSError, KeyError, RuntimeError, AttributeError):
        return
    if values is not None:
        with h5py.File(file, "w") as h5:
            h5[KEY] = values[rows]
