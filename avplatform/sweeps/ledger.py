"""The ledger: one line per finished run, always rewritten from the run folders to stay correct."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from avplatform.config.values import load_yaml
from avplatform.models.files import write_atomic
from avplatform.models.paths import expanded
from avplatform.runs.folder import RunFolder, read_results
from avplatform.runs.results import best_record

LEDGER = "ledger.jsonl"
NOT_RESULTS = ("details", "environment")


@dataclass(frozen=True)
class Entry:
    """One finished run: its folder and the content of its files."""

    folder: Path

    @cached_property
    def options(self) -> dict[str, Any]:
        """Return the content of config.yaml."""
        return load_yaml(self.folder)

    @cached_property
    def results(self) -> dict[str, Any]:
        """Return the content of results.json."""
        return read_results(RunFolder(self.folder).results_file)

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """Return the content of metrics.jsonl."""
        return RunFolder(self.folder).records()

    @property
    def finished(self) -> bool:
        """Whether the run has results; its records may be read before that."""
        return RunFolder(self.folder).results_file.is_file()

    @cached_property
    def test_selected(self) -> dict[str, Any] | None:
        """Return the record of the best epoch on test, or None if no epoch was scored on test.

        Of equally good epochs the run's option `ties` picks one.
        """
        tested = [r for r in self.records if r.get("event") == "test_epoch"]
        metric, ties = self.results["selection"]["metric"], self.options.get("ties", "latest")
        return best_record(tested, metric=metric, ties=ties)

    @property
    def line(self) -> dict[str, Any]:
        """Return the run as a line of the ledger."""
        return {
            "run": self.folder.name,
            "options": self.options,
            "results": {k: v for k, v in self.results.items() if k not in NOT_RESULTS},
            "test_selected": self.test_selected,
            "environment": self.results.get("environment"),
        }


def read_entries(folder: str | Path) -> list[Entry]:
    """Return the finished runs in a folder of run folders, sorted by name."""
    return [Entry(file.parent) for file in sorted(expanded(folder).glob("*/results.json"))]


def write_ledger(folder: str | Path) -> Path:
    """Write `folder`/ledger.jsonl from the finished runs in `folder`.

    Raises:
        DataError: a run's files cannot be read.
    """
    lines = [json.dumps(entry.line, ensure_ascii=False) for entry in read_entries(folder)]
    text = "".join(f"{line}\n" for line in lines)
    return write_atomic(expanded(folder) / LEDGER, text)
