"""Datasets: adapters of published ones, and stores, which are written, read and verified."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avplatform.data.reading.hf import batch_of
    from avplatform.data.reading.hf_stream import stream_dataset
    from avplatform.data.reading.source import Data, DataSource, open_data, train_loader
    from avplatform.data.store.schema import DataSpec, Manifest
    from avplatform.data.store.writer import StoreWriter

__all__ = [
    "Data",
    "DataSource",
    "DataSpec",
    "Manifest",
    "StoreWriter",
    "batch_of",
    "open_data",
    "stream_dataset",
    "train_loader",
]

_HOMES = {
    "Data": "avplatform.data.reading.source",
    "DataSource": "avplatform.data.reading.source",
    "DataSpec": "avplatform.data.store.schema",
    "Manifest": "avplatform.data.store.schema",
    "StoreWriter": "avplatform.data.store.writer",
    "batch_of": "avplatform.data.reading.hf",
    "open_data": "avplatform.data.reading.source",
    "stream_dataset": "avplatform.data.reading.hf_stream",
    "train_loader": "avplatform.data.reading.source",
}


def __getattr__(name: str) -> Any:
    """Import a name on first use, so that importing a store's schema does not load `datasets`."""
    if name not in _HOMES:
        raise AttributeError(f"module 'avplatform.data' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
