"""Experiment trackers by name, through Accelerate; none by default, so nothing is sent unasked."""

from __future__ import annotations

import csv
import importlib.util
import json
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, filter_trackers, on_main_process

from avplatform.base.files import disk_errors, write_json
from avplatform.config.run import TRACKERS
from avplatform.config.values import flat
from avplatform.models.errors import UsageError
from avplatform.models.files import write_atomic
from avplatform.runs.folder import RunFolder


def check_trackers(names: tuple[str, ...]) -> None:
    """Raise UsageError if the package of a tracker is not installed."""
    for name in names:
        package = TRACKERS[name]
        if package and importlib.util.find_spec(package) is None:
            raise UsageError(
                f"trackers: {name} needs the package {package}; pip install {package}, "
                f"or leave {name} out"
            )


def start_trackers(
    accelerator: Accelerator,
    names: tuple[str, ...],
    folder: RunFolder,
    *,
    project: str,
    config: dict[str, Any],
    step: int,
    validated: int,
) -> None:
    """Start trackers on the main process, or continue those of a resumed run.

    The run's id at the tracking services is kept in `trackers.json`, so that a resumed run
    continues the same curve.

    Args:
        accelerator: the accelerator whose `log` then reaches the trackers.
        names: names of TRACKERS.
        folder: the run's folder.
        project: the name under which runs are grouped.
        config: the run's options, nested.
        step: step that the run goes on from; later values in csv and tensorboard are dropped.
        validated: step of the last epoch's end; values of later validations are dropped too.
    """
    accelerator.trackers = []
    if not names:
        return
    identity = folder.path / "trackers.json"
    new = not identity.exists()
    if new and accelerator.is_main_process:
        write_json(identity, {"id": uuid.uuid4().hex[:8]})
    accelerator.wait_for_everyone()
    key = json.loads(identity.read_text(encoding="utf-8"))["id"]
    name = f"{folder.path.name}-{key}"
    logs = folder.path / "trackers"
    accelerator.project_configuration.set_directories(str(folder.path))
    accelerator.project_configuration.logging_dir = str(logs)
    wanted = [
        CsvTracker(logs / "csv", after=step, validated=validated) if n == "csv" else n
        for n in names
    ]
    accelerator.log_with = filter_trackers(wanted, str(logs))
    accelerator.init_trackers(
        project,
        config=_hyperparameters(config) if new else None,
        init_kwargs={
            "wandb": {"id": key, "name": name, "resume": "allow", "dir": str(folder.path)},
            # Not what trackio would add by itself: the load of the machine, a page in a notebook.
            "trackio": {
                "name": name,
                "resume": "allow",
                "auto_log_cpu": False,
                "auto_log_gpu": False,
                "embed": False,
            },
            # tensorboard drops all values from one step on. If the checkpoint's validation is
            # repeated, the values of the checkpoint's own step are dropped as well.
            "tensorboard": {"purge_step": None if new else step + (validated >= step)},
        },
    )
    if validated < step:
        _log_again(accelerator, folder, step)


def _log_again(accelerator: Accelerator, folder: RunFolder, step: int) -> None:
    """Log a step's training values to tensorboard again, which it dropped with the validation."""
    about = ("event", "epoch", "step")
    for record in folder.records() if accelerator.is_main_process else ():
        if record.get("event") == "step" and record.get("step") == step:
            values = {f"train/{name}": value for name, value in record.items() if name not in about}
            for tracker in accelerator.trackers:
                if tracker.name == "tensorboard":
                    tracker.log(values, step=step)


class CsvTracker(GeneralTracker):
    """Tracker that writes CSV files: train.csv and one per evaluated split, one row per step.

    The part of a value's name before "/" names the file.

    Args:
        folder: folder of the files.
        after: rows of later steps are dropped, because the run is about to repeat them.
        validated: rows of validations after this step are dropped for the same reason.
    """

    name = "csv"
    requires_logging_directory = False

    def __init__(self, folder: Path, *, after: int, validated: int) -> None:
        super().__init__()
        self.folder, self.after, self.validated = folder, after, validated

    @property
    def tracker(self) -> Path:
        """Return the folder of the files."""
        return self.folder

    @on_main_process
    def start(self) -> None:
        """Drop the rows that a resumed run repeats."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in self.folder.glob("*.csv"):
            with file.open(newline="", encoding="utf-8") as stream:
                rows = list(csv.reader(stream))
            last = self.after if file.stem == "train" else self.validated
            whole = [r for r in rows[1:] if len(r) == len(rows[0]) and r[0].isdigit()]
            kept = rows[:1] + [row for row in whole if int(row[0]) <= last]
            write_atomic(file, partial(_write_rows, rows=kept))

    @on_main_process
    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Do nothing: the run folder holds config.yaml already."""

    @on_main_process
    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Append a row to the file of each group of values."""
        groups: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            group, _, own = name.partition("/")
            groups.setdefault(group, {})[own] = value
        for group, row in groups.items():
            file = self.folder / f"{group}.csv"
            head = [] if file.exists() else [["step", *row]]
            with disk_errors(file), file.open("a", newline="", encoding="utf-8") as stream:
                csv.writer(stream).writerows([*head, [step, *row.values()]])


def _write_rows(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)


def _hyperparameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by dotted name, with values of types that every tracker accepts."""
    return {
        name: v if isinstance(v, (int, float, str, bool)) else str(v)
        for name, v in flat(config).items()
    }
