"""The labels of a timeline: those of the model, or those that a user gives instead."""

from __future__ import annotations

from collections.abc import Sequence

from avplatform.data.store.schema import BACKGROUND
from avplatform.models.av_model import AVModel
from avplatform.models.errors import UsageError
from avplatform.tasks.contracts import Task


def open_task(task: Task, model: AVModel, labels: Sequence[str]) -> tuple[Task, list[str]]:
    """Return the task that decides among other labels, and the label texts to embed for it.

    The texts include the background where the task has one.

    Raises:
        UsageError: there is no label, or one is given twice.
    """
    labels = checked_labels(labels)
    other = task.with_classes(labels)
    return other, other.model_classes(model.config.decoder._type, model.config.encoder._type)[1]


def checked_labels(labels: Sequence[str]) -> list[str]:
    """Return labels without spaces around them.

    Raises:
        UsageError: there is no label, one is empty, is given twice, or is "background".
    """
    labels = [label.strip() for label in labels]
    if not labels or not all(labels):
        raise UsageError('give at least one label, and no empty one, such as "train horn,dog"')
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise UsageError(f"the label '{twice}' is given twice")
    if BACKGROUND in labels:
        raise UsageError(f"the label '{BACKGROUND}' means that there is no event; leave it out")
    return labels


def event_names(task: Task, model: AVModel) -> list[str]:
    """Return the names of a model's event classes, without background and with spaces for "_"."""
    names, _ = task.model_classes(model.config.decoder._type, model.config.encoder._type)
    return [name.replace("_", " ") for name in names if name != BACKGROUND]
