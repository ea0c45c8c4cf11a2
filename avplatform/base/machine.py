"""The machine and the processes of a run: accelerator, precision, threads and their description."""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys

import accelerate
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType

from avplatform.base.packages import checkout_commit
from avplatform.models.errors import UsageError
from avplatform.version import __version__


def make_accelerator(
    *, cpu: bool = False, precision: str = "auto", threads: int = 0
) -> Accelerator:
    """Return the Accelerator of this process, with the threads and the precision of the run.

    Several processes that were launched for accelerators on a machine without any would each run
    alone; they are joined on the CPU instead. If that is impossible, the first one goes on alone
    and the others end.

    Args:
        cpu: stay on the CPU.
        precision: "no", "bf16", "fp16", "float64" (the caller makes the weights double), or "auto":
            what `accelerate launch` was told, otherwise bf16 on a CPU with bf16 instructions.
        threads: CPU threads per process; 0 for the cores of this machine divided by its processes.

    Raises:
        UsageError: fp16 on a CPU, FSDP of version 1, or a launcher's variable that is not a number.
        SystemExit: the first process goes on alone, and this is another one.
    """
    set_threads(threads)
    _launcher_number("LOCAL_RANK", -1)  # only checked here: Accelerate reads it
    launched = _launcher_number("WORLD_SIZE", 1)
    on_cpu = cpu or not torch.accelerator.is_available()
    mode = "no" if precision == "float64" else precision
    if precision == "auto":
        usual = "bf16" if on_cpu and cpu_has_bf16() else "no"
        mode = os.environ.get("ACCELERATE_MIXED_PRECISION") or usual
    if on_cpu and mode == "fp16":
        raise UsageError(
            "--precision fp16 (or --mixed_precision of accelerate launch) needs an accelerator; "
            "on a CPU use bf16 or no"
        )
    have_address = all(name in os.environ for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR"))
    join = launched > 1 and on_cpu and have_address
    # With cpu=True, Accelerate insists on a group; on a machine without accelerators it stays on
    # the CPU in any case.
    force_cpu = cpu and (launched == 1 or torch.accelerator.is_available())
    # Accelerate keeps its state while the process lives; a second run may want another precision.
    AcceleratorState._reset_state(reset_partial_state=launched == 1)
    # Gradients stay where they are summed, which saves a copy of all of them on each step.
    ddp = DistributedDataParallelKwargs(find_unused_parameters=True, gradient_as_bucket_view=True)
    accelerator = Accelerator(cpu=force_cpu or join, mixed_precision=mode, kwargs_handlers=[ddp])
    check_processes(accelerator, launched, joined=join and not cpu)
    if accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise UsageError(
            "only version 2 of FSDP is supported; set fsdp_version: 2 in the accelerate config"
        )
    return accelerator


def check_processes(accelerator: Accelerator, launched: int, *, joined: bool = False) -> None:
    """Check that the processes that were launched form one group.

    Args:
        accelerator: says how many processes are in the group.
        launched: the number of processes that were started, from WORLD_SIZE.
        joined: they were joined on the CPU for lack of accelerators; the first one says so.

    Raises:
        SystemExit: they do not form one group, and this is not the first.
    """
    first = _launcher_number("RANK", 0) == 0
    if accelerator.num_processes == launched:
        if joined and first:
            print(
                f"no accelerator on this machine: {launched} processes work together on the CPU",
                file=sys.stderr,
            )
        return
    if not first:
        sys.exit(0)
    print(
        f"{launched} processes were launched but they cannot reach each other; this one goes on "
        "alone, the others end. Start several with `torchrun --nproc_per_node N train.py --cpu`, "
        "or `accelerate launch` with its --multi_gpu config",
        file=sys.stderr,
    )


def leave(accelerator: Accelerator) -> None:
    """Wait for the other processes, then leave their group.

    A process that ends without this can abort the last messages of the others.
    """
    if accelerator.num_processes > 1:
        accelerator.wait_for_everyone()
        accelerator.state.destroy_process_group()


def set_threads(threads: int = 0) -> int:
    """Set and return the number of CPU threads, which is fixed so that results are reproducible.

    By default it is $OMP_NUM_THREADS, or the cores divided by the processes of a launcher, which
    sets that variable itself.
    """
    local = _launcher_number("LOCAL_WORLD_SIZE", 1)
    if threads <= 0:
        told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
        obey = local == 1 and told.isdecimal() and int(told) > 0
        threads = int(told) if obey else max(1, available_cores() // local)
    torch.set_num_threads(threads)
    return threads


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


def cpu_has_bf16() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def describe() -> dict[str, str]:
    """Return the versions, commit, platform, hardware and command line for results.json."""
    return {
        "avplatform": __version__,
        "commit": checkout_commit(),
        "torch": torch.__version__,
        "accelerate": accelerate.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": str(available_cores()),
        "memory": _memory(),
        "accelerators": _accelerators(),
        "command": _command(),
    }


def _command() -> str:
    """Return the command line, which a shell reads in the same way."""
    program = os.path.basename(sys.argv[0])
    programs = {"__main__.py": ["python", "-m", "avplatform"], "train.py": ["python", "train.py"]}
    return shlex.join([*programs.get(program, [program]), *sys.argv[1:]])


def _launcher_number(name: str, low: int) -> int:
    """Return the number in a variable that launchers set, or `low` if it is not set."""
    text = os.environ.get(name, str(low))
    if not re.fullmatch(r"-?[0-9]+", text) or int(text) < low:
        raise UsageError(
            f"the environment variable {name} is {text!r}, but launchers such as torchrun set it "
            "to a number; unset it"
        )
    return int(text)


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (ValueError, OSError, AttributeError):
        return "unknown"


def _accelerators() -> str:
    if not torch.accelerator.is_available():
        return "none"
    kind = torch.accelerator.current_accelerator()
    module = torch.get_device_module(kind)
    name = module.get_device_name() if hasattr(module, "get_device_name") else str(kind)
    return f"{torch.accelerator.device_count()} x {name}"


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
