"""The folder of a run.

It holds config.yaml, environment.json, metrics.jsonl, results.json, plots/, checkpoints/ and
model/. Files are written under another name and then renamed, so a run that is killed leaves its
last complete state. config.yaml is written first.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from pathlib import Path
from typing import Any

from avplatform.base.files import disk_errors, recover, write_json
from avplatform.base.locks import Lock
from avplatform.config.values import as_yaml, load_yaml
from avplatform.models.errors import DataError, UsageError
from avplatform.models.files import write_atomic
from avplatform.models.paths import expanded


def read_results(file: Path) -> dict[str, Any]:
    """Read a results.json.

    Raises:
        DataError: the file cannot be read, or does not hold results.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}; is the run finished?") from None
    except ValueError:
        raise DataError(f"{file} is not valid JSON; delete it and make it again") from None
    if not isinstance(content, dict):
        raise DataError(f"{file} does not hold the results of a run; delete it and make it again")
    return content


def read_records(file: Path) -> list[dict[str, Any]]:
    """Return the records of a metrics.jsonl, without lines that are cut off or damaged."""
    records = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return [record for record in records if isinstance(record, dict)]


class RunFolder:
    """The files of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = expanded(path)
        self.results_file = self.path / "results.json"
        """The results of a finished run."""
        self.start_file = self.path / "start.json"
        """What the weights of a run with --init-from started from, tensor by tensor."""
        self.environment_file = self.path / "environment.json"
        """One entry per launch of the run: versions, commit, hardware, processes, command line."""
        self.metrics_file = self.path / "metrics.jsonl"
        """One JSON object per line: training, validation and resume records."""
        self.plots = self.path / "plots"
        """The folder of the PNG files."""
        self.model = self.path / "model"
        """The model folder, which holds exactly the files that go to the Hub."""
        self.checkpoints = self.path / "checkpoints"
        """The folder of the states to resume from."""
        self._lock: Lock | None = None

    @classmethod
    def create(cls, output_dir: str | None, *, name: str) -> RunFolder:
        """Create the folder of a new run.

        A partly written config.yaml of a run that was killed does not count as content, since there
        is nothing to resume.

        Raises:
            UsageError: `output_dir` exists and is not empty.
            DataError: the folder cannot be made.
        """
        try:
            if output_dir is None:
                return cls(_new_folder(Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"))
            path = expanded(output_dir)
            if path.exists() and (not path.is_dir() or not all(map(_begun_config, path.iterdir()))):
                raise UsageError(
                    f"--output-dir {path} exists and is not empty; give a new folder, or go on "
                    f"with --resume {path}"
                )
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            place = output_dir or "runs"
            raise DataError(
                f"cannot make the run folder in {place}: {error.strerror}; give another "
                "--output-dir"
            ) from None
        return cls(path)

    def lock(self, *, wait: float = 0.0) -> None:
        """Keep other processes from training in this folder until this one ends or unlocks it.

        Args:
            wait: seconds to wait for another process to end.

        Raises:
            UsageError: another process is training in the folder.
        """

        def busy(holder: str) -> UsageError:
            return UsageError(
                f"another process is training in {self.path}; wait for it, stop it, "
                "or give another --output-dir"
            )

        lock = Lock(self.path, busy, wait=wait)
        if lock.take():
            self._lock = lock
            # No other process works here, so partly written files are those of a killed process.
            recover(self.path)

    def unlock(self) -> None:
        """Let other processes train in this folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def write_config(self, config: dict[str, Any]) -> None:
        """Write config.yaml."""
        file = self.path / "config.yaml"
        with disk_errors(file, go_on="--resume" if file.exists() else "the same command"):
            write_atomic(file, as_yaml(config))

    def write_start(self, start: dict[str, Any]) -> None:
        """Write start.json."""
        with disk_errors(self.start_file):
            write_json(self.start_file, start)

    def set_results_aside(self, steps: int) -> None:
        """Rename the results of a finished run, which is made longer, to results-<steps>.json."""
        with disk_errors(self.results_file):
            self.results_file.rename(self.path / f"results-{steps}.json")

    def write_environment(self, launch: dict[str, Any]) -> None:
        """Append a launch, the first one or a resumed one, to environment.json."""
        try:
            launches = json.loads(self.environment_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            launches = []
        with disk_errors(self.environment_file):
            write_json(self.environment_file, [*launches, launch])

    def log(self, record: dict[str, Any]) -> None:
        """Append one record to metrics.jsonl."""
        with disk_errors(self.metrics_file), self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """Return the records of metrics.jsonl, without lines that are cut off or damaged."""
        return read_records(self.metrics_file) if self.metrics_file.exists() else []

    def rewind(self, step: int, *, validated: int | None = None) -> None:
        """Drop the records after `step`, and those of validations after step `validated`.

        The resumed run makes them again.
        """
        validated = step if validated is None else validated
        last = dict.fromkeys(("epoch", "test_epoch", "epoch_without_validation"), validated)
        kept = [r for r in self.records() if r.get("step", 0) <= last.get(r.get("event", ""), step)]
        text = "".join(json.dumps(r) + "\n" for r in kept)
        write_atomic(self.metrics_file, text)


def _begun_config(path: Path) -> bool:
    """Return whether this is a partly written config.yaml of a `write_atomic` that was killed."""
    return path.name.startswith(".config.yaml.partial-")


def _new_folder(path: Path) -> Path:
    """Create and return a folder of this name, with the first free number if the name is taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = path if number == 1 else path.with_name(f"{path.name}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError("unreachable")


def results_beside(model: str | Path) -> dict[str, Any]:
    """Return the results of the run that a run or model folder belongs to, or an empty dict."""
    file = _beside(model, "results.json")
    return {} if file is None else read_results(file)


def trained_on(model: str | Path) -> str | None:
    """Return the --data of the run that a run or model folder belongs to, or None."""
    file = _beside(model, "config.yaml")
    return None if file is None else load_yaml(file).get("data")


def _beside(model: str | Path, name: str) -> Path | None:
    """Return a file of the run that a run or model folder belongs to, or None."""
    folder = expanded(model)
    places = (folder / name, folder.parent / name) if folder.is_dir() else ()
    return next((file for file in places if file.is_file()), None)


def finished_results(folder: RunFolder) -> dict[str, Any] | None:
    """Return the results of a finished run, or None."""
    try:
        return json.loads(folder.results_file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
