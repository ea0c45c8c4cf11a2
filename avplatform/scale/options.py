"""The options of work that several machines share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from avplatform.models.checks import MAY_BE_URL, at_least, in_range
from avplatform.models.errors import UsageError


@dataclass(kw_only=True)
class EngineOptions:
    """Where work is done: on this machine, or on the nodes of a Ray cluster."""

    engine: Literal["ray"] | None = None
    """ray: share the work among the nodes of a Ray cluster; default: this process does it"""
    address: Annotated[str | None, MAY_BE_URL] = None
    """address of a running Ray cluster, such as auto or HOST:6379; default: this machine's cores"""
    workers: int = 0
    """workers on all nodes of the cluster; 0: as many as it has room for"""
    worker_cpus: int = 1
    """cores of a worker, and the number of its threads"""
    worker_gpus: float | None = None
    """GPUs of a worker, such as 1 or 0.5; default: 1 where the cluster has GPUs, but for --cpu"""
    worker_memory: float = 0.0
    """most memory of a worker in GiB (on the CPU); an item that needs more is left out; 0: any"""
    worker_seconds: float = 3600.0
    """most seconds that a worker may spend on one item, which is then left out"""


def check_engine(options: EngineOptions) -> None:
    """Check the options of the engine before anything is loaded.

    Raises:
        UsageError: an option of a cluster without a cluster, or a number out of range.
    """
    at_least(options, "workers", 0)
    at_least(options, "worker_cpus", 1)
    in_range(options, "worker_memory", 0, 1e6)
    in_range(options, "worker_seconds", 1, 1e9)
    if options.worker_gpus is not None:
        in_range(options, "worker_gpus", 0, 1024)
        if options.worker_gpus > 1 and options.worker_gpus % 1:
            raise UsageError(
                f"--worker-gpus {options.worker_gpus:g}: Ray shares one GPU; above 1, give a whole "
                "number"
            )
    if options.engine is None:
        default = EngineOptions()
        for name in vars(default):
            if getattr(options, name) != getattr(default, name):
                raise UsageError(
                    f"--{name.replace('_', '-')} is for work on a Ray cluster; give --engine ray "
                    "too, or leave it out"
                )
    elif getattr(options, "threads", 0):
        raise UsageError("--threads is for this machine alone; on a cluster, give --worker-cpus")
