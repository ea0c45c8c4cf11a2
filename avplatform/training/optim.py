"""Optimiser, gradient clipping, and the learning-rate schedules of the published recipes."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn

from avplatform.config.optim import OptimConfig, ScheduleConfig


def scaled_lr(config: OptimConfig, clips: int) -> float:
    """Return the learning rate, scaled as configured to steps of `clips` clips.

    Examples:
        >>> scaled_lr(OptimConfig(lr=1e-3, lr_scaling="linear", lr_batch_size=32), 64)
        0.002
    """
    ratio = clips / config.lr_batch_size
    return config.lr * {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[config.lr_scaling]


def learning_rate(
    schedule: ScheduleConfig,
    *,
    base_lr: float,
    epoch: int,
    step: int = 0,
    epochs: int = 1,
    total_steps: int | None = None,
) -> float:
    """Return the learning rate of one optimiser step.

    Args:
        schedule: the schedule.
        base_lr: learning rate that the schedule starts from.
        epoch: epoch that the step belongs to, counted from 1.
        step: number of steps taken before this one.
        epochs: number of epochs of the whole run.
        total_steps: number of steps of the whole run (needed by "late_decay").

    Examples:
        >>> learning_rate(ScheduleConfig(name="epoch_decay"), base_lr=1.0, epoch=11)
        0.1
    """
    if schedule.name == "epoch_decay":
        return base_lr * schedule.factor ** ((epoch - 1) // schedule.every)
    if schedule.name == "milestones":
        return base_lr * schedule.factor ** sum(epoch > m for m in schedule.milestones)
    if schedule.name == "step_decay":  # AVE's code steps the schedule before the optimiser: + 1
        return base_lr * schedule.factor ** ((step + 1) // schedule.every)
    if schedule.name == "warmup_cosine":
        warmup, low = schedule.warmup_epochs, base_lr * schedule.min_ratio
        if epoch < warmup:
            return base_lr * epoch / warmup
        progress = (epoch - warmup) / max(1, epochs - warmup)
        return low + (base_lr - low) / 2 * (1 + math.cos(math.pi * progress))
    if schedule.name == "late_decay":
        if total_steps is None:
            raise ValueError("late_decay needs total_steps")
        return base_lr * (schedule.factor if step >= schedule.after * total_steps else 1.0)
    return base_lr


def build_optimizer(
    module: nn.Module, config: OptimConfig, *, new: Collection[str] = (), scale: float = 1.0
) -> torch.optim.Optimizer:
    """Return the optimiser of all trainable parameters, with weight decay on every one of them.

    Biases and the scales of norms are not left out.

    Args:
        module: what to train; its attribute `lr_scales`, if it has one, gives factors of the
            learning rate by the beginning of a parameter's name, of which the first counts.
        config: the optimiser's options.
        new: names of the parameters that have another learning rate.
        scale: their learning rate as a multiple of that of the others.

    Parameters whose learning rate differs from `config.lr` form groups, whose "lr_scale" is their
    learning rate as a multiple of it. Of a module without parameters it optimises nothing.
    """
    scales: dict[str, float] = getattr(module, "lr_scales", {})
    groups: dict[float, list[Tensor]] = {1.0: []}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            factor = next((f for start, f in scales.items() if name.startswith(start)), 1.0)
            factor *= scale if name in new else 1.0
            groups.setdefault(factor, []).append(parameter)
    parameters = [{"params": found, "lr_scale": f} for f, found in groups.items() if found]
    parameters = parameters or [{"params": [torch.zeros(0)], "lr_scale": 1.0}]
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(
        parameters,
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True if config.fused else None,
    )


def clip_gradients(parameters: Iterable[Tensor], clip_norm: float | None) -> Tensor:
    """Clip the gradients to a total L2 norm and return the norm before clipping.

    All gradients are scaled by min(1, clip_norm / (norm + 1e-6)). If `clip_norm` is None, the norm
    is measured and no gradient changes.
    """
    parameters = list(parameters)
    if clip_norm is None:
        return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return nn.utils.clip_grad_norm_(parameters, clip_norm)
