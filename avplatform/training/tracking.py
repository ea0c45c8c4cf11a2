"""Experiment trackers by name, through Accelerate: none by default, so that nothing leaves the machine unasked."""

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
    """Raise UsageError for a tracker whose package is not installed."""
    for name in names:
        package = TRACKERS[name]
        if package and importlib.util.find_spec(package) is None:
            raise UsageError(
                f"trackers: {name} needs the package {package}; pip install {package}, or leave {name} out"
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
    """Start trackers on the main process, or go on with those of a resumed run.

    The run's id at the services stands in `trackers.json`, so that a resumed run goes on in the same curve.

    Args:
        accelerator: its `log` then reaches them.
        names: of TRACKERS.
        folder: of the run.
        project: the name that groups runs.
        config: of the run, nested.
        step: that the run goes on from; what csv and tensorboard hold after it is dropped.
        validated: step of its last validation; what they hold of later ones is dropped too.
    """
    accelerator.trackers = []
    if not names:
        return
    identity = folder.path / "trackers.json"
    new = not identity.exists()
    if new and accelerator.is_main_process:
        write_json(identity, {"id": uuid.uuid4().hex[:8]})
    accelerator.wait_for_everyone()
    key = json.loads(identity.read_text())["id"]
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
            "trackio": {"name": name, "resume": "allow"},
            # It can only drop steps as a whole, from one on: that of the checkpoint too, if its validation is made again.
            "tensorboard": {"purge_step": None if new else step + (validated >= step)},
        },
    )
    if validated < step:
        _log_again(accelerator, folder, step)


def _log_again(accelerator: Accelerator, folder: RunFolder, step: int) -> None:
    """Give tensorboard the training values of a step back, which went with a validation that is made again."""
    about = ("event", "epoch", "step")
    for record in folder.records() if accelerator.is_main_process else ():
        if record.get("event") == "step" and record.get("step") == step:
            values = {f"train/{name}": value for name, value in record.items() if name not in about}
            for tracker in accelerator.trackers:
                if tracker.name == "tensorboard":
                    tracker.log(values, step=step)


class CsvTracker(GeneralTracker):
    """Writes train.csv and one file a split (the part of a name before "/"), one row a step.

    Args:
        folder: of the files.
        after: rows of later steps are dropped: they are about to be made again.
        validated: and so are validations of steps after this one.
    """

    name = "csv"
    requires_logging_directory = False

    def __init__(self, folder: Path, *, after: int, validated: int) -> None:
        super().__init__()
        self.folder, self.after, self.validated = folder, after, validated

    @property
    def tracker(self) -> Path:
        """The folder."""
        return self.folder

    @on_main_process
    def start(self) -> None:
        """Drop rows after the step that the run goes on from."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in self.folder.glob("*.csv"):
            with file.open(newline="") as stream:
                rows = list(csv.reader(stream))
            last = self.after if file.stem == "train" else self.validated
            kept = [
                r
                for r in rows[1:]
                if len(r) == len(rows[0]) and r[0].isdigit() and int(r[0]) <= last
            ]
            write_atomic(file, partial(_write_rows, rows=rows[:1] + kept))

    @on_main_process
    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Nothing: config.yaml stands in the same run folder."""

    @on_main_process
    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Add a row."""
        groups: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            group, _, own = name.partition("/")
            groups.setdefault(group, {})[own] = value
        for group, row in groups.items():
            file = self.folder / f"{group}.csv"
            lines = (
                [[step, *row.values()]]
                if file.exists()
                else [["step", *row], [step, *row.values()]]
            )
            with disk_errors(file), file.open("a", newline="") as stream:
                csv.writer(stream).writerows(lines)


def _write_rows(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)


def _hyperparameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by dotted name, with values that every tracker takes."""
    return {
        name: v if isinstance(v, (int, float, str, bool)) else str(v)
        for name, v in flat(config).items()
    }
