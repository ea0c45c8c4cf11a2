"""Predictions of a split as one safetensors file: decisions, truth and evidence of each clip.

The file holds no features. All metrics can be computed again from it, and two runs can be compared
clip by clip, without the data or the model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from avplatform.models.errors import DataError
from avplatform.models.files import save_tensors, write_atomic
from avplatform.models.paths import expanded
from avplatform.tasks.contracts import Task
from avplatform.tasks.metrics import Arrays, Metrics

FOLDER = "predictions"
FORMAT = "avplatform predictions 1"
IDENTITY = (
    "task",
    "encoder",
    "decoder",
    "supervision",
    "preset",
    "data",
    "synthetic",
    "data_checksum",
    "seed",
    "thresholds",
)


@dataclass(kw_only=True)
class Predictions:
    """What a model decided on a split.

    `state` is the state of the task's metrics. `evidence` are the values that thresholds apply to.
    They are stored in half precision, so a probability within 0.0003 of its threshold may fall on
    the other side; the decisions themselves are exact. Both have one entry per clip, in the order
    of state["row"], and so have `videos`, the number of each clip's video: None where every clip is
    a video of its own.
    """

    split: str
    state: Arrays
    evidence: Arrays | None = None
    videos: np.ndarray | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        metrics: Metrics,
        *,
        split: str,
        about: dict[str, Any],
        videos: np.ndarray | None = None,
    ) -> Predictions:
        """Return the predictions that were scored; `about` describes the model and the data."""
        known = {name: about.get(name) for name in IDENTITY}
        state, evidence = metrics.state(), metrics.evidence
        return cls(split=split, state=state, evidence=evidence, videos=videos, about=known)

    def metrics(self, task: Task) -> Metrics:
        """Return the task's metrics over these predictions."""
        metrics = task.metrics()
        metrics.merge([self.state])
        metrics.evidence = self.evidence
        return metrics

    def __len__(self) -> int:
        return len(self.state["row"])


def save_predictions(predictions: Predictions, path: str | Path) -> Path:
    """Write predictions to a file, completely or not at all.

    Booleans take one bit each, and evidence is stored in half precision.

    Raises:
        DataError: the file cannot be written.
    """
    arrays, shapes = {}, {}
    videos = {} if predictions.videos is None else {"number": predictions.videos}
    groups = {
        "state": predictions.state,
        "evidence": predictions.evidence or {},
        "videos": videos,
    }
    for name, value in (
        (f"{group}.{name}", value)
        for group, values in groups.items()
        for name, value in values.items()
    ):
        if value.dtype == bool:
            shapes[name] = list(value.shape)
            value = np.packbits(value)
        elif value.dtype.kind == "f" and name.startswith("evidence."):
            value = value.astype(np.float16)
        arrays[name] = np.ascontiguousarray(value)
    head = {"split": predictions.split, "about": predictions.about, "bits": shapes}
    metadata = {"format": FORMAT, "head": json.dumps(head)}
    try:
        return write_atomic(expanded(path), lambda file: save_tensors(arrays, file, metadata))
    except OSError as error:
        raise DataError(f"cannot write the predictions {path}: {error.strerror}") from None


def load_predictions(path: str | Path) -> Predictions:
    """Read a file that `save_predictions` wrote.

    Raises:
        DataError: the file is missing, damaged, or not a file of predictions.
    """
    if not expanded(path).is_file():
        raise DataError(
            f"there are no predictions in {path}; write them with "
            f"`avplatform eval RUN --predictions {path}`"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise DataError(
                    f"{path} is not a file of predictions; give one that a run or "
                    "`avplatform eval` wrote"
                )
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        head = json.loads(metadata["head"])
        for name, shape in head["bits"].items():
            arrays[name] = (
                np.unpackbits(arrays[name], count=int(np.prod(shape))).reshape(shape).astype(bool)
            )
        groups = {group: _members(arrays, group) for group in ("state", "evidence", "videos")}
        rows = len(groups["state"]["row"])
        if any(len(value) != rows for value in arrays.values()):
            raise ValueError("arrays of different lengths")
        return Predictions(
            split=head["split"],
            about=head["about"],
            state=groups["state"],
            evidence=groups["evidence"] or None,
            videos=groups["videos"].get("number"),
        )
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is damaged ({error}); delete it and write it again with `avplatform eval`"
        ) from None


def predictions_file(run: str | Path, split: str) -> Path:
    """Return the file of a run's predictions for a split."""
    return Path(run) / FOLDER / f"{split}.safetensors"


def _members(arrays: Arrays, group: str) -> Arrays:
    return {
        name.removeprefix(f"{group}."): value
        for name, value in arrays.items()
        if name.startswith(f"{group}.")
    }
