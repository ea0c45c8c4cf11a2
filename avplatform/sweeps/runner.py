"""Run jobs, each in its own process, several at a time.

Finished jobs are skipped, and failed ones are reported at the end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any, Protocol

from avplatform.base.console import Bar, Console
from avplatform.base.locks import Lock
from avplatform.base.machine import available_cores
from avplatform.base.stopping import END_WITH_STDIN
from avplatform.config.values import as_yaml, to_dict
from avplatform.models.errors import DataError, UsageError, counted
from avplatform.models.files import write_atomic
from avplatform.runs.folder import RunFolder
from avplatform.sweeps.sweep import PlannedRun, check_unchanged, resolve

GRACE = 30.0  # seconds that a job has to save its state when the jobs are stopped
POLL = 0.05
PROGRAM = ("-m", "avplatform")


@dataclass(kw_only=True)
class Job:
    """One command that runs in its own process.

    Args:
        name: name shown to the user, and name of the job's log.
        command: returns the arguments of the Python interpreter; called when the job starts.
        done: returns whether the job is finished, which its files show.
        check: called before any job starts; raises if existing files cannot be used.
        after: called when the job is finished.
        needs: names of the jobs that must be finished before this one starts.
    """

    name: str
    command: Callable[[], list[str]]
    done: Callable[[], bool]
    check: Callable[[], None] = lambda: None
    after: Callable[[], None] = lambda: None
    needs: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Outcome:
    """Names of the jobs that were finished before, finished now, or failed (with the reason)."""

    skipped: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class Pool(Protocol):
    """Runs jobs, on this machine or on others."""

    parallel: int

    def start(self, job: Job) -> None:
        """Begin a job."""
        ...

    def names(self) -> set[str]:
        """Return the names of the jobs that are running."""
        ...

    def ended(self) -> list[tuple[Job, int, float]]:
        """Return the jobs that have ended since the last call, with exit code and seconds."""
        ...

    def stop(self) -> None:
        """Let all jobs save their state and end."""
        ...


def run_jobs(
    jobs: Sequence[Job],
    *,
    logs: Path,
    parallel: int,
    console: Console,
    pool: Pool | None = None,
) -> Outcome:
    """Run the jobs that are not finished, `parallel` at a time, in the given order.

    They run on this machine, or where a `pool` runs them, as many at a time as it says.

    A job that fails does not stop the others, except for those that need it. On Ctrl-C or SIGTERM
    the jobs get SIGTERM and time to save their state, and KeyboardInterrupt is raised.

    Raises:
        UsageError: an existing run was made with other options.
        DataError: another sweep uses the folder, or the folder cannot be written.
    """
    outcome = Outcome(skipped=[job.name for job in jobs if job.done()])
    for job in jobs:
        job.check()
    waiting = [job for job in jobs if job.name not in outcome.skipped]
    if outcome.skipped:
        console.note(f"{len(outcome.skipped)} of {len(jobs)} finished before")
    if not waiting:
        return outcome
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot write into {logs.parent}: {error.strerror}; give another --out"
        ) from None

    def busy(holder: str) -> DataError:
        return DataError(
            f"another process is using {logs.parent}; wait for it to end, or give another --out"
        )

    with (
        Lock(logs / ".lock", busy),
        _stoppable(),
        console.bar("runs", total=len(jobs), done=len(outcome.skipped)) as bar,
    ):
        pool = pool or _Pool(parallel=parallel, logs=logs)
        _work(waiting, outcome, pool, logs, console, bar, total=len(jobs))
    return outcome


def train_jobs(
    runs: Sequence[PlannedRun], folder: Path, *, parallel: int, where: str, threads: int = 0
) -> list[Job]:
    """Return the jobs that train planned runs in `folder`/NAME.

    Each has some `threads`; 0: those of this machine, divided by the jobs at a time.

    A finished run's checkpoints are deleted, because nothing resumes from them and those of many
    runs fill a disk. Its model stays.
    """
    threads = threads or max(1, available_cores() // max(1, parallel))
    return [_train_job(run, folder, threads, where) for run in runs]


def report(outcome: Outcome, console: Console, *, logs: Path) -> int:
    """Print how many jobs finished and failed, and why; return the exit code."""
    console.note(
        f"{len(outcome.finished)} finished now, {len(outcome.skipped)} before, "
        f"{len(outcome.failed)} failed" + (f"; logs in {logs}" if outcome.failed else "")
    )
    for name, words in outcome.failed.items():
        console.note(f"  failed: {name}: {words}")
    return 1 if outcome.failed else 0


def _train_job(run: PlannedRun, folder: Path, threads: int, where: str) -> Job:
    home = RunFolder(folder / run.name)

    def command() -> list[str]:
        _wait_for(home)
        if (home.path / "config.yaml").is_file():
            return [*PROGRAM, "train", "--resume", str(home.path), "--threads", str(threads)]
        if home.path.is_dir() and all(p.name.startswith(".") for p in home.path.iterdir()):
            shutil.rmtree(home.path)  # the run ended before it wrote its first file
        file = folder / "configs" / f"{run.name}.yaml"
        write_atomic(file, as_yaml(run.options))
        told = ["--output-dir", str(home.path), "--threads", str(threads)]
        return [*PROGRAM, "train", "--config", str(file), *told]

    def check() -> None:
        if (home.path / "config.yaml").is_file():
            check_unchanged(home.path, to_dict(resolve(run, where=where)))

    return Job(
        name=run.name,
        command=command,
        done=home.results_file.is_file,
        check=check,
        after=lambda: shutil.rmtree(home.checkpoints, ignore_errors=True),
    )


def _wait_for(home: RunFolder) -> None:
    """Wait until no process trains in a folder.

    The runs of a sweep that was killed still save their state before they end.
    """
    if home.path.is_dir():
        with contextlib.suppress(UsageError):  # the run itself will report it
            home.lock(wait=GRACE)
        home.unlock()


@dataclass(kw_only=True)
class _Pool:
    """The jobs that are running."""

    logs: Path
    parallel: int
    running: list[tuple[Job, subprocess.Popen, IO[str], float]] = field(default_factory=list)

    def start(self, job: Job) -> None:
        log = (self.logs / f"{job.name}.log").open("a", encoding="utf-8")
        process = begin(job.command(), log)
        self.running.append((job, process, log, time.monotonic()))

    def names(self) -> set[str]:
        return {job.name for job, *_ in self.running}

    def ended(self) -> list[tuple[Job, int, float]]:
        done = [entry for entry in self.running if entry[1].poll() is not None]
        self.running = [entry for entry in self.running if entry not in done]
        for _, process, log, _ in done:
            log.close()
            if process.stdin is not None:
                process.stdin.close()
        return [
            (job, process.returncode, time.monotonic() - since) for job, process, _, since in done
        ]

    def stop(self) -> None:
        for end in (_ask_to_end, kill):
            for _, process, _, _ in self.running:
                with contextlib.suppress(OSError):  # it ended meanwhile
                    end(process)
            until = time.monotonic() + GRACE
            for _, process, _, _ in self.running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.1, until - time.monotonic()))
            self.ended()
            if not self.running:
                return


def _ask_to_end(process: subprocess.Popen) -> None:
    """Let a job save its state and end: by SIGTERM, or without signals by the end of its input."""
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGTERM)
    elif process.stdin is not None:
        process.stdin.close()


def begin(command: list[str], log: IO[str], folder: str | None = None) -> subprocess.Popen:
    """Start a command of the platform, which writes to a log.

    In its own session it does not get Ctrl-C; the starter gets it and stops its jobs in order. If
    the starter is killed, the standard input closes, and the command ends by itself.
    """
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        stdout=log,
        stderr=subprocess.STDOUT,
        stdin=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, END_WITH_STDIN: "1"},
    )


def kill(process: subprocess.Popen) -> None:
    """End a job and, where the system has groups of processes, what it started."""
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _work(
    waiting: list[Job],
    outcome: Outcome,
    pool: Pool,
    logs: Path,
    console: Console,
    bar: Bar,
    *,
    total: int,
) -> None:
    queue, begun = list(waiting), time.monotonic()
    try:
        while queue or pool.names():
            while len(pool.names()) < pool.parallel and (job := _ready(queue, outcome)):
                pool.start(job)
            for job, code, seconds in pool.ended():
                if code == 0 and job.done():
                    job.after()
                    outcome.finished.append(job.name)
                    words = f"finished in {seconds:.0f} s"
                else:
                    outcome.failed[job.name] = words = _last_words(logs / f"{job.name}.log", code)
                over = len(outcome.finished) + len(outcome.failed)
                left = (time.monotonic() - begun) / over * (len(waiting) - over) / 60
                remaining = f"; about {max(left, 1):.0f} min left" if over < len(waiting) else ""
                bar.advance()
                console.note(
                    f"[{len(outcome.skipped) + over}/{total}] {job.name}: {words}{remaining}"
                )
            for job in _hopeless(queue, pool, outcome):
                outcome.failed[job.name] = "a run that it needs did not finish"
                bar.advance()
                console.note(f"{job.name}: {outcome.failed[job.name]}")
            time.sleep(POLL)
    except BaseException:
        console.note(f"ending {counted(len(pool.names()), 'run')}")
        pool.stop()
        raise


def _ready(queue: list[Job], outcome: Outcome) -> Job | None:
    """Take the first job whose needs are finished from the queue; None if there is none."""
    finished = {*outcome.finished, *outcome.skipped}
    for job in queue:
        if finished.issuperset(job.needs):
            queue.remove(job)
            return job
    return None


def _hopeless(queue: list[Job], pool: Pool, outcome: Outcome) -> list[Job]:
    """Take the jobs from the queue that need one which failed, or which nobody runs."""
    hope = {job.name for job in queue} | pool.names()
    hope |= {*outcome.finished, *outcome.skipped}
    lost = [job for job in queue if not hope.issuperset(job.needs)]
    for job in lost:
        queue.remove(job)
    return lost


def _last_words(log: Path, code: int) -> str:
    """Return the error message at the end of a log, or else its last line."""
    if code < 0:
        return f"killed by signal {-code}"
    if not log.is_file():  # written on a node that does not share the folder
        return f"it left no {log}"
    lines = [
        line.strip()
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    ]
    errors = [line for line in lines[-3:] if line.startswith("error:")]
    return (errors or lines or ["its log is empty"])[-1].removeprefix("error: ")


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Make SIGTERM raise KeyboardInterrupt, like Ctrl-C, during the block."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before: Any = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
