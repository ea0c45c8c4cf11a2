"""A run's folder: config.yaml, metrics.jsonl, results.json, plots/, checkpoints/ and model/.

Files appear by write-then-rename, so a run that is killed leaves the last whole state. config.yaml is written first.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from models.errors import DataError, UsageError


def write_atomic(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file or folder beside `path`, then rename it to `path`."""
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write(temporary)
        if temporary.is_dir() and path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
    return path


def write_json(path: Path, value: Any) -> Path:
    """Write JSON, indented, whole or not at all."""
    return write_atomic(path, lambda p: p.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n"))


class RunFolder:
    """The files of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, output_dir: str | None, *, name: str) -> RunFolder:
        """Make the folder of a new run.

        Raises:
            UsageError: `output_dir` exists and is not empty.
            DataError: the folder cannot be made.
        """
        if output_dir is None:
            stamp = time.strftime("%Y%m%d-%H%M%S")
            path = Path("runs") / f"{name}-{stamp}"
            number = 1
            while path.exists():
                number += 1
                path = Path("runs") / f"{name}-{stamp}-{number}"
        else:
            path = Path(output_dir)
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise UsageError(
                    f"--output-dir {path} exists and is not empty; give a new folder, or go on with --resume {path}"
                )
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot make the run folder {path}: {error.strerror}; give another --output-dir") from None
        return cls(path)

    @property
    def results_file(self) -> Path:
        """The finished run's results."""
        return self.path / "results.json"

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
        write_atomic(self.path / "config.yaml", lambda p: p.write_text(text))

    def log(self, record: dict[str, Any]) -> None:
        """Append one record to metrics.jsonl."""
        with self.metrics_file.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """Read metrics.jsonl; a last line cut off by a kill is left out."""
        if not self.metrics_file.exists():
            return []
        records = []
        for line in self.metrics_file.read_text().splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return records

    def rewind(self, step: int, *, validated: int | None = None) -> None:
        """Drop the records after `step`, and of validations after step `validated`: they are about to be made again."""
        last = {"epoch": step if validated is None else validated}
        kept = [r for r in self.records() if r.get("step", 0) <= last.get(r.get("event", ""), step)]
        text = "".join(json.dumps(r) + "\n" for r in kept)
        write_atomic(self.metrics_file, lambda p: p.write_text(text))
