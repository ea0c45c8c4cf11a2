"""Choices of flags that follow from what is registered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from avplatform.data.adapters.registry import DATASETS

DEFAULT_DATASET = next(iter(DATASETS.values()))

if TYPE_CHECKING:
    DatasetTask = str
else:
    DatasetTask = Literal[tuple(dict.fromkeys(adapter.task for adapter in DATASETS.values()))]
    """A task that a dataset is registered for."""
