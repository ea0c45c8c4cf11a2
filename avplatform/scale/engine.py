"""Share items of work among the nodes of a Ray cluster.

The items stream through Ray Data to a pool of actors; each actor passes its items on to a child
process, and returns rows of key, status, text and seconds. A row is small, and no error of an item
ever reaches Ray: what Ray repeats after the loss of a node are only calls, and the work of a call
that was done is found done.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import secrets
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from avplatform.models.errors import AVError, DataError, UsageError, counted, one_line
from avplatform.scale.child import Answer, Child, Work
from avplatform.scale.options import EngineOptions
from avplatform.version import __version__

RETRIES = 20
"""How often Ray repeats a call; it does so several times a second while it learns of a loss."""
RESTARTS = 10
"""How often Ray starts a worker anew that was lost, which could otherwise go on for ever."""
PASSES = 5
"""How often in turn new workers may get the items that are left, without one of them done."""
LOW_MEMORY = "running low on memory"
"""What Ray says when its monitor has ended workers for the memory of their node."""
BLOCK = 32
"""Most items of a call."""
WAVE = 100_000
"""Most items that are handed to Ray at once, which bounds the memory of this process."""
STORE = 200 * 2**20
"""Bytes of the object store on one machine; rows are small."""


def import_ray(*, alone: bool = False) -> Any:
    """Return Ray, which sends no usage statistics.

    Args:
        alone: a cluster will be started on this machine; it then gets a token, so that no other
            user of the machine can use it. Ray reads the token while it is imported.

    Raises:
        UsageError: it is not installed, or does not run on this system.
    """
    if os.name != "posix":
        raise UsageError("--engine ray needs Linux or macOS; leave it out")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters comes as an exception
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # as those of its own statistics
    # Without this, what Ray ends for the memory of its node is begun again for ever.
    os.environ.setdefault("RAY_task_oom_retries", "5")
    if alone and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray
        import ray.data
    except ImportError:
        raise UsageError('--engine ray needs Ray: pip install "avplatform[scale]"') from None
    return ray


@contextlib.contextmanager
def connected(options: EngineOptions) -> Iterator[Any]:
    """Connect to a cluster, or start one on this machine, in a `with` block that gets Ray.

    Raises:
        UsageError: Ray is not installed.
        DataError: no cluster answers at the address.
    """
    from avplatform.base.machine import available_cores  # with torch, which actors do not need

    address = options.address or os.environ.get("RAY_ADDRESS")
    ray = import_ray(alone=not address)
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            ray.init(
                address="local",
                num_cpus=max(available_cores(), options.workers * options.worker_cpus),
                include_dashboard=False,
                object_store_memory=STORE,
                **quiet,
            )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        text = one_line(error)
        raise DataError(
            f"no Ray cluster can be reached at {address or 'this machine'} ({text}); give the "
            "--address that `ray start --head` printed"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def share(
    make: Callable[[], Work],
    items: Sequence[dict[str, Any]],
    options: EngineOptions,
    *,
    told: Callable[[str, Answer], None] = lambda key, answer: None,
    cpu: bool = False,
) -> dict[str, Answer]:
    """Do items on the nodes of a cluster; return what became of each, by its key.

    Args:
        make: picklable function that returns the `Work`; called once in every child process.
        items: what to do; each has a unique "key" and a "name" for messages. An item may be done
            twice where a node is lost, so that the work must be the same the second time.
        options: the cluster and its workers.
        told: called with the key and the answer of each item, when it has one.
        cpu: the work needs no GPU.

    Raises:
        UsageError: Ray is missing, or the cluster has no room for one worker.
        DataError: the cluster cannot be reached, or a worker cannot work at all.
    """
    found: dict[str, Answer] = {}
    if not items:
        return found
    with connected(options) as ray:
        for first in range(0, len(items), WAVE):
            wave = items[first : first + WAVE]
            passes = 0
            while wave:
                before = len(found)
                try:
                    for key, answer in _rows(ray, make, wave, options, cpu):
                        if answer.status == "stop":
                            text = f"{answer.text}; what is done stays: mend this and go on"
                            raise DataError(text)
                        if key not in found:  # else it was repeated with its node
                            found[key] = answer
                            told(key, answer)
                    break
                except AVError:
                    raise
                except Exception as error:  # those of Ray Data have no common class
                    passes = passes + 1 if len(found) == before else 0
                    full = LOW_MEMORY in str(error)
                    if passes == PASSES or (full and passes):
                        remedy = ", with fewer --workers or with --worker-memory" if full else ""
                        raise DataError(
                            f"the cluster gave up ({one_line(error, 300)}); what is "
                            f"done stays: run the same command again{remedy}"
                        ) from None
                wave = [item for item in wave if item["key"] not in found]
    lost = [item["name"] for item in items if item["key"] not in found]
    if lost:
        raise DataError(
            f"the cluster returned nothing about {counted(len(lost), 'item')} ({lost[0]} is the "
            "first); run the same command again to go on"
        )
    return found


def _rows(
    ray: Any,
    make: Callable[[], Work],
    items: Sequence[dict[str, Any]],
    options: EngineOptions,
    cpu: bool,
) -> Iterator[tuple[str, Answer]]:
    """Yield the key and the answer of items, in the order in which they are done."""
    from ray.data import ActorPoolStrategy, DataContext

    workers, gpus = room(ray, options, len(items), cpu=cpu)
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.execution_options.preserve_order = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    size = max(1, min(BLOCK, len(items) // (4 * workers)))
    blocks = [
        pa.table({"item": [pickle.dumps(item) for item in items[start : start + size]]})
        for start in range(0, len(items), size)
    ]
    limits = {
        "seconds": options.worker_seconds,
        "memory": options.worker_memory,
        "folder": os.getcwd(),
        "version": __version__,
    }
    pool = ActorPoolStrategy(
        min_size=1, max_size=workers, initial_size=workers, max_tasks_in_flight_per_actor=2
    )
    with warnings.catch_warnings(action="ignore"):  # there is no named argument for retries yet
        rows = ray.data.from_arrow(blocks).map_batches(
            Worker,
            fn_constructor_args=(pickle.dumps(make), limits),
            compute=pool,
            batch_size=1,
            num_cpus=options.worker_cpus,
            num_gpus=gpus or None,
            memory=int(options.worker_memory * 2**30) or None,
            max_restarts=RESTARTS,
            max_task_retries=RETRIES,
        )
    for batch in rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for row in batch.to_pylist():
            text = row.pop("text").decode("utf-8", "surrogatepass")  # names of files may be odd
            yield row.pop("key"), Answer(text=text, **row)


class Worker:
    """An actor of the cluster, with its child process."""

    def __init__(self, make: bytes, limits: dict[str, Any]) -> None:
        self.child = Child(make, **limits)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Do the items of a batch."""
        rows: dict[str, list[Any]] = {"key": [], "status": [], "text": [], "seconds": []}
        for packed in batch["item"]:
            item = pickle.loads(packed)
            answer = self.child.do(item)
            rows["key"].append(item["key"])
            rows["status"].append(answer.status)
            rows["text"].append(answer.text.encode("utf-8", "surrogatepass"))
            rows["seconds"].append(answer.seconds)
        return rows


def room(ray: Any, options: EngineOptions, items: int, *, cpu: bool = False) -> tuple[int, float]:
    """Return the number of workers, and the GPUs of each.

    Raises:
        UsageError: no node has room for one worker, so that Ray would wait for ever.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = options.worker_gpus
    if gpus is None:
        gpus = 1.0 if not cpu and any(node.get("GPU") for node in nodes) else 0.0
    wanted = {"CPU": options.worker_cpus, "GPU": gpus, "memory": options.worker_memory * 2**30}
    wanted = {name: amount for name, amount in wanted.items() if amount}
    rooms = [
        min(int(node.get(name, 0) / amount + 1e-9) for name, amount in wanted.items())
        for node in nodes
    ]
    if not sum(rooms):
        has = "; ".join(f"{n.get('CPU', 0):g} CPUs, {n.get('GPU', 0):g} GPUs" for n in nodes)
        raise UsageError(
            f"no node of the cluster has room for a worker of {options.worker_cpus} CPUs and "
            f"{gpus:g} GPUs (nodes: {has}); lower --worker-cpus, --worker-gpus or --worker-memory"
        )
    return max(1, min(options.workers or sum(rooms), items)), gpus
