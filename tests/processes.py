"""Runs in processes of their own, forked from a server that has everything imported.

A start takes a fraction of a second.

They can be killed from outside, at any moment, and be told to die at a given call inside a
checkpoint write.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

if os.name != "posix":
    pytest.skip("needs POSIX: forks processes and sends signals", allow_module_level=True)

CONTEXT = multiprocessing.get_context("forkserver")
# Each run imports the last two late, which takes longer than the steps of a short run.
CONTEXT.set_forkserver_preload(
    ["avplatform.commands.train", "avplatform.training.report", "torch._dynamo"]
)


class Launch:
    """One run on some processes, as torchrun would start them; their output goes to `log`."""

    def __init__(
        self,
        args: list[str],
        log: Path,
        *,
        processes: int = 1,
        before: Callable[[int], None] | None = None,
    ) -> None:
        port = free_port()
        self.log = log
        self.members = [
            CONTEXT.Process(target=_main, args=(args, str(log), rank, processes, port, before))
            for rank in range(processes)
        ]
        for member in self.members:
            member.start()

    def wait(self, timeout: float = 300) -> list[int | None]:
        """Return the exit codes; processes that hang are killed, and their code is None."""
        for member in self.members:
            member.join(timeout)
        codes = [member.exitcode for member in self.members]
        self.kill()
        return codes

    def kill(self) -> None:
        """Send SIGKILL to all that still run, and wait for their end."""
        for member in self.members:
            if member.is_alive() and member.pid:
                os.kill(member.pid, signal.SIGKILL)
        for member in self.members:
            member.join(30)

    @property
    def alive(self) -> bool:
        """Whether every process still runs."""
        return all(member.is_alive() for member in self.members)

    def output(self) -> str:
        """What all of them printed."""
        return self.log.read_text() if self.log.exists() else ""


def run(
    args: list[str], log: Path, *, processes: int = 1, before: Callable[[int], None] | None = None
) -> str:
    """Run to the end; return the output; fail unless every process ended with 0."""
    launch = Launch(args, log, processes=processes, before=before)
    codes = launch.wait()
    assert codes == [0] * processes, f"exit codes {codes}: {launch.output()[-3000:]}"
    return launch.output()


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _main(
    args: list[str],
    log: str,
    rank: int,
    processes: int,
    port: int,
    before: Callable[[int], None] | None,
) -> None:
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    if processes > 1:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(processes),
            LOCAL_WORLD_SIZE=str(processes),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
    if before is not None:
        before(rank)
    from avplatform.cli import main

    code = main(args)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
