"""The runs of a sweep on the nodes of a Ray cluster, each a task with its cores and GPUs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avplatform.models.errors import one_line
from avplatform.scale.engine import connected, room
from avplatform.scale.options import EngineOptions
from avplatform.sweeps.runner import GRACE, Job, begin, kill

TRIES = 3
"""How often a run is begun or continued that was lost with its node."""


@contextlib.contextmanager
def node_pool(options: EngineOptions, *, logs: Path, jobs: int) -> Iterator[NodePool]:
    """Connect to a cluster, in a `with` block that gets the pool for `run_jobs`.

    Args:
        options: the cluster, and the cores and GPUs of a run.
        logs: folder of the logs, which all nodes share.
        jobs: number of the jobs.

    Raises:
        UsageError: Ray is missing, or the cluster has no room for one run.
        DataError: the cluster cannot be reached.
    """
    with connected(options) as ray:
        workers, gpus = room(ray, options, jobs)
        # A run that was lost is continued with another command, so that Ray must not repeat it.
        task = ray.remote(num_cpus=options.worker_cpus, num_gpus=gpus, max_retries=0)
        yield NodePool(logs=logs.absolute(), parallel=workers, ray=ray, task=task(run_command))


@dataclass(kw_only=True)
class _Running:
    job: Job
    answer: Any
    tries: int
    since: float = field(default_factory=time.monotonic)


@dataclass(kw_only=True)
class NodePool:
    """The jobs that are running on the nodes."""

    logs: Path
    parallel: int
    ray: Any
    task: Any
    running: list[_Running] = field(default_factory=list)

    def start(self, job: Job, *, tries: int = 1) -> None:
        """Let a node run a job."""
        log = self.logs / f"{job.name}.log"
        answer = self.task.remote(job.command(), str(log), os.getcwd())
        self.running.append(_Running(job=job, answer=answer, tries=tries))

    def names(self) -> set[str]:
        """Return the names of the jobs that are running."""
        return {one.job.name for one in self.running}

    def ended(self) -> list[tuple[Job, int, float]]:
        """Return the jobs that have ended, with exit code and seconds; start lost ones again."""
        answers = [one.answer for one in self.running]
        if not answers:
            return []
        done = set(self.ray.wait(answers, num_returns=len(answers), timeout=0)[0])
        over = [one for one in self.running if one.answer in done]
        self.running = [one for one in self.running if one.answer not in done]
        found = []
        for one in over:
            try:
                code = self.ray.get(one.answer)
            except self.ray.exceptions.RayError as error:
                text = one_line(error, 300)
                with (self.logs / f"{one.job.name}.log").open("a", encoding="utf-8") as log:
                    log.write(f"the node or the process of this run was lost: {text}\n")
                if one.tries < TRIES and not one.job.done():
                    self.start(one.job, tries=one.tries + 1)
                    continue
                code = 0 if one.job.done() else 1
            found.append((one.job, code, time.monotonic() - one.since))
        return found

    def stop(self) -> None:
        """Let all jobs save their state and end; never raises, as it may follow an error of Ray."""
        answers = [one.answer for one in self.running]
        self.running = []
        with contextlib.suppress(Exception):
            for answer in answers:
                self.ray.cancel(answer, force=False, recursive=False)
            if answers:
                self.ray.wait(answers, num_returns=len(answers), timeout=2 * GRACE)


def run_command(command: list[str], log: str, folder: str) -> int:
    """Run a command of the platform on a node, and return its exit code.

    The command ends with this process, and saves its state before.
    """
    with open(log, "a", encoding="utf-8") as file:
        process = begin(command, file, folder if os.path.isdir(folder) else None)
        try:
            return process.wait()
        finally:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                kill(process)
