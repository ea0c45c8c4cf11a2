"""Check that the labels of a clip agree with each other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from avplatform.data.store.schema import DataSpec
from avplatform.tasks.contracts import Odd
from avplatform.tasks.registry import TASKS


def check_labels_agree(spec: DataSpec, split: str, columns: dict[str, np.ndarray]) -> Iterator[Odd]:
    """Yield the clips whose labels contradict each other, or are set where none is known."""
    for name in spec.labels:
        if not spec.known(name, split):
            for i in np.flatnonzero(columns[name].reshape(len(columns["row"]), -1).any(axis=1)):
                yield (
                    "error",
                    "label where none is known",
                    int(i),
                    f"{name} is not known in {split}, and is not zero",
                )
    if spec.task in TASKS:
        known = {name: columns[name] for name in spec.labels if spec.known(name, split)}
        yield from TASKS[spec.task].odd_labels(spec.classes, known)
