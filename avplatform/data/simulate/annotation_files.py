"""Copy a dataset's official annotation files, whole or cut to some of its clips."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from avplatform.data.adapters.ave import annotations as ave
from avplatform.data.adapters.ave.h5 import KEY
from avplatform.data.adapters.llp import annotations as llp
from avplatform.data.adapters.official_files import read_lines

COPIED = {"avvp": "AVVP_*.csv", "avel": "*"}
SUFFIXES = (".csv", ".txt", ".h5")


def copy_annotations(
    task: str, source: str | Path, out: Path, rows: Sequence[int] | None = None
) -> None:
    """Copy the annotation files of a folder, or of its `data/`, into another; features are not copied.

    With `rows` every file is cut to these clips, so that it names no other: LLP's csv files lose the lines of the others,
    AVE's arrays and Annotations.txt their rows, and its orders number the rest anew.

    Args:
        task: "avvp" (LLP) or "avel" (AVE).
        source: folder of the official files.
        out: an existing folder.
        rows: clips that stay, as `read_annotations` numbers them; AVE's background clips are numbered behind its lines.

    Raises:
        DataError: annotation files that are missing or malformed.
    """
    folder = {"avvp": llp.locate, "avel": ave.locate}[task](source)
    places = [folder] if task == "avvp" else ave.places(folder)
    for file in {
        file.name: file for place in reversed(places) for file in sorted(place.glob(COPIED[task]))
    }.values():
        if file.is_file() and file.suffix in SUFFIXES and "feature" not in file.name:
            shutil.copyfile(file, out / file.name)
    if rows is not None and task == "avvp":
        _cut_llp(folder, out, set(rows))
    elif rows is not None:
        _cut_ave(folder, out, sorted(rows))


def _cut_llp(folder: Path, out: Path, rows: set[int]) -> None:
    away = {
        name for row, name in enumerate(llp.read_annotations(folder).filenames) if row not in rows
    }
    for file in out.glob(COPIED["avvp"]):
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.split("\t")[0].strip() not in away]
        if len(kept) < len(lines):  # else its bytes stay, by which a version of the file is known
            file.write_text("".join(kept), encoding="utf-8")


def _cut_ave(folder: Path, out: Path, rows: list[int]) -> None:
    data = ave.read_annotations(folder)
    count = len(data.clip_ids)
    kept, background = (
        [row for row in rows if row < count],
        [row - count for row in rows if row >= count],
    )
    file = out / "Annotations.txt"
    lines = [f"{line}\n" for line in read_lines(file)]
    header, lines = lines[: len(lines) - count], lines[len(lines) - count :]
    file.write_text("".join([*header, *(lines[row] for row in kept)]), encoding="utf-8")
    position = {row: place for place, row in enumerate(kept)}
    for split, name in ave.SPLIT_FILES.items():
        with h5py.File(out / name, "w") as h5:
            h5["order"] = np.array(
                [position[row] for row in data.splits[split].tolist() if row in position], np.int64
            )
    for file in out.glob("*.h5"):
        if file.name not in ave.SPLIT_FILES.values():
            noisy = file.name.endswith("_noisy.h5")
            _cut_array(
                file, data.background_count if noisy else count, background if noisy else kept
            )


def _cut_array(file: Path, count: int, rows: list[int]) -> None:
    """Keep some rows of an array with a row a clip; leave what is no such array as it is."""
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
