"""The dataset that pseudo-labels are made for: the first registered one that has prompts for its classes."""

from __future__ import annotations

from avplatform.data.adapters.registry import DATASETS

DATASET = next(adapter for adapter in DATASETS.values() if adapter.prompted)
