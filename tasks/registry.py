"""Tasks by name. A third party adds its own with `register_task`."""

from __future__ import annotations

import copy
import dataclasses

from avplatform.models.checks import check_part
from avplatform.models.config import AVModelConfig, config_from_dict
from avplatform.models.errors import UsageError, unknown_name
from avplatform.tasks.avel import AVEL
from avplatform.tasks.avvp import AVVP
from avplatform.tasks.contracts import Task
from avplatform.tasks.ovavel import OVAVEL

TASKS: dict[str, type[Task]] = {kind.name: kind for kind in (AVEL, AVVP, OVAVEL)}


def register_task(name: str, task: type[Task]) -> None:
    """Make `task` available under `name`.

    Raises:
        UsageError: the class does not define what every task must define.
    """
    check_part(task, Task, "default_encoder", "selection_metric", "loss", "decide", "metrics")
    if not hasattr(task.Config, "supervision"):
        raise UsageError(
            f"{task.Config.__name__} has no option `supervision`; derive it from TaskConfig"
        )
    task.name = name
    TASKS[name] = task


def task_of_model(config: AVModelConfig) -> Task:
    """Return the task that a saved model was trained for, with its options, classes and texts."""
    if config.task not in TASKS:
        raise unknown_name("task", config.task, TASKS)
    kind = TASKS[config.task]
    options = config_from_dict(kind.Config, config.task_config)
    texts = config.label_texts or [name.replace("_", " ") for name in config.classes]
    return kind(options, classes=config.classes, texts={getattr(options, "label_texts", ""): texts})


def with_threshold(task: Task, threshold: float | None) -> Task:
    """Return a copy of the task with another decision threshold; None: return the task itself.

    Raises:
        UsageError: the task has no threshold, or the given one is not a probability.
    """
    if threshold is None:
        return task
    if not hasattr(task.config, "threshold"):
        takers = ", ".join(n for n, kind in TASKS.items() if hasattr(kind.Config, "threshold"))
        raise UsageError(
            f"threshold is for {takers}; {task.name} decides by the largest score and has none"
        )
    other = copy.copy(task)
    at = getattr(task.config, "at", lambda t: dataclasses.replace(task.config, threshold=t))
    other.config = at(threshold)
    return other
