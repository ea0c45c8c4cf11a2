"""`avplatform runs ls`: the runs of a folder, with their cell, state, figure, date and size."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from avplatform.base.console import readable
from avplatform.base.files import give_json
from avplatform.commands.doctor_checks import folder_size, in_bytes
from avplatform.commands.flags import parse_flags
from avplatform.config.compose import CELL
from avplatform.config.values import load_yaml
from avplatform.models.errors import AVError, DataError, counted, unknown_name
from avplatform.models.paths import expanded, nearest_path
from avplatform.runs.folder import RunFolder, finished_results
from avplatform.tasks.registry import TASKS

CONFIG = "config.yaml"
Row = dict[str, Any]


@dataclass(kw_only=True)
class RunsOptions:
    """List the runs of a folder and of the folders in it, the newest first."""

    folder: Annotated[str, tyro.conf.Positional] = "runs"
    """the folder"""
    json: str | None = None
    """write the list to this file; without a name: print it as JSON, and nothing else"""


def run(args: list[str], prog: str) -> int:
    """List runs as the flags say."""
    options = parse_flags(RunsOptions, *only_ls(args, prog))
    rows = list_runs(options.folder)
    show(rows, options.json, f"runs in {options.folder}", shown_run)
    return 0


def list_runs(folder: str | Path) -> list[Row]:
    """Return what there is to say of every run in a folder, the newest first.

    A run is a folder with a config.yaml. The folders inside one are not searched. "figure" is the
    score by which the task selects an epoch, on test, in percent.

    Raises:
        DataError: there is no such folder.
    """
    found = [_describe(place, expanded(folder)) for place in folders_with(folder, CONFIG)]
    return sorted(found, key=lambda row: row["date"], reverse=True)


def folders_with(folder: str | Path, *names: str) -> Iterator[Path]:
    """Yield the folders in and under a folder that hold these files; they are not searched further.

    Raises:
        DataError: there is no such folder.
    """
    if not expanded(folder).is_dir():
        near = nearest_path(str(folder)) or "; training writes to the folder runs, or name another"
        raise DataError(f"there is no folder {folder}{near}")
    for place, inner, files in os.walk(expanded(folder)):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        if {*names} <= {*files}:
            inner.clear()
            yield Path(place)


def only_ls(args: list[str], prog: str) -> tuple[list[str], str]:
    """Return the arguments and the name of a command's `ls`, which is its only command.

    Raises:
        UsageError: another one is given.
    """
    if args and args[0] not in ("ls", "-h", "--help"):
        raise unknown_name(f"{prog.split()[-1]} command", args[0], ("ls",))
    return (args[1:] if args[:1] == ["ls"] else ["--help"]), f"{prog} ls"


def show(rows: list[Row], json: str | None, title: str, cells: Callable[[Row], list[str]]) -> None:
    """Print a line per row, or give the rows as JSON to the place that --json names."""
    if json is not None:
        give_json(json, rows)
    if json == "-":
        return
    if not rows:
        print(f"no {title}")
        return
    lines = [["NAME", "CELL", "STATE", "FIGURE", "DATA", "DATE", "SIZE"], *map(cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        print("  ".join(padded).rstrip())


def shown_run(row: Row) -> list[str]:
    """Return the cells of a run in the table."""
    steps = f", {counted(row['steps'], 'step')}" if row["steps"] is not None else ""
    return shown(row, state=f"{row['state']}{steps}")


def shown(row: Row, *, state: str) -> list[str]:
    """Return the cells of a run or model in the table."""
    figure = "" if row["figure"] is None else f"{row['metric']} {row['figure']:.1f}"
    synthetic = " (SYNTHETIC)" if row["synthetic"] else ""
    data = f"{readable(row['data'] or '')}{synthetic}"
    size = in_bytes(row["size"])
    return [readable(row["name"]), row["cell"] or "", state, figure, data, row["date"], size]


def headline(results: dict[str, Any], task: str | None) -> dict[str, Any]:
    """Return the task's main figure on test in the content of a results.json, as a row holds it."""
    figures = results.get("test") or {}
    main = TASKS[task].selection_metric if task in TASKS else None
    name = main if main in figures else next(iter(figures), None)
    return {
        "metric": name,
        "figure": figures.get(name),
        "data": results.get("data"),
        "synthetic": results.get("synthetic"),
    }


def date_of(seconds: float) -> str:
    """Return a time as year-month-day hour:minute of this machine's clock."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _describe(place: Path, base: Path) -> Row:
    folder = RunFolder(place)
    try:
        config = load_yaml(place)
        problem = None
    except AVError as error:
        config, problem = {}, str(error)
    results = finished_results(folder) or {}
    last = folder.results_file if results else folder.metrics_file
    if not last.is_file():
        last = place / CONFIG
    parts = [config.get(part) for part in CELL]
    steps = results.get("steps")
    if not results:
        steps = max((record.get("step", 0) for record in folder.records()), default=0)
    found = headline(results, config.get("task"))
    return {
        "name": str(place.relative_to(base)) if place != base else place.name,
        "folder": str(place),
        "task": config.get("task"),
        "cell": "-".join(map(str, parts)) if all(parts) else None,
        "state": "unreadable" if problem else "finished" if results else "unfinished",
        "problem": problem,
        "steps": steps,
        **found,
        "data": found["data"] or config.get("data"),
        "date": date_of(last.stat().st_mtime),
        "size": folder_size(place),
    }
