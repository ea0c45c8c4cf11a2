"""`avplatform reproduce`: train a paper's tables; show our figures beside the published ones."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from avplatform.base.console import Console
from avplatform.commands.flags import parse_flags, writing
from avplatform.data.reading.source import DataSource
from avplatform.models.checks import at_least
from avplatform.models.errors import AVError, UsageError, counted
from avplatform.models.paths import expanded
from avplatform.reproduce.curve import TARGET, curve_section, runs_of
from avplatform.reproduce.page import Page, write_page
from avplatform.reproduce.pictures import draw
from avplatform.reproduce.reproduce import (
    LOGS,
    RUNS,
    Plan,
    carry_out,
    check_there,
    collect,
    describe_features,
    find_data,
    make_plan,
)
from avplatform.reproduce.tables import PRECISIONS, Shelf, section
from avplatform.reproduce.targets import ALL, read_labels, target_names, wanted
from avplatform.sweeps.ledger import write_ledger
from avplatform.sweeps.runner import Outcome, report
from avplatform.version import __version__

STOPPED = 130  # exit code of a command that Ctrl-C ended
Data = dict[str, tuple[str, DataSource]]


@dataclass(kw_only=True)
class ReproduceOptions:
    """Reproduce tables and figures of the LEAP paper, or the published table of OV-AVEL.

    Train what is missing, then write page.md, page.html and page.json.
    """

    targets: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """table1, table2, fig3, table3, table4, table5, fig4, curve or all of these; ovavel"""
    data: tuple[str, ...] = ()
    """stores of LLP and AVE (OV-AVEBench), or a folder that holds them; or demo (synthetic)"""
    run: tuple[str, ...] = ()
    """with curve: existing runs of MM-Pyr + LEAP, in place of --data; clip=DIR for CLIP's labels"""
    out: str = "runs/reproduce"
    """folder of the page and the runs"""
    seeds: int = 5
    """number of seeds, counted from 1"""
    jobs: int = 1
    """number of runs at the same time, which share the cores"""
    checkpoints: str | None = None
    """folder of authors' checkpoints that `avplatform convert` wrote, each named like its preset"""
    labels: tuple[str, ...] = ()
    """label embeddings, by row: bert=FILE, clip=, imagebind= or clip-clap=; glove=: all others"""
    only: tuple[str, ...] = ()
    """train only settings whose name contains one of these texts; --dry-run lists the names"""
    epochs: int | None = None
    """short schedule, which the page is marked with"""
    max_steps: int | None = None
    """short schedule in steps, which the page is marked with"""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """precision of all runs, so that they can be compared; no: float32, as the authors trained"""
    cache_dir: str | None = None
    """folder of mapped arrays and downloads; default: as for `avplatform train`"""
    cpu: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """stay on the CPU"""
    page_only: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """train nothing; write the page from the existing runs"""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """list what would be trained, then exit"""


def run(args: list[str], prog: str) -> int:
    """Train the missing runs and write the page."""
    options = parse_flags(ReproduceOptions, args, prog)
    for name, low in (("seeds", 1), ("jobs", 1), ("epochs", 1), ("max_steps", 1)):
        if getattr(options, name) is not None:
            at_least(options, name, low)
    targets, labels = target_names(options.targets), read_labels(options.labels)
    if options.run:
        return _curve_of_runs(options, targets, args)
    if not options.data:
        raise UsageError("say what to train on: --data with stores of LLP and AVE, or demo")
    data = find_data(options.data, cache_dir=options.cache_dir)
    plan = make_plan(
        targets,
        data,
        labels=labels,
        seeds=options.seeds,
        only=options.only,
        extra=_extra(options),
        checkpoints=None if options.checkpoints is None else expanded(options.checkpoints),
        out=expanded(options.out),
    )
    console, out, begun = Console(), expanded(options.out), time.monotonic()
    if options.dry_run:
        _list(plan, out, console)
        return 0
    outcome = Outcome()
    if options.page_only:
        check_there(plan, out, data)
    else:
        try:
            outcome = carry_out(
                plan,
                out,
                parallel=options.jobs,
                console=console,
                data=data,
                cache_dir=options.cache_dir,
                cpu=options.cpu,
            )
        except KeyboardInterrupt:
            console.note(
                "stopped; run the same command again to go on, or with --page-only to write the "
                "page of the runs so far"
            )
            return STOPPED
    shelf = collect(plan, out, data=data, labels=labels, failed=outcome.failed)
    page = make_page(
        targets,
        shelf,
        data,
        command=f"avplatform reproduce {shlex.join(args)}",
        cpu=options.cpu,
        warnings=_warnings(options),
    )
    with writing(f"cannot write into {out}", "; give another --out"):
        write_page(page, out)
        if (out / RUNS).is_dir():
            write_ledger(out / RUNS)
    code = report(outcome, console, logs=out / LOGS)
    console.note(
        f"took {time.monotonic() - begun:.0f} s; page: {out / 'page.html'}, {out / 'page.md'}, "
        f"{out / 'page.json'}"
    )
    return code


def _curve_of_runs(options: ReproduceOptions, targets: list[str], args: list[str]) -> int:
    """Write the page of the target curve from existing runs, which may still be training."""
    if targets != [TARGET]:
        raise UsageError(f"--run is for the target {TARGET} alone; leave out --run or the others")
    runs, out, console = runs_of(options.run), expanded(options.out), Console()
    entries = [entry for found in runs.values() for entry in found]
    stores = list(dict.fromkeys(str(entry.options["data"]) for entry in entries))
    data: Data = {}
    warnings = _warnings(options)
    try:
        data = find_data([*options.data] or stores, cache_dir=options.cache_dir)
    except AVError as error:
        warnings.append(f"It is not known whether the features are synthetic: {error}")
    labels = {
        w.setting.labels: str(runs[w.setting.stem][0].options["labels"]["embeddings"])
        for w in wanted(TARGET)
        if w.setting is not None and w.setting.stem in runs
    }
    shelf = Shelf(root=out, runs=runs, labels=labels)
    shelf.features = {task: describe_features(source) for task, (_, source) in data.items()}
    command = f"avplatform reproduce {shlex.join(args)}"
    page = make_page(targets, shelf, data, command=command, cpu=True, warnings=warnings)
    if training := [entry for entry in entries if not entry.finished]:
        page.facts.append(f"{counted(len(training), 'run')} not finished: epochs so far")
    page.title = "LEAP epoch by epoch: a run on the real LLP, and ours"
    with writing(f"cannot write into {out}", "; give another --out"):
        write_page(page, out)
    console.note(f"page: {out / 'page.html'}, {out / 'page.md'}, {out / 'page.json'}")
    return 0


def make_page(
    targets: list[str],
    shelf: Shelf,
    data: Data,
    *,
    command: str,
    cpu: bool,
    warnings: Sequence[str] = (),
) -> Page:
    """Return the page of some targets and draw its pictures; `warnings` say a schedule is short."""
    sections = []
    for target in targets:
        sections.append(curve_section(shelf) if target == TARGET else section(target, shelf))
        draw(sections[-1], shelf, data, shelf.root / "plots", cpu=cpu, short=bool(warnings))
    facts = [f"made by: {command} (avplatform {__version__})"]
    facts += [
        f"data for {task}: {shelf.features[task]}; checksum {source.checksum}"
        for task, (_, source) in data.items()
    ]
    seeds = {len(entries) for entries in shelf.runs.values() if entries}
    each = counted(max(seeds, default=0), "seed")
    if len(seeds) > 1:
        each = f"{min(seeds)} to {max(seeds)} seeds"
    entries = [entry for found in shelf.runs.values() for entry in found]
    facts.append(f"runs: {len(entries)}, of {len(shelf.runs)} settings, {each} each")
    facts += sorted({f"machine: {_machine(entry.results)}" for entry in entries if entry.finished})
    synthetic = {task for task, (_, source) in data.items() if source.synthetic}
    page = Page(sections=sections, facts=facts, synthetic=synthetic, warnings=list(warnings))
    if not set(targets) & set(ALL):
        page.title = f"{', '.join(s.title for s in sections)}: published figures and ours"
    return page


def _extra(options: ReproduceOptions) -> dict[str, Any]:
    given = {name: getattr(options, name) for name in ("epochs", "max_steps", "cache_dir")}
    given |= {"cpu": options.cpu or None, "precision": options.precision}
    return {name: value for name, value in given.items() if value is not None}


def _warnings(options: ReproduceOptions) -> list[str]:
    flags = {"--epochs": options.epochs, "--max-steps": options.max_steps}
    given = [f"{flag} {value}" for flag, value in flags.items() if value]
    if not given:
        return []
    return [
        f"SHORT SCHEDULE: each of our runs was cut short ({' '.join(given)}); "
        "the published recipes are longer."
    ]


def _machine(results: dict[str, Any]) -> str:
    about = results.get("environment", {})
    return (
        f"{about.get('platform')}, {about.get('cpu')}, torch {about.get('torch')}, "
        f"precision {PRECISIONS.get(str(results.get('precision')), results.get('precision'))}"
    )


def _list(plan: Plan, out: Path, console: Console) -> None:
    for stem, runs in {**plan.stages, **plan.runs}.items():
        done = sum((out / RUNS / run.name / "results.json").is_file() for run in runs)
        console.note(f"{done} of {len(runs)} finished  {stem}")
    for stem, path in plan.checkpoints.items():
        console.note(f"authors' checkpoint  {stem}: {path}")
    for stem, why in plan.missing.items():
        console.note(f"{why}  ({stem})")
