"""Tasks by name. A third party adds its own with `register_task`."""

from __future__ import annotations

from tasks.avel import AVEL
from tasks.avvp import AVVP
from tasks.contracts import Task

TASKS: dict[str, type[Task]] = {"avel": AVEL, "avvp": AVVP}


def register_task(name: str, task: type[Task]) -> None:
    """Make `task` available under `name`."""
    TASKS[name] = task
