"""A run's folder: config.yaml, environment.json, metrics.jsonl, results.json, plots/, checkpoints/ and model/.

Files appear by write-then-rename, so a run that is killed leaves the last whole state. config.yaml is written first.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError

from models.errors import DataError, UsageError


def write_atomic(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file or folder beside `path`, then rename it to `path`.

    A folder that is in the way is moved aside first and deleted last: a process that is killed in between leaves one of the
    two, and `recover` puts it back.
    """
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
    aside = path.with_name(f".{path.name}.replaced")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write(temporary)
        if temporary.is_dir() and path.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
        os.replace(temporary, path)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
    return path


def recover(folder: Path) -> None:
    """Tidy up after a process that was killed inside `write_atomic`: folders moved aside come back, half-written ones go."""
    for path in folder.glob(".*.replaced") if folder.is_dir() else ():
        whole = path.with_name(path.name.removeprefix(".").removesuffix(".replaced"))
        if whole.exists():
            shutil.rmtree(path)
        else:
            path.rename(whole)
    for path in folder.glob(".*.partial-*") if folder.is_dir() else ():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def disk_errors(path: Path, *, go_on: str = "--resume") -> Iterator[None]:
    """Turn an error of the disk (full, read-only, over quota) into a DataError that says how to go on: with `go_on`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise DataError(
            f"cannot write {path}: {reason}; what was written before is whole: make room, then go on with {go_on}"
        ) from None


def write_json(path: Path, value: Any) -> Path:
    """Write JSON, indented, whole or not at all."""
    return write_atomic(path, lambda p: p.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n"))


def read_results(file: Path) -> dict[str, Any]:
    """Read a results.json.

    Raises:
        DataError: it cannot be read, or does not hold results.
    """
    try:
        content = json.loads(file.read_text())
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}; is the run finished?") from None
    except ValueError:
        raise DataError(f"{file} is not valid JSON; delete it and make it again") from None
    if not isinstance(content, dict):
        raise DataError(f"{file} does not hold the results of a run; delete it and make it again")
    return content


class RunFolder:
    """The files of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock: int | None = None

    @classmethod
    def create(cls, output_dir: str | None, *, name: str) -> RunFolder:
        """Make the folder of a new run.

        The rest of a config.yaml that a run was killed in does not count as content: there is nothing to resume.

        Raises:
            UsageError: `output_dir` exists and is not empty.
            DataError: the folder cannot be made.
        """
        try:
            if output_dir is None:
                return cls(_new_folder(Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"))
            path = Path(output_dir)
            if path.exists() and (not path.is_dir() or not all(map(_begun_config, path.iterdir()))):
                raise UsageError(
                    f"--output-dir {path} exists and is not empty; give a new folder, or go on with --resume {path}"
                )
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            place = output_dir or "runs"
            raise DataError(f"cannot make the run folder in {place}: {error.strerror}; give another --output-dir") from None
        return cls(path)

    def lock(self, *, wait: float = 0.0) -> None:
        """Keep every other process from training in this folder, until this one ends (however it ends) or unlocks.

        Args:
            wait: seconds that another process is given to end.

        Raises:
            UsageError: another process trains in it.
        """
        descriptor, until = os.open(self.path, os.O_RDONLY), time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    os.close(descriptor)
                    raise UsageError(
                        f"another process is training in {self.path}; wait for it, stop it, or give another --output-dir"
                    ) from None
                time.sleep(0.05)
            except OSError:  # a file system without locks
                os.close(descriptor)
                return
        self._lock = descriptor
        recover(self.path)  # nobody else is at work here, so what is half-written is the rest of a killed process

    def unlock(self) -> None:
        """Let others train in this folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def results_file(self) -> Path:
        """The finished run's results."""
        return self.path / "results.json"

    @property
    def environment_file(self) -> Path:
        """One entry a launch of the run: versions, commit, hardware, processes and command line."""
        return self.path / "environment.json"

    @property
    def metrics_file(self) -> Path:
        """One JSON object a line: training, validation and resume records."""
        return self.path / "metrics.jsonl"

    @property
    def plots(self) -> Path:
        """Folder of the PNG files."""
        return self.path / "plots"

    @property
    def model(self) -> Path:
        """The model's own folder: exactly what goes to the Hub."""
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        """Folder of the states to resume from."""
        return self.path / "checkpoints"

    def write_config(self, config: dict[str, Any]) -> None:
        """Write config.yaml."""
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        file = self.path / "config.yaml"
        with disk_errors(file, go_on="--resume" if file.exists() else "the same command"):
            write_atomic(file, lambda p: p.write_text(text))

    def write_environment(self, launch: dict[str, Any]) -> None:
        """Add a launch (the first one, or one that resumes) to environment.json."""
        try:
            launches = json.loads(self.environment_file.read_text())
        except (OSError, ValueError):
            launches = []
        with disk_errors(self.environment_file):
            write_json(self.environment_file, [*launches, launch])

    def log(self, record: dict[str, Any]) -> None:
        """Append one record to metrics.jsonl."""
        with disk_errors(self.metrics_file), self.metrics_file.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """Read metrics.jsonl; a line cut off by a kill, or damaged, is left out."""
        if not self.metrics_file.exists():
            return []
        records = []
        for line in self.metrics_file.read_text(errors="replace").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(record, dict):
                records.append(record)
        return records

    def rewind(self, step: int, *, validated: int | None = None) -> None:
        """Drop the records after `step`, and of validations after step `validated`: they are about to be made again."""
        validated = step if validated is None else validated
        last = dict.fromkeys(("epoch", "test_epoch", "epoch_without_validation"), validated)
        kept = [r for r in self.records() if r.get("step", 0) <= last.get(r.get("event", ""), step)]
        text = "".join(json.dumps(r) + "\n" for r in kept)
        write_atomic(self.metrics_file, lambda p: p.write_text(text))


def _begun_config(path: Path) -> bool:
    """Whether this is what `write_atomic` leaves of a config.yaml when it is killed in it."""
    return path.name.startswith(".config.yaml.partial-")


def _new_folder(path: Path) -> Path:
    """Make and return a folder of this name, or of this name and the first free number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = path if number == 1 else path.with_name(f"{path.name}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError("unreachable")
