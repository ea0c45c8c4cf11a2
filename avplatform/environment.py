"""The machine and the processes of a run: accelerator, precision, threads, and what is written down about them."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs

from models.errors import UsageError


def make_accelerator(*, cpu: bool = False, precision: str = "auto", threads: int = 0) -> Accelerator:
    """Return the Accelerator of this process, with the threads and the precision of the run.

    Args:
        cpu: stay on the CPU.
        precision: "no", "bf16", "fp16", "float64" (the caller makes the weights double), or "auto": bf16 on a CPU with
            bf16 instructions, otherwise what `accelerate launch` was told.
        threads: CPU threads per process; 0 for the cores of this machine divided by its processes.
    """
    set_threads(threads)
    on_cpu = cpu or not torch.accelerator.is_available()
    mode = "no" if precision == "float64" else precision
    if precision == "auto":
        mode = "bf16" if on_cpu and cpu_has_bf16() else os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if on_cpu and mode == "fp16":
        raise UsageError("--precision fp16 needs an accelerator; on a CPU use bf16 or no")
    # Accelerate keeps its state for the life of the process; a second run in it may want another precision.
    AcceleratorState._reset_state(reset_partial_state=int(os.environ.get("WORLD_SIZE", "1")) == 1)
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)]
    return Accelerator(cpu=cpu, mixed_precision=mode, kwargs_handlers=handlers)


def leave(accelerator: Accelerator) -> None:
    """Wait for the other processes and leave their group: a process that just ends can abort the others' last messages."""
    if accelerator.num_processes > 1:
        accelerator.wait_for_everyone()
        accelerator.state.destroy_process_group()


def set_threads(threads: int = 0) -> int:
    """Set and return the number of CPU threads: a fixed number, so that results do not depend on the moment."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if threads <= 0:
        threads = max(1, available_cores() // local)
    torch.set_num_threads(threads)
    return threads


def available_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def describe() -> dict[str, str]:
    """Return versions, platform and command line, for results.json."""
    return {
        "avplatform": _version("avplatform"),
        "torch": torch.__version__,
        "accelerate": _version("accelerate"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "command": " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
