"""Scoring of pseudo-labels from any source against the dense annotations, by the task's metrics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avplatform.base.npy import read_input
from avplatform.data.adapters.official_files import Annotations
from avplatform.models.errors import DataError, UsageError, counted
from avplatform.models.paths import expanded
from avplatform.pseudo_labels.dataset import DATASET
from avplatform.tasks.avvp.metrics import averages, score

SHAPE = (DATASET.segments, len(DATASET.classes))
OF_ONE_MODALITY = {"audio": ("segment_A", "event_A"), "visual": ("segment_V", "event_V")}


@dataclass(kw_only=True)
class Scores:
    """The metrics in percent over the scored clips, and the clips that could not be scored.

    `missing` lists (clip, modality, reason).
    """

    figures: dict[str, float]
    clips: int
    missing: list[tuple[str, str, str]]


def score_folder(
    annotations: Annotations,
    split: str,
    *,
    visual: str | Path | None,
    audio: str | Path | None,
    strict: bool = False,
) -> Scores:
    """Score folders of label files: one .npy [T, C] per video, named by its id.

    One folder gives the two metrics of its modality; both folders give all ten.

    Raises:
        UsageError: there is no folder, or the split has no dense annotations.
        DataError: no clip can be scored, or `strict` is set and some clip cannot.
    """
    if split not in ("validation", "test"):
        raise UsageError(f"split '{split}' has no dense annotations; score validation or test")
    given = {"audio": audio, "visual": visual}
    folders = {name: expanded(folder) for name, folder in given.items() if folder is not None}
    if not folders:
        raise UsageError("there are no pseudo-labels to score; give a folder of them")
    rows = annotations.splits[split]
    names = [annotations.clip_ids[row] for row in rows]
    maps: dict[str, np.ndarray] = {}
    missing: list[tuple[str, str, str]] = []
    scored = np.ones(len(rows), dtype=bool)
    for modality, folder in folders.items():
        maps[modality], reasons = read_folder(folder, [DATASET.file_name(name) for name in names])
        for index, reason in reasons.items():
            missing.append((names[index], modality, reason))
            scored[index] = False
    if missing and (strict or not scored.any()):
        name, _, reason = missing[0]
        raise DataError(
            f"{counted(len(missing), 'label file')} of split {split} missing or wrong, that of "
            f"{name} first: {reason}"
        )
    nothing = np.zeros((len(rows), *SHAPE), dtype=np.int64)
    parts = [maps.get(name, nothing)[scored] for name in ("audio", "visual")]
    truth = [annotations.labels[f"dense_{name}"][rows][scored] for name in ("audio", "visual")]
    figures = averages(score(*parts, *truth))
    if len(folders) == 1:
        figures = {name: figures[name] for name in OF_ONE_MODALITY[next(iter(folders))]}
    return Scores(figures=figures, clips=int(scored.sum()), missing=missing)


def read_folder(folder: Path, videos: list[str]) -> tuple[np.ndarray, dict[int, str]]:
    """Return the labels of videos, int64 [N, T, C], and by position why some could not be read.

    Raises:
        DataError: the folder does not exist.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}; give a folder of pseudo-labels, one .npy per video")
    labels = np.zeros((len(videos), *SHAPE), dtype=np.int64)
    reasons: dict[int, str] = {}
    for index, video in enumerate(videos):
        file = folder / f"{video}.npy"
        try:
            labels[index] = read_label(file)
        except DataError as error:
            reasons[index] = str(error) if file.exists() else f"no file {file}"
    return labels, reasons


def read_label(file: Path) -> np.ndarray:
    """Return the labels of one video, int64 [T, C].

    Raises:
        DataError: the file is unreadable, or has another shape or a number other than 0 and 1.
    """
    values = read_input(file, SHAPE, finite=True)
    if not np.isin(values, (0, 1)).all():
        raise DataError(f"{file} holds numbers other than 0 and 1")
    return values.astype(np.int64)
