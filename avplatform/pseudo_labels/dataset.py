"""The dataset that gets pseudo-labels: the first registered one with prompts for its classes."""

from __future__ import annotations

from avplatform.data.adapters.registry import DATASETS

DATASET = next(adapter for adapter in DATASETS.values() if adapter.prompted)
