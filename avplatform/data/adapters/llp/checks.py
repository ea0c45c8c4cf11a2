"""Further checks of LLP's annotation files: their version, the file of all clips, repeated ids."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from avplatform.data.adapters.llp.annotations import (
    DENSE_HEADER,
    WEAK_HEADER,
    LLPAnnotations,
    read_rows,
)
from avplatform.data.adapters.llp.classes import CLASSES
from avplatform.data.adapters.official_files import NO_SPLIT, Defect

VARIANT = "dense audio annotations"
OTHER_VERSION = f"{VARIANT} of another version"
FULL_FILE = "AVVP_dataset_full.csv"
UNCORRUPTED, CORRUPTED = "uncorrupted", "mm_pyramid variant (3 rows lost)"
UNKNOWN = "not a known one"
AUDIO_SHA256 = {
    "d5435664668bec6e7eafb39059d2f424ed2682f6b55395262fc3cb691b7d0778": UNCORRUPTED,
    "249122f65501d8d611c0027a48643798fe622bedee60f7e6224b5a8e3c02f886": CORRUPTED,
}
"""The two known versions of AVVP_eval_audio.csv; the second lost three rows of two test clips."""


def audio_variant(file: Path) -> str:
    """Return the version of a file of dense audio annotations.

    A known version is found by the checksum of its text, which does not depend on line ends. Any
    other file counts as corrupted if it has a row like those of the second version, where the name
    of a class stands in place of the clip's, or the clip's name ends in a backtick.

    Raises:
        DataError: the file cannot be read.
    """
    rows = read_rows(file, DENSE_HEADER)
    lines = [DENSE_HEADER, *(row for _, row in rows)]
    text = "".join("\t".join(columns) + "\n" for columns in lines)
    known = AUDIO_SHA256.get(hashlib.sha256(text.encode()).hexdigest())
    if known is not None:
        return known
    corrupted = any(row[0] in CLASSES or row[0].endswith("`") for _, row in rows)
    return CORRUPTED if corrupted else UNKNOWN


def check_files(folder: Path, annotations: LLPAnnotations) -> list[Defect]:
    """List clips on which the file of all clips and the split files differ, and repeated video ids.

    Raises:
        DataError: the file of all clips exists but is malformed.
    """
    file = folder / FULL_FILE
    defects = _compare_full(file, annotations) if file.is_file() else []
    first: dict[str, str] = {}
    for filename, video in zip(annotations.filenames, annotations.video_ids, strict=True):
        if video in first:
            clips = f"{first[video]}, {filename}"
            defects.append(Defect("feature file of several clips", f"{video}.npy", 0, clips))
        first.setdefault(video, filename)
    return defects


def _compare_full(file: Path, annotations: LLPAnnotations) -> list[Defect]:
    """List the clips that the file of all clips lacks, has in addition, or labels differently."""
    weak = {
        name: {CLASSES[i] for i in np.flatnonzero(row)}
        for name, row in zip(annotations.filenames, annotations.weak, strict=True)
    }
    defects, seen = [], set()
    for line, (filename, labels) in read_rows(file, WEAK_HEADER):
        seen.add(filename)
        if filename not in weak:
            defects.append(Defect(NO_SPLIT, file.name, line, filename))
        elif weak[filename] != {label.strip() for label in labels.split(",")}:
            text = f"{filename}: {labels}"
            defects.append(Defect("labels differ from the split file's", file.name, line, text))
    missing = [name for name in annotations.filenames if name not in seen]
    return defects + [
        Defect("clip missing from the file of all clips", file.name, 0, name) for name in missing
    ]
