"""OV-AVEBench in files: its annotation files, and one .npy of vectors per clip and stream.

The authors published no features and no format for them: their loaders run the networks in every
epoch. The layout here is ours, for features that were computed elsewhere.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.data.adapters.contracts import OfficialFiles
from avplatform.data.adapters.official_files import cells, read_lines
from avplatform.data.adapters.ovave.annotations import (
    CLASS_FILES,
    LABEL_FILE,
    META_FILE,
    locate,
    ratio_file,
    read_annotations,
)
from avplatform.data.adapters.ovave.options import RATIOS

LISTS = (META_FILE, *map(ratio_file, RATIOS))
FOLDERS = {"audio": "audio", "visual": "visual"}


def copy_annotations(source: str | Path, out: Path, rows: Sequence[int] | None = None) -> None:
    """Copy the annotation files; if `rows` is given, only these clips are kept in them."""
    folder = locate(source)
    for name in (*LISTS, *CLASS_FILES, LABEL_FILE):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)
    if rows is None:
        return
    ids = read_annotations(folder).clip_ids
    kept = {ids[row] for row in rows}
    for name in LISTS:
        if (out / name).is_file():
            header, *lines = read_lines(out / name)
            lines = [line for line in lines if cells(line, ",")[-1].strip() in kept]
            (out / name).write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    labels = json.loads((folder / LABEL_FILE).read_text(encoding="utf-8-sig"))
    left = {clip_id: entry for clip_id, entry in labels.items() if clip_id in kept}
    (out / LABEL_FILE).write_text(json.dumps(left, indent=4), encoding="utf-8")


def write_official(files: OfficialFiles, columns: dict[str, Any]) -> None:
    """Write one .npy of float32 [10, D] per clip and stream, named by the id of the clip."""
    for n, clip_id in enumerate(columns["clip_id"]):
        for name, folder in FOLDERS.items():
            files.npy(f"{folder}/{clip_id}.npy", columns[name][n].astype(np.float32))
