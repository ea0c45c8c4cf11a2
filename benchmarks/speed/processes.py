"""Two training processes against one, at an equal batch per process: HAN + LEAP through torchrun.

Each process has one thread and 16 clips a step, so that two processes train twice as many clips a
step as one. The baseline is one process that torchrun starts in the same way; the work is the
seconds per clip by the clock, from the median step. The number of processes is asserted. Run it on
an idle machine with at least two cores: on a busy one each process waits for the slower other. That
two processes compute what one computes is tested in `tests/end_to_end`, so nothing is compared
here.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from avplatform.base.machine import available_cores
from benchmarks.timing import Comparison, Setting, Side

BATCH, STEPS, WARM = 16, 30, 5
ROOT = Path(__file__).resolve().parents[2]


def left_out() -> str:
    """Return why this machine cannot tell, or nothing."""
    return "" if available_cores() > 1 else "it needs two cores"


def comparisons(setting: Setting) -> dict[str, Callable[[], Iterable[Comparison]]]:
    """Return what is timed."""
    return {"han + leap": both}


def both() -> Iterable[Comparison]:
    """Yield two processes against one."""
    side = Side(
        name=f"HAN + LEAP, two processes to one, batch {BATCH} each",
        run=partial(seconds_per_clip, 2),
        floor=1.9,
        aim=1.95,
    )
    yield Comparison(title=side.name, plain=partial(seconds_per_clip, 1), sides=[side], clock="own")


def seconds_per_clip(processes: int) -> float:
    """Train with some processes; return the seconds per clip of the median step.

    Raises:
        RuntimeError: torchrun failed, or another number of processes worked together.
    """
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, "-m", *launcher, "-m", "benchmarks.speed.processes"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    lines = [line for line in found.stdout.splitlines() if line.startswith("{")]
    if found.returncode or not lines:
        raise RuntimeError(f"torchrun ended with {found.returncode}: {found.stderr[-2000:]}")
    told = json.loads(lines[-1])
    if told["processes"] != processes:
        raise RuntimeError(f"{told['processes']} processes worked together, not {processes}")
    return float(told["seconds"]) / (BATCH * processes)


def worker() -> None:
    """Train as one of the processes; the first one prints how many there are, and the seconds."""
    import torch

    from avplatform.base.machine import leave, make_accelerator
    from avplatform.config.optim import OptimConfig
    from avplatform.training.optim import build_optimizer
    from avplatform.training.step import optimisation_step
    from tests.plain.steps import Row, make_batch, our_model

    accelerator = make_accelerator(cpu=True, precision="no", threads=1)
    row = Row("han", "leap", BATCH, "pseudo", (0, 0), (0, 0))
    torch.manual_seed(0)
    task, model, _ = our_model(row)
    torch.manual_seed(accelerator.process_index)
    batch = make_batch(row, task)
    optimizer = build_optimizer(model, OptimConfig(lr=1e-5))
    model, optimizer = accelerator.prepare(model, optimizer)
    seconds = []
    for _ in range(WARM + STEPS):
        started = time.perf_counter()
        optimisation_step(model, task, batch, optimizer, lr=1e-5, accelerator=accelerator)
        seconds.append(time.perf_counter() - started)
    if accelerator.is_main_process:
        found = {
            "processes": accelerator.num_processes,
            "seconds": statistics.median(seconds[WARM:]),
        }
        print(json.dumps(found), flush=True)
    leave(accelerator)


if __name__ == "__main__":
    worker()
