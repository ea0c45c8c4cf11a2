"""What an exported file says of itself, so that it can be used without avplatform."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard
from torch import Tensor

from avplatform.exported.graph import Traced
from avplatform.hub.card_data import SYNTHETIC_TAG, UNKNOWN
from avplatform.models.av_model import BANK_FILE, AVModel
from avplatform.models.contracts import Prediction
from avplatform.models.errors import DataError
from avplatform.tasks.registry import task_of_model
from avplatform.version import __version__


def about_of(model: AVModel, traced: Traced) -> dict[str, Any]:
    """Return what the file of a model says of itself; all values are plain JSON.

    * avplatform: the version that wrote it; licence; synthetic: whether the model was trained on
      features drawn by code (true, false or "not recorded").
    * task, encoder, decoder, classes, segments of a training clip, seconds of a segment.
    * inputs: the axes of each; outputs: the axes of each, whether the values are logits or
      probabilities, and the function that makes probabilities of logits.
    * decision: what the task decides of the outputs, with its options, such as thresholds.
    * features: the recipe that made the features.
    * label_texts and label_embeddings of the model's own classes, where they are an input.
    * config: the whole configuration of the model.
    """
    config, kinds = model.config, traced.parse.predictions
    content = config.to_dict()
    found: dict[str, Any] = {
        "avplatform": __version__,
        **_origin(model.folder),
        "task": config.task,
        "encoder": config.encoder._type,
        "decoder": config.decoder._type,
        "classes": config.classes,
        "segments": config.segments,
        "segment_seconds": config.segment_seconds,
        "inputs": traced.inputs,
        "outputs": {
            name: {"axes": axes, **_reading(kinds.get(name))}
            for name, axes in traced.outputs.items()
        },
        "decision": {"gives": task_of_model(config).decisions, "options": config.task_config},
        "features": config.features.extractors or UNKNOWN,
        "queried_by_labels": traced.parse.queried_by_labels,
        "config": content,
    }
    if "attention" in traced.outputs:
        found["outputs"]["attention"]["streams"] = list(getattr(model.decoder, "streams", ()))
    if "label_embeddings" in traced.inputs:
        assert model.label_embeddings is not None
        found["label_texts"] = config.label_texts
        found["label_embeddings"] = packed(model.label_embeddings)
    return found


def packed(values: Tensor) -> dict[str, Any]:
    """Return a tensor in single precision for JSON: its shape, and its little-endian bytes."""
    array = values.detach().float().cpu().numpy().astype("<f4")
    text = base64.b64encode(array.tobytes()).decode("ascii")
    return {"shape": list(array.shape), "dtype": "float32", "base64": text}


def unpacked(content: Mapping[str, Any]) -> Tensor:
    """Return the tensor that `packed` wrote."""
    data = bytearray(base64.b64decode(content["base64"]))
    return torch.frombuffer(data, dtype=torch.float32).reshape(content["shape"])


def as_texts(about: Mapping[str, Any]) -> dict[str, str]:
    """Return what a file says as texts: all values as JSON, but plain texts as they are.

    A text that could be read as JSON, such as the licence "1.0", is written as JSON too.

    Examples:
        >>> as_texts({"task": "avvp", "licence": "1.0", "segments": 10})
        {'task': 'avvp', 'licence': '"1.0"', 'segments': '10'}
    """
    return {
        name: value
        if isinstance(value, str) and _read(value) is value
        else json.dumps(value, ensure_ascii=False)
        for name, value in about.items()
    }


def read_texts(texts: Mapping[str, str], place: str) -> dict[str, Any]:
    """Return what `as_texts` wrote.

    Raises:
        DataError: the texts are not those of an exported model.
    """
    found = {name: _read(text) for name, text in texts.items()}
    missing = [name for name in ("config", "outputs") if not isinstance(found.get(name), dict)]
    if missing:
        raise DataError(
            f"{place} does not say what it is ({missing[0]} is missing): it was not written by "
            "`avplatform export`, which makes such files of a run or model"
        )
    return found


def _read(text: str) -> Any:
    """Return the value that a text is as JSON, or the same text if it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _reading(prediction: Prediction | None) -> dict[str, Any]:
    """Return how the values of a prediction are read."""
    if prediction is None:
        return {}
    if prediction.kind == "probability":
        return {"kind": "probability"}
    return {"kind": "logit", "activation": prediction.activation}


def _origin(folder: Path | None) -> dict[str, Any]:
    """Return the licence and the kind of training data that the card of a model states."""
    found: dict[str, Any] = {"licence": UNKNOWN, "synthetic": UNKNOWN, "bank": False}
    if folder is None:
        return found
    found["bank"] = (folder / BANK_FILE).is_file()
    if (folder / "README.md").is_file():
        text = (folder / "README.md").read_text(encoding="utf-8")
        data = ModelCard(text, ignore_metadata_errors=True).data.to_dict()
        found["licence"] = data.get("license_name") or data.get("license") or UNKNOWN
        if SYNTHETIC_TAG in (data.get("tags") or ()):
            found["synthetic"] = True
        elif "pipeline_tag" in data:  # the card of a run says so where it is
            found["synthetic"] = False
    return found
