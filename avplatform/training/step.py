"""One optimiser step: forward, loss, backward, clip, update."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from avplatform.tasks.batch import Batch
from avplatform.tasks.contracts import Task
from avplatform.training.optim import clip_gradients


@dataclass
class StepResult:
    """What a step measured before its update; each value is a mean over this process's clips."""

    losses: dict[str, Tensor] = field(default_factory=dict)
    total: Tensor | None = None
    grad_norm: Tensor | None = None
    skipped: bool = False
    """Whether the weights were left unchanged because the gradient was NaN or infinite."""


def optimisation_step(
    model: nn.Module,
    task: Task,
    batches: Batch | Sequence[Batch],
    optimizer: torch.optim.Optimizer,
    *,
    lr: float,
    clip_norm: float | None = None,
    accelerator: Accelerator | None = None,
    shares: Sequence[float] | None = None,
    measure_norm: bool = True,
    skip_nonfinite: bool = False,
    told: dict[str, Tensor] | None = None,
) -> StepResult:
    """Take one optimiser step on a batch, or on several micro-batches whose gradients add up.

    Args:
        model: the model, called as `model(audio, visual, motion)`, and with `asked` where the task
            asks for some of its labels only; it returns an `Output`.
        task: computes the loss terms, whose sum is minimised.
        batches: one batch, or the micro-batches of one optimiser step.
        optimizer: the optimiser; its learning rate is set to `lr`.
        lr: learning rate of this step.
        clip_norm: largest total gradient norm; None for no clipping.
        accelerator: does autocast, backward and the mean over processes; None for plain training
            in a single process.
        shares: weight of the mean loss of each micro-batch. Over all micro-batches and processes
            they add up to the number of processes, because gradients are averaged over processes:
            the result is the gradient of the mean loss of the global batch. Default: equal shares.
        measure_norm: measure the gradient norm for the result's `grad_norm` even without clipping.
        skip_nonfinite: leave the weights unchanged if the gradient is NaN or infinite. Processes
            share their gradients, so either all of them skip the step or none does.
        told: what the model is called with beside the features, in place of what the task asks.

    The gradients stay in place afterwards, so that they can be inspected; the next step clears
    them.
    """
    batches = [batches] if isinstance(batches, Batch) else list(batches)
    shares = [1.0 / len(batches)] * len(batches) if shares is None else list(shares)
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
    optimizer.zero_grad(set_to_none=True)

    asked = task.asked()
    chosen = told or ({} if asked is None else {"asked": asked})
    result = StepResult()
    for index, (batch, share) in enumerate(zip(batches, shares, strict=True)):
        last = index == len(batches) - 1
        # The processes exchange gradients once, with the last micro-batch.
        gradient_sync = (
            accelerator.no_sync(model)
            if accelerator is not None and not last
            else contextlib.nullcontext()
        )
        with gradient_sync:
            with accelerator.autocast() if accelerator is not None else contextlib.nullcontext():
                output = model(batch.audio, batch.visual, batch.motion, **chosen)
            losses = task.loss(output.parse, output.encoding, batch)
            total = torch.stack(list(losses.values())).sum()
            if accelerator is not None:
                accelerator.backward(total * share)
            else:
                (total * share).backward()
        for name, value in losses.items():
            result.losses[name] = result.losses.get(name, 0) + value.detach() * share
        result.total = (0 if result.total is None else result.total) + total.detach() * share

    scaler = accelerator.scaler if accelerator is not None else None
    if accelerator is not None and scaler is not None:
        accelerator.unscale_gradients(optimizer)
    if clip_norm is not None or measure_norm or skip_nonfinite:
        result.grad_norm = whole(clip_gradients(model.parameters(), clip_norm))
        if skip_nonfinite and scaler is None and not torch.isfinite(result.grad_norm):
            result.skipped = True
            return result
    optimizer.step()  # with fp16 the gradient scaler skips a non-finite step itself
    result.skipped = scaler is not None and bool(getattr(optimizer, "step_was_skipped", False))
    return result


@contextlib.contextmanager
def unchanged_buffers(model: nn.Module) -> Iterator[None]:
    """Restore the buffers of a model at the end, such as the statistics of its batch norms.

    A forward pass in training mode changes them, also one that trains nothing.
    """
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, values in before:
                buffer.copy_(values)


def whole(value: Tensor) -> Tensor:
    """Return the full value of a scalar that may be sharded over processes (FSDP)."""
    return value.full_tensor() if is_distributed(value) else value  # type: ignore[attr-defined]


def is_distributed(value: Tensor) -> bool:
    """Return whether each process holds a part of a tensor (DTensor).

    torch.distributed.tensor, whose import takes a second, is not imported for this: as long as
    nobody has imported it, no tensor is of its kind.
    """
    tensors = sys.modules.get("torch.distributed.tensor")
    return tensors is not None and isinstance(value, tensors.DTensor)
