"""What the processes of a run do together: one acts for all, and all learn if it fails."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, broadcast_object_list, gather_object
from safetensors import SafetensorError
from torch import Tensor, nn

from avplatform.models.errors import AVError, DataError, one_line

T = TypeVar("T")
LONG = 10_000
"""Characters of an error in which a cause is looked for."""


def on_main(accelerator: Accelerator, act: Callable[[], T]) -> T:
    """Call `act` on the main process; return its result, or raise its error, on every process.

    Every process has to call this. If only the main process raised the error, the others would wait
    for it until they time out.
    """
    answer: list[Any] = [None]  # the result or the error; broadcasting fills it on the others
    if accelerator.is_main_process:
        try:
            answer = [act()]
        except Exception as error:
            if isinstance(error, AVError):
                error.shared = True
            answer = [error]
    if accelerator.num_processes > 1:
        try:
            broadcast_object_list(answer)
        except RuntimeError as error:
            raise explain(error, accelerator) from None
    if isinstance(answer[0], Exception):
        raise answer[0]
    return answer[0]


def on_each(accelerator: Accelerator, act: Callable[[], T]) -> list[T]:
    """Call `act` on every process; return all results, or raise one error, on every process.

    Every process has to call this. The results have to be picklable. If only one process raised its
    error, the others would wait for it until they time out; so the error of the first process that
    failed is raised on all.
    """
    if accelerator.num_processes == 1:
        return [act()]
    result, failure = None, None
    try:
        result = act()
    except Exception as error:
        failure = error
    # Our own errors can be sent to another process (pickled); other error classes may fail to.
    sent = (
        RuntimeError(f"{type(failure).__name__}: {failure}")
        if failure and not isinstance(failure, AVError)
        else failure
    )
    answers: list[tuple[Any, Exception | None]] = gather_object([(result, sent)])
    for _, found in answers:
        if found is not None:
            if isinstance(found, AVError):
                found.shared = True
            raise found from failure
    return [answer for answer, _ in answers]


def error_on_all(message: str) -> DataError:
    """Return an error that every process of the run raises and the command line prints once."""
    error = DataError(message)
    error.shared = True
    return error


def share_buffers(accelerator: Accelerator, model: nn.Module) -> None:
    """Give the buffers of a model, such as those of batch norms, the values of the main process.

    Each process updates the statistics of its batch norms with its own clips. Before a model is
    scored or saved, all processes have to call this, so that they have the same model.
    """
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            buffer.copy_(broadcast(buffer.clone()))


def mean_over_processes(
    accelerator: Accelerator, values: dict[str, Tensor | float]
) -> dict[str, float]:
    """Return the mean of each scalar over the processes, in float64."""
    scalars = [torch.as_tensor(value).detach() for value in values.values()]
    double = accelerator.num_processes > 1 or any(s.dtype == torch.float64 for s in scalars)
    # Some devices have no float64, but a run on them has one process.
    dtype = torch.float64 if double else torch.float32
    stacked = torch.stack([scalar.to(accelerator.device, dtype) for scalar in scalars])
    stacked = accelerator.reduce(stacked, reduction="mean")
    return dict(zip(values, stacked.tolist(), strict=True))


def explain(error: Exception, accelerator: Accelerator, *, compiled: bool = False) -> Exception:
    """Return an error that says what to do if the cause is known, else the error itself.

    Args:
        error: what a library or the system raised during training.
        accelerator: says whether there are other processes, which may be the cause.
        compiled: whether the model was compiled with torch.compile.
    """
    text, module = one_line(error, LONG), type(error).__module__
    if accelerator.num_processes > 1 and _is_lost_process(error):
        return DataError(
            "another process of this run has ended, so this one ends too; the message of the other "
            "one says why. Go on with --resume"
        )
    no_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    if no_memory or "can't allocate memory" in text:
        return DataError(
            "out of memory; lower --batch-size, or raise --accumulation for the same step in "
            "smaller pieces"
        )
    disk_codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
    full = isinstance(error, OSError) and error.errno in disk_codes
    if full or (isinstance(error, SafetensorError) and "os error" in text.lower()):
        return DataError(
            f"cannot write the run's files ({text[:300]}); make room, then go on with --resume"
        )
    if compiled and module.startswith(("torch._dynamo", "torch._inductor")):
        return DataError(f"torch.compile failed ({text[:300]}); leave --compile out")
    return error


def _is_lost_process(error: Exception) -> bool:
    """Return whether the error says that another process of the run does not answer any more."""
    marks = ("connection closed by peer", "connection reset", "gloo/transport", "broken pipe")
    if not isinstance(error, RuntimeError):
        return False
    text = one_line(error, LONG).lower()
    return isinstance(error, torch.distributed.DistError) or any(mark in text for mark in marks)
