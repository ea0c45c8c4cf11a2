"""Datasets: their format, how they are written, mapped, streamed and simulated."""

from avplatform.data.hf import batch_of, stream_dataset
from avplatform.data.schema import DataSpec, Manifest
from avplatform.data.source import DataSource, open_data, train_loader
from avplatform.data.writer import StoreWriter

__all__ = [
    "DataSource",
    "DataSpec",
    "Manifest",
    "StoreWriter",
    "batch_of",
    "open_data",
    "stream_dataset",
    "train_loader",
]
