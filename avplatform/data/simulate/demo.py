"""The built-in synthetic data, for users without annotation files.

Labels are distributed as in a real dataset, and features are simulated. There is one fixed dataset
per task, with fixed seeds that do not depend on the seed of a run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from avplatform.base.files import cache_errors, cache_root
from avplatform.base.locks import locked
from avplatform.data.adapters.contracts import DatasetAdapter
from avplatform.data.adapters.registry import DATASETS
from avplatform.data.adapters.world import LABEL_SEED
from avplatform.data.simulate import write
from avplatform.data.store.card import render_dataset_card
from avplatform.data.store.schema import MANIFEST_FILE
from avplatform.models.errors import UsageError, unknown_name
from avplatform.tasks.registry import TASKS


def demo_store(
    task: str, *, cache_dir: Path | None = None, progress: Callable[[str], None] | None = None
) -> Path:
    """Return the folder of a task's demo data, which are made on first use.

    Several processes may call this at the same time.

    Raises:
        UsageError: the task has no demo data.
    """
    folder = demo_folder(task, cache_dir=cache_dir)
    if not (folder / MANIFEST_FILE).exists():
        with cache_errors(folder), locked(folder.with_name(f".{folder.name}.lock")):
            if not (folder / MANIFEST_FILE).exists():
                if progress is not None:
                    progress(f"making the synthetic data {folder.name} in {folder} (once)")
                make_demo(task, folder)
    return folder


def demo_folder(task: str, *, cache_dir: Path | None = None) -> Path:
    """Return the folder of a task's demo data, which may not be made yet.

    Raises:
        UsageError: the task has no demo data.
    """
    return (cache_dir or cache_root()) / _demo_adapter(task).demo


def make_demo(task: str, folder: Path, *, sizes: dict[str, int] | None = None) -> None:
    """Draw the demo data of a task into a new folder; tests make small ones with `sizes`."""
    adapter = _demo_adapter(task)
    constants, clips = adapter.preset(), adapter.demo_clips(sizes)
    provenance = {
        "labels": f"drawn with the label shares of {adapter.title}",
        "seed": LABEL_SEED,
        "generator": constants.name,
    }
    spec = adapter.simulated_spec(constants, name=adapter.demo, provenance=provenance)
    write(folder, spec, adapter.simulator(constants, clips), clips, card=render_dataset_card)


def _demo_adapter(task: str) -> DatasetAdapter:
    found = {adapter.task: adapter for adapter in reversed(DATASETS.values()) if adapter.demo}
    if task in TASKS and task not in found:
        raise UsageError(
            f"there are no demo data for {task} (only for {', '.join(sorted(found))}); give --data"
        )
    if task not in found:
        raise unknown_name("demo task", task, found)
    return found[task]
