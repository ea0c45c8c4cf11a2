"""Choices of flags that depend on which datasets are registered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from avplatform.data.adapters.registry import DATASETS

DEFAULT_DATASET = next(iter(DATASETS.values()))

if TYPE_CHECKING:
    DatasetTask = str
else:
    DatasetTask = Literal[tuple(dict.fromkeys(a.task for a in DATASETS.values() if a.task))]
    """A task for which a dataset is registered."""
