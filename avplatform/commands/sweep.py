"""`avplatform sweep`: train one run for every combination of a YAML file's axes."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from avplatform.base.console import Console
from avplatform.commands.flags import parse_flags
from avplatform.models.checks import at_least
from avplatform.models.errors import UsageError, counted
from avplatform.models.paths import expanded
from avplatform.scale.options import EngineOptions, check_engine
from avplatform.sweeps.checks import check_runs
from avplatform.sweeps.ledger import write_ledger
from avplatform.sweeps.runner import report, run_jobs, train_jobs
from avplatform.sweeps.scores import score_tables
from avplatform.sweeps.sweep import read_sweep

STOPPED = 130  # exit code of a command that Ctrl-C ended


@dataclass(kw_only=True)
class SweepOptions(EngineOptions):
    """Train every combination of axes and seeds, and record the runs in OUT/ledger.jsonl.

    At the end, a table shows the test scores of all finished runs, with mean and spread over seeds.
    If the sweep was stopped or a run failed, the same command goes on.
    """

    file: Annotated[str, tyro.conf.Positional]
    """YAML file with base, axes and seeds; see docs/reproduce.md"""
    out: str | None = None
    """folder of the runs; default: runs/ and the name of the file"""
    jobs: int = 1
    """number of runs at the same time, which share the cores of this machine"""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """check everything and list the runs, then exit"""


def run(args: list[str], prog: str) -> int:
    """Train the runs of a sweep."""
    options = parse_flags(SweepOptions, args, prog)
    at_least(options, "jobs", 1)
    check_engine(options)
    if options.engine and options.jobs > 1:
        raise UsageError("--jobs is for this machine alone; on a cluster, --workers says how many")
    for name in ("worker_memory", "worker_seconds"):
        if getattr(options, name) != getattr(EngineOptions(), name):
            raise UsageError(f"--{name.replace('_', '-')} bounds no run of a sweep; leave it out")
    runs = read_sweep(options.file)
    check_runs(runs, where=options.file)
    out = expanded(options.out or Path("runs") / Path(options.file).stem)
    console = Console()
    threads = options.worker_cpus if options.engine else 0
    work = train_jobs(runs, out, parallel=options.jobs, where=options.file, threads=threads)
    if options.dry_run:
        for job in work:
            state = "unfinished" if (out / job.name / "config.yaml").is_file() else "new"
            state = "finished" if job.done() else state
            console.note(f"{state:<11}{job.name}")
        for job in work:
            job.check()
        console.note(f"{counted(len(work), 'run')}, in {out}")
        return 0
    from avplatform.sweeps.nodes import node_pool

    begun = time.monotonic()
    try:
        logs = out / "logs"
        with (
            node_pool(options, logs=logs, jobs=len(work)) if options.engine else nullcontext() as p
        ):
            outcome = run_jobs(work, logs=logs, parallel=options.jobs, console=console, pool=p)
    except KeyboardInterrupt:
        console.note("stopped; run the same command again to go on")
        return STOPPED
    finally:
        if out.is_dir():
            write_ledger(out)
    for table in score_tables(runs, out):
        console.table(*table)
    code = report(outcome, console, logs=out / "logs")
    console.note(f"took {time.monotonic() - begun:.0f} s; ledger: {out / 'ledger.jsonl'}")
    return code
