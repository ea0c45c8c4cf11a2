"""Training on a machine of the Hub: what the job runs, and how its model comes back."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from huggingface_hub import JobHardware, JobInfo, get_token, is_offline_mode
from huggingface_hub.utils import validate_repo_id

from avplatform.base.hub_errors import FAILURES, explain
from avplatform.config.run import RunConfig
from avplatform.config.values import flat
from avplatform.models.checks import MAY_BE_URL
from avplatform.models.errors import DataError, UsageError, unknown_name
from avplatform.models.paths import expanded, may_be_hub_id
from avplatform.version import __version__

SCRIPT = """set -e
python -c 'import avplatform' 2> /dev/null || python -m pip install -q "$1"
repo=$2; private=$3; shift 3
python -m avplatform train "$@" --output-dir run
python -m avplatform push run "$repo" $private
"""
"""What a job runs. A run that fails, or that the time limit ends, is not pushed."""
LEFT_OUT = ("output_dir", "resume", "config", "cache_dir")
"""Options that name places on this machine; the job has its own output folder."""


@dataclass(kw_only=True)
class JobOptions:
    """Train on a machine of the Hub, and push the model at the end."""

    job: str
    """kind of machine, such as cpu-basic or a10g-small; `hf jobs hardware` lists them"""
    job_repo: str
    """owner/name on the Hub to which the job pushes the model"""
    job_image: Annotated[str, MAY_BE_URL] = "python:3.12"
    """Docker image; where it lacks avplatform, the job installs this version from PyPI"""
    job_timeout: str = "24h"
    """the job is ended after this time (30m, 24h, 2d), and then nothing is pushed"""
    job_private: bool = False
    """make a new repository private"""


def split_job(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divide the arguments of `train` into those of the job, and those of the training.

    Examples:
        >>> split_job(["--task", "avel", "--job", "cpu-basic", "--job-repo=me/x", "--job-private"])
        (['--job', 'cpu-basic', '--job-repo=me/x', '--job-private'], ['--task', 'avel'])
    """
    kinds = {field.name: field.type for field in dataclasses.fields(JobOptions)}
    job: list[str] = []
    rest: list[str] = []
    left = list(args)
    while left:
        arg = left.pop(0)
        flag, separate, _ = arg.partition("=")
        kind = kinds.get(flag.removeprefix("--").replace("-", "_"))
        if not flag.startswith("--") or kind is None:
            rest.append(arg)
            continue
        job.append(arg)
        if not separate and kind != "bool" and left:
            job.append(left.pop(0))
    return job, rest


def plan_job(options: JobOptions, config: RunConfig, args: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of `huggingface_hub.run_job` that train as the arguments say.

    Args:
        options: the machine, the image and the repository for the model.
        config: the configuration that `args` give, which is checked.
        args: the arguments of `train` without those of the job.

    Raises:
        UsageError: the kind of machine or the name of the repository is wrong, an option names
            something that only this machine has, or there is no token.
    """
    known = [str(kind.value) for kind in JobHardware]
    if options.job not in known:
        raise unknown_name("kind of machine", options.job, known)
    try:
        validate_repo_id(options.job_repo)
    except ValueError as error:
        raise UsageError(f"--job-repo {options.job_repo}: {error}; give owner/name") from None
    if options.job_repo.count("/") != 1:
        raise UsageError(f"--job-repo {options.job_repo} has no owner; give owner/name")
    for name in LEFT_OUT:
        if getattr(config, name):
            raise UsageError(
                f"--{name.replace('_', '-')} names a place on this machine, and the job runs on "
                "another one; leave it out, and give the options as flags"
            )
    for name, value in flat(dataclasses.asdict(config)).items():
        if isinstance(value, str) and _is_here(name, value):
            raise UsageError(
                f"--{name.replace('_', '-')} {value} is on this machine, and the job runs on "
                "another one; push it to the Hub first (`avplatform data push`, `avplatform "
                "push`), and give its id"
            )
    if is_offline_mode():
        raise UsageError("HF_HUB_OFFLINE is set, so no job can be started; unset it")
    token = get_token()
    if token is None:
        raise UsageError(
            "a job needs a token with the rights to run jobs and to write to the repository; log "
            "in with `hf auth login`, or set HF_TOKEN"
        )
    private = "--private" if options.job_private else ""
    package = f"avplatform[text]=={__version__}"
    return {
        "image": options.job_image,
        "command": ["bash", "-c", SCRIPT, "job", package, options.job_repo, private, *args],
        "flavor": options.job,
        "env": {"PYTHONUNBUFFERED": "1"},
        "secrets": {"HF_TOKEN": token},
        "timeout": options.job_timeout,
    }


def start_job(plan: dict[str, Any]) -> JobInfo:
    """Start a job on the Hub. This is tried once, since a job costs money and might start twice.

    Raises:
        DataError: the Hub refuses the job or cannot be reached.
    """
    from huggingface_hub import run_job

    try:
        return run_job(**plan)
    except FAILURES as error:
        raise DataError(
            f"the job was not started: {explain(error)}. `hf jobs ps` lists the jobs that run"
        ) from None


def _is_here(name: str, value: str) -> bool:
    """Return whether an option names a file or folder of this machine."""
    if name in ("data", "init_from"):
        return value not in ("", "demo") and not may_be_hub_id(value)
    return ("/" in value or "\\" in value or "." in value) and expanded(value).exists()
