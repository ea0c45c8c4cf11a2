"""avplatform: any audio-visual encoder, event decoder and task, from video to an event timeline.

The names below are the public ones. Each is imported when it is first used, so that
`import avplatform` costs no more than a few milliseconds.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avplatform.version import __version__

if TYPE_CHECKING:
    from avplatform.api import create_model, evaluate, list_models, train
    from avplatform.data import open_data
    from avplatform.data.adapters.contracts import DatasetAdapter
    from avplatform.data.adapters.official_files import Annotations
    from avplatform.data.adapters.registry import register_dataset
    from avplatform.exported.write import export
    from avplatform.features.extractor import Extractor
    from avplatform.labels.cache import label_embeddings
    from avplatform.models.av_model import AVModel
    from avplatform.models.contracts import (
        Decoder,
        Encoder,
        Encoding,
        FeatureSpec,
        Parse,
        Prediction,
        StreamPredictions,
    )
    from avplatform.models.decoders import register_decoder
    from avplatform.models.encoders import register_encoder
    from avplatform.runs.predictions import load_predictions
    from avplatform.tasks.contracts import Task, TaskConfig
    from avplatform.tasks.events import FromEvents
    from avplatform.tasks.metrics import Metrics
    from avplatform.tasks.registry import register_task, task_of_model
    from avplatform.tasks.unseen import UnseenRule
    from avplatform.timeline.pipeline import pipeline
    from avplatform.timeline.timeline import Timeline

__all__ = [
    "AVModel",
    "Annotations",
    "DatasetAdapter",
    "Decoder",
    "Encoder",
    "Encoding",
    "Extractor",
    "FeatureSpec",
    "FromEvents",
    "Metrics",
    "Parse",
    "Prediction",
    "StreamPredictions",
    "Task",
    "TaskConfig",
    "Timeline",
    "UnseenRule",
    "__version__",
    "create_model",
    "evaluate",
    "export",
    "label_embeddings",
    "list_models",
    "load_predictions",
    "open_data",
    "pipeline",
    "register_dataset",
    "register_decoder",
    "register_encoder",
    "register_task",
    "task_of_model",
    "train",
]

_HOMES = {
    "AVModel": "avplatform.models.av_model",
    "Annotations": "avplatform.data.adapters.official_files",
    "DatasetAdapter": "avplatform.data.adapters.contracts",
    "Decoder": "avplatform.models.contracts",
    "Encoder": "avplatform.models.contracts",
    "Encoding": "avplatform.models.contracts",
    "Extractor": "avplatform.features.extractor",
    "FeatureSpec": "avplatform.models.contracts",
    "FromEvents": "avplatform.tasks.events",
    "Metrics": "avplatform.tasks.metrics",
    "Parse": "avplatform.models.contracts",
    "Prediction": "avplatform.models.contracts",
    "StreamPredictions": "avplatform.models.contracts",
    "Task": "avplatform.tasks.contracts",
    "TaskConfig": "avplatform.tasks.contracts",
    "Timeline": "avplatform.timeline.timeline",
    "UnseenRule": "avplatform.tasks.unseen",
    "create_model": "avplatform.api",
    "evaluate": "avplatform.api",
    "export": "avplatform.exported.write",
    "label_embeddings": "avplatform.labels.cache",
    "list_models": "avplatform.api",
    "load_predictions": "avplatform.runs.predictions",
    "open_data": "avplatform.data",
    "pipeline": "avplatform.timeline.pipeline",
    "register_dataset": "avplatform.data.adapters.registry",
    "register_decoder": "avplatform.models.decoders",
    "register_encoder": "avplatform.models.encoders",
    "register_task": "avplatform.tasks.registry",
    "task_of_model": "avplatform.tasks.registry",
    "train": "avplatform.api",
}

# In a checkout, models/, tasks/ and hub_cards/ lie beside this folder; a wheel has them inside it.
_home = Path(__file__).resolve().parent.parent
if (_home / "models").is_dir() and (_home / "pyproject.toml").is_file():
    __path__.append(str(_home))

# On a busy machine, OpenMP threads that spin while they wait for each other make two threads slower
# than one. This must be set before torch loads its OpenMP runtime; a user's own setting wins.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# DDP warns, in 500 characters per process, that a search for unused parameters found none.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'avplatform' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
