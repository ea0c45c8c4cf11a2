"""Datasets: their format, how they are written, mapped, streamed and simulated."""

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
