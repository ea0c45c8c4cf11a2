"""The refined labels that the authors of MA and of its followers published, for LLP."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from avplatform.data.adapters.official_files import Annotations
from avplatform.models.checkpoint.file import read_pickle
from avplatform.models.errors import DataError, counted
from avplatform.pseudo_labels.dataset import DATASET
from avplatform.tasks.avvp.refinements import RefinedLabels


def read_published(path: str | Path, annotations: Annotations) -> RefinedLabels:
    """Read `need_to_change.pkl`, whose numbers are rows of the csv file of training clips.

    The file is a pickled list [visual, audio]; each is a list of one list per class, of the rows
    that lose the class. No code of the file is run.

    Args:
        path: the file.
        annotations: the dataset's official annotations.

    Raises:
        DataError: the file has another form, names a row that does not exist, or drops a class
            that the row does not have.
    """
    rows = annotations.splits["train"]
    weak = annotations.labels["weak"][rows].astype(bool)
    found = read_pickle(path)
    classes = DATASET.classes
    parts = found if isinstance(found, list) else []
    sizes = [len(part) if isinstance(part, list) else -1 for part in parts]
    if sizes != [len(classes)] * 2 or not all(isinstance(e, list) for p in parts for e in p):
        raise DataError(
            f"{path} is not a list of visual and audio rows for {counted(len(classes), 'class')}"
        )
    keep = []
    for name, part in zip(("visual", "audio"), found, strict=True):
        mask = np.ones_like(weak)
        for index, entries in enumerate(part):
            places = np.array([_row(path, entry) for entry in entries], dtype=np.int64)
            if len(beyond := places[(places < 0) | (places >= len(weak))]):
                raise DataError(
                    f"{path} names row {beyond[0]}, but there are only "
                    f"{counted(len(weak), 'training clip')}"
                )
            if len(lacking := places[~weak[places, index]]):
                raise DataError(
                    f"{path} drops '{classes[index]}' from the {name} labels of row {lacking[0]}, "
                    "which does not have it; the file was made for another list of clips"
                )
            mask[places, index] = False
        keep.append(mask)
    return RefinedLabels(
        classes=tuple(classes),
        clip_ids=tuple(annotations.clip_ids[row] for row in rows),
        keep_audio=keep[1],
        keep_visual=keep[0],
        made_by={"rule": "exchange", "file": str(path)},
    )


def _row(path: str | Path, entry: object) -> int:
    if isinstance(entry, torch.Tensor) and entry.numel() == 1 and not entry.is_floating_point():
        return int(entry)
    if isinstance(entry, int):
        return entry
    raise DataError(f"{path} holds {type(entry).__name__} where row numbers were expected")
