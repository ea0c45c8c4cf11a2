"""A timeline page that runs the network itself, in a browser and without a network connection.

The page holds the exported network, onnxruntime-web and stored features, and shows what the network
finds in them as any timeline page does. onnxruntime-web is not part of avplatform: it is the npm
package of that name, and the page takes two of its files from a folder.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avplatform.exported.about import packed
from avplatform.exported.runtime import ExportedModel, check_shape
from avplatform.models.errors import DataError, UsageError
from avplatform.models.paths import expanded
from avplatform.tasks.registry import task_of_model
from avplatform.timeline.labels import event_names
from avplatform.timeline.options import PipelineConfig
from avplatform.timeline.page import render_page
from avplatform.timeline.reading import check_fits
from avplatform.timeline.timeline import Timeline
from avplatform.timeline.windows import Features, features_of

RUNTIME = {"module": "ort.wasm.bundle.min.mjs", "wasm": "ort-wasm-simd-threaded.wasm"}
"""The files of onnxruntime-web that the page holds, in the folder dist of its npm package."""
STREAMS = ("audio", "visual")


def browser_page(
    model: str | Path,
    features: Features | Mapping[str, np.ndarray],
    *,
    runtime: str | Path,
    video: str = "",
) -> str:
    """Return the HTML of a page that runs an exported network on features, in the browser.

    Args:
        model: a FILE.onnx of a model for video parsing (avvp), see `avplatform.export`.
        features: the features of a whole video: audio, visual and, for some models, motion.
        runtime: the folder of onnxruntime-web's files: `dist` of its npm package.
        video: the name of the video.

    Raises:
        DataError: the file is not an exported network, it reads longer clips only, or the folder
            lacks a file.
        UsageError: the model is not one for video parsing, or does not read these features.
    """
    place = expanded(model)
    exported: Any = ExportedModel(place)
    config, about = exported.config, exported.about
    task = task_of_model(config)
    if not hasattr(task.config, "gate"):
        raise UsageError(
            f"the page decides by thresholds and a gate, as video parsing does, and {model} is a "
            f"model for {config.task}; use avplatform predict"
        )
    features = features_of(features)
    check_fits(exported, features)
    labels = event_names(task, exported)
    total, each = len(features), config.segment_seconds
    streams = (*STREAMS, "av")
    timeline = Timeline(
        video=video,
        duration=total * each,
        model=place.name,
        task=config.task,
        decoder=config.decoder._type,
        encoder=config.encoder._type,
        labels=labels,
        segment_seconds=each,
        scores={name: np.zeros((total, len(labels)), np.float32) for name in streams},
        found={name: np.zeros((total, len(labels)), bool) for name in streams},
        notes=["The events were found by this page, in the browser."],
    )
    if about.get("synthetic") is True:
        timeline.notes.append("The model was trained on SYNTHETIC features.")
    window, hop = PipelineConfig().windows(config)
    check_shape(
        "audio", (1, min(window, total), *features.audio.shape[1:]), exported.reads["audio"]
    )
    arrays = {n: torch.from_numpy(x) for n, x in vars(features).items() if x is not None}
    network = {
        "model": _base64(place),
        "runtime": {name: _runtime_file(expanded(runtime), file) for name, file in RUNTIME.items()},
        "features": {name: packed(values) for name, values in arrays.items()},
        "labels": about.get("label_embeddings"),
        "outputs": about["outputs"],
        "window": window,
        "hop": hop,
        "gate": task.config.gate,
        "limits": _limits(task.config, len(labels)),
    }
    return render_page(timeline, source="", media=video, network=network)


def _limits(config: Any, classes: int) -> dict[str, Any]:
    """Return the thresholds of segments by stream, of the clip, and of each class's videos."""
    found: dict[str, Any] = {"video": config.threshold}
    for stream in STREAMS:
        found[stream] = config.limit(stream, "segment")
        own = getattr(config, f"{stream}_class_thresholds")
        found[f"{stream}_video"] = list(own) or [config.limit(stream, "video")] * classes
    return found


def _runtime_file(folder: Path, name: str) -> str:
    if not (folder / name).is_file():
        raise DataError(
            f"{folder} has no {name}; give the folder dist of the npm package onnxruntime-web "
            "(npm pack onnxruntime-web, and unpack it)"
        )
    return _base64(folder / name)


def _base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode("ascii")
