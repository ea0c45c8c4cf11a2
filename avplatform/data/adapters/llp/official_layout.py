"""LLP in its authors' layout: csv files, and one .npy per video in feats/, CLIP/ and CLAP/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.data.adapters.contracts import OfficialFiles
from avplatform.data.adapters.llp.annotations import ID_LENGTH, locate, read_annotations
from avplatform.data.adapters.official_files import cells, copy_files
from avplatform.data.adapters.world import clip_generator

FILES = "AVVP_*.csv"
FRAMES = 8  # per segment
FRAME_JITTER = 0.05


def copy_annotations(source: str | Path, out: Path, rows: Sequence[int] | None = None) -> None:
    """Copy the csv files; if `rows` is given, only the lines of these clips are kept."""
    folder = locate(source)
    copy_files([folder], FILES, out)
    if rows is not None:
        _cut(folder, out, set(rows))


def _cut(folder: Path, out: Path, rows: set[int]) -> None:
    away = {name for row, name in enumerate(read_annotations(folder).filenames) if row not in rows}
    for file in out.glob(FILES):
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if away.isdisjoint(cells(line.strip("\r\n"), "\t")[:2])]
        if len(kept) < len(lines):  # otherwise keep its bytes: their checksum tells the version
            file.write_text("".join(kept), encoding="utf-8")


def write_official(files: OfficialFiles, columns: dict[str, Any]) -> None:
    """Write one .npy per video and kind of feature or pseudo-label.

    Visual vectors become 80 frame vectors; the mean of a segment's frames is the segment's vector.
    """
    places = {
        "audio": "feats/vggish",
        "motion": "feats/r2plus1d_18",
        "pseudo_visual": "CLIP/segment_pseudo_labels",
        "pseudo_audio": "CLAP/segment_pseudo_labels",
    }
    for n, clip_id in enumerate(columns["clip_id"]):
        video = clip_id[:ID_LENGTH]
        for name, place in places.items():
            kind = np.int64 if name.startswith("pseudo") else np.float32
            files.npy(f"{place}/{video}.npy", columns[name][n].astype(kind))
        noise = FRAME_JITTER * clip_generator(0, f"frames:{clip_id}").standard_normal(
            (len(columns["visual"][n]), FRAMES, columns["visual"].shape[-1]), dtype=np.float32
        )
        noise -= noise.mean(axis=1, keepdims=True)  # keeps the mean of a segment's frames
        frames = columns["visual"][n][:, None] + noise
        files.npy(
            f"feats/res152/{video}.npy", frames.reshape(-1, frames.shape[-1]).astype(np.float32)
        )
