"""Datasets by name; third parties add their own with `register_dataset`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from avplatform.data.adapters.ave.adapter import AVEAdapter
from avplatform.data.adapters.contracts import DatasetAdapter
from avplatform.data.adapters.llp.adapter import LLPAdapter
from avplatform.data.adapters.ovave.adapter import OVAVEAdapter
from avplatform.data.adapters.table.adapter import TableAdapter
from avplatform.data.store.schema import DataSpec
from avplatform.models.checks import check_part
from avplatform.models.errors import UsageError, unknown_name
from avplatform.tasks.contracts import Task
from avplatform.tasks.registry import TASKS

DATASETS: dict[str, DatasetAdapter] = {
    adapter.name: adapter
    for adapter in (LLPAdapter(), AVEAdapter(), OVAVEAdapter(), TableAdapter())
}


def register_dataset(name: str, adapter: DatasetAdapter) -> None:
    """Make `adapter` available under `name`.

    Raises:
        UsageError: it lacks something that every dataset defines.
    """
    check_part(type(adapter), DatasetAdapter, "task", "classes", "features")
    adapter.name, adapter.title = name, adapter.title or name  # type: ignore[misc]
    DATASETS[name] = adapter


def find_adapter(task: str) -> DatasetAdapter | None:
    """Return the first dataset that was registered for a task, or None."""
    return next((adapter for adapter in DATASETS.values() if adapter.task == task), None)


def adapter_of_task(task: str) -> DatasetAdapter:
    """Return the first dataset that was registered for a task.

    Raises:
        UsageError: no dataset is registered for the task.
    """
    found = find_adapter(task)
    if found is None:
        raise unknown_name("task", task, [a.task for a in DATASETS.values() if a.task])
    return found


def adapter_of_spec(spec: DataSpec) -> DatasetAdapter | None:
    """Return the dataset that has a store's task and classes, in any order of the classes."""
    known = [a for a in DATASETS.values() if a.task == spec.task]
    return next((a for a in known if set(a.classes) == set(spec.classes)), None)


def texts_of(spec: DataSpec) -> Mapping[str, Sequence[str]]:
    """Return a store's label texts by spelling: its own, or else those of its dataset."""
    adapter = adapter_of_spec(spec)
    if spec.texts or adapter is None or list(adapter.classes) != list(spec.classes):
        return spec.texts
    return adapter.texts


def make_task(name: str, config: Any = None, *, spec: DataSpec | None = None) -> Task:
    """Return a task with its classes and texts.

    Args:
        name: the task's name.
        config: the task's options; default: their defaults.
        spec: specification of the data to work on; default: the first dataset of the task.

    Raises:
        UsageError: the task is unknown, or no dataset is registered for it.
    """
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    kind = TASKS[name]
    options = kind.Config() if config is None else config
    if spec is not None:
        return kind(options, classes=spec.classes, texts=texts_of(spec), **_unseen(spec))
    adapter = find_adapter(name)
    if adapter is None:
        raise UsageError(f"no dataset is registered for the task {name}; give data")
    return kind(options, classes=adapter.classes, texts=adapter.texts, **_unseen(adapter))


def task_on(task: Task, spec: DataSpec) -> Task:
    """Return the task of a model for data with classes that the model may not know of.

    Where data name unseen classes, the model is scored among all of their classes; otherwise the
    task is returned as it is.
    """
    return make_task(task.name, task.config, spec=spec) if spec.unseen else task


def _unseen(source: DataSpec | DatasetAdapter) -> dict[str, Sequence[str]]:
    """Return the argument that names unseen classes, which few tasks take."""
    return {"unseen": source.unseen} if source.unseen else {}
