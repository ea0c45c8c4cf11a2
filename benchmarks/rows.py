"""What the programs share that train the rows of a table over seeds, and can be started again."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from avplatform.base.console import Console
from avplatform.sweeps.ledger import Entry, read_entries
from avplatform.sweeps.runner import Job, report, run_jobs, train_jobs
from avplatform.sweeps.sweep import PlannedRun
from examples.real_media.report import spread


def options_of(doc: str | None) -> argparse.ArgumentParser:
    """Return the options of such a program: where, how many seeds, how many at a time, or show."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="runs at the same time")
    parser.add_argument(
        "--show", action="store_true", help="train nothing, print the table of finished runs"
    )
    return parser


def work(jobs: Sequence[Job], args: argparse.Namespace) -> None:
    """Run the jobs that are not finished; end the program if one fails, do nothing to show."""
    if args.show:
        return
    console, logs = Console(), args.out / "logs"
    outcome = run_jobs(jobs, logs=logs, parallel=args.workers, console=console)
    if report(outcome, console, logs=logs):
        raise SystemExit(1)


def train(runs: Sequence[PlannedRun], args: argparse.Namespace) -> None:
    """Train the runs that are not finished."""
    work(train_jobs(runs, args.out, parallel=args.workers, where=Path(args.out).name), args)


def finished(runs: Sequence[PlannedRun], out: Path) -> list[Entry]:
    """Return the entries of the runs that are finished."""
    return [entry for run in runs if (entry := Entry(out / run.name)).finished]


def best_rate(entries: Sequence[Entry]) -> float | None:
    """Return the learning rate of the run that is best on validation; None: there is none."""
    if not entries:
        return None
    best = max(entries, key=lambda entry: entry.results["selection"]["value"])
    rate: float = best.options["optim"]["lr"]
    return rate


def scores(entries: Sequence[Entry], figures: Sequence[str]) -> list[str]:
    """Return figures on test, as mean and standard deviation."""
    return [spread([e.results["test"][figure] for e in entries]) for figure in figures]


def anchors(entry: Entry, figures: Sequence[str]) -> list[list[str]]:
    """Return a line for each answer that needs no model."""
    found = entry.results["details"]["test"]["anchors"]
    return [
        [f"({name.replace('_', ' ')})", *(f"{values[figure]:.1f}" for figure in figures)]
        for name, values in found.items()
    ]


def cpu_seconds(entries: Sequence[Entry]) -> str:
    """Return the mean CPU time of training."""
    return f"{statistics.mean(entry.results['seconds']['cpu'] for entry in entries):.0f}"


def cost_of_all(out: Path) -> str:
    """Return how many finished runs a folder holds, and their CPU time in all."""
    found = [entry.results["seconds"]["cpu"] for entry in read_entries(out)]
    return f"{len(found)} runs, {sum(found) / 3600:.1f} hours of CPU in all"
