"""`avplatform train`: merge flags, preset and YAML into one RunConfig, then train."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import tyro

from avplatform.base.utf8 import print_json
from avplatform.catalogue.kept import kept_flags
from avplatform.config.flag_help import show_help
from avplatform.models.errors import counted
from avplatform.models.paths import expanded

if TYPE_CHECKING:
    from avplatform.config.run import RunConfig


def run(args: list[str], prog: str) -> int:
    """Train as the flags say."""
    if (flags := kept_flags(args)) is not None:
        show_help(flags, prog)
    from avplatform.config.compose import parse

    if any(arg.startswith("--job") for arg in args):
        return _on_the_hub(args, prog)
    config = parse(restarted(args), prog=prog)
    if config.dry_run:
        from avplatform.commands.dry_run import describe_run

        print(describe_run(config))
        return 0
    from avplatform.base.machine import leave
    from avplatform.base.stopping import Stopped
    from avplatform.training.loop import Run

    if config.resume and (done := finished(config)) is not None:
        if os.environ.get("RANK", "0") == "0":
            print(
                f"{config.resume} is finished after {counted(done['steps'], 'step')}; nothing to do"
            )
        return 0
    training = Run(config)
    try:
        training.train()
    except Stopped as stopped:
        training.setup.console.note(str(stopped))
        leave(training.setup.accelerator)
        return 130 if stopped.signum == signal.SIGINT else 0
    leave(training.setup.accelerator)
    return 0


def _on_the_hub(args: list[str], prog: str) -> int:
    """Start a job on the Hub that trains, or with --dry-run say what it would run."""
    from avplatform.commands.flags import parse_flags
    from avplatform.config.compose import parse
    from avplatform.hub.jobs import JobOptions, plan_job, split_job, start_job

    about_job, rest = split_job(args)
    options = parse_flags(JobOptions, about_job, prog, config=(tyro.conf.FlagCreatePairsOff,))
    config = parse(rest, prog=prog)
    sent = [arg for arg in rest if arg not in ("--dry-run", "--dry_run")]
    plan = plan_job(options, config, sent)
    if config.dry_run:
        shown = {**plan, "secrets": dict.fromkeys(plan["secrets"], "(not shown)")}
        print_json(shown)
        return 0
    job = start_job(plan)
    print(
        f"job {job.id} on {options.job}: {job.url}\n"
        f"what it prints: hf jobs logs {job.id}; to end it: hf jobs cancel {job.id}\n"
        f"when it is done, the model is {options.job_repo} on the Hub"
    )
    return 0


def finished(config: RunConfig) -> dict[str, Any] | None:
    """Return the results of the run to resume if it is finished and stays as long, else None."""
    from avplatform.config.values import load_yaml
    from avplatform.runs.folder import RunFolder, finished_results

    done = finished_results(RunFolder(str(config.resume)))
    if done is not None:
        stored = load_yaml(str(config.resume))
        if (config.max_steps, config.epochs) != (stored.get("max_steps"), stored.get("epochs")):
            return None  # to be made longer, if its schedule allows that
    return done


def restarted(args: list[str]) -> list[str]:
    """Return the arguments, changed to a resume if torchrun restarted the run (--max-restarts)."""
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0:
        return args
    from avplatform.config.compose import peek

    given = peek(args, ("output_dir", "resume"))
    begun = given.get("output_dir")
    if given.get("resume") or not begun or not (expanded(begun) / "config.yaml").is_file():
        return args
    return ["--resume", begun]
