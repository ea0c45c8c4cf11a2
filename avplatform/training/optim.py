"""Optimiser, gradient clipping and learning-rate schedules of every published recipe."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.config import at_least, in_range, one_of
from models.errors import UsageError


@dataclass(kw_only=True)
class OptimConfig:
    """The optimiser."""

    name: Literal["adam", "adamw"] = "adam"
    """adam, or adamw (decoupled weight decay)"""
    lr: float = 1e-3
    """learning rate, as it stands; scaled by the batch size only where lr_scaling says so"""
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"
    """scale lr by the clips of a step over lr_batch_size: not at all, in proportion, or by the square root"""
    lr_batch_size: int = 32
    """clips a step for which lr is meant (lr_scaling)"""
    betas: tuple[float, float] = (0.9, 0.999)
    """decay rates of Adam's two moments"""
    eps: float = 1e-8
    """Adam's epsilon"""
    weight_decay: float = 0.0
    """L2 penalty (adam) or decoupled decay (adamw)"""
    clip_norm: float | None = None
    """clip the total gradient norm to this value; none: no clipping"""
    fused: bool = True
    """use the fused kernels where they exist"""

    def __post_init__(self) -> None:
        one_of(self, "name", ("adam", "adamw"))
        one_of(self, "lr_scaling", ("none", "linear", "sqrt"))
        at_least(self, "lr_batch_size", 1)
        self.betas = (float(self.betas[0]), float(self.betas[1]))
        for name in ("lr", "eps"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise UsageError(f"optim.{name} is {value!r}; it must be a positive number")
        for beta in self.betas:
            if not 0 <= beta < 1:
                raise UsageError(f"optim.betas is {self.betas}; both must lie in [0, 1)")
        at_least(self, "weight_decay", 0)
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise UsageError(f"optim.clip_norm is {self.clip_norm!r}; it must be positive, or none for no clipping")


def scaled_lr(config: OptimConfig, clips: int) -> float:
    """Return the learning rate for steps of `clips` clips.

    Example:
        >>> scaled_lr(OptimConfig(lr=1e-3, lr_scaling="linear", lr_batch_size=32), 64)
        0.002
    """
    ratio = clips / config.lr_batch_size
    return config.lr * {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[config.lr_scaling]


@dataclass(kw_only=True)
class ScheduleConfig:
    """How the learning rate changes.

    Source: HAN, MM-Pyr and LEAP multiply by 0.1 every 10 epochs ("epoch_decay"); CMBS halves and PSP takes 0.8 after
    given epochs ("milestones"); AVE multiplies by 0.1 every 15,000 iterations ("step_decay"); VALOR warms up linearly
    for 10 epochs and then follows a cosine down to 1/100 ("warmup_cosine"). "late_decay" multiplies by `factor` once,
    after the share `after` of all steps.
    """

    name: Literal["constant", "epoch_decay", "milestones", "step_decay", "warmup_cosine", "late_decay"] = "constant"
    """shape of the schedule"""
    factor: float = 0.1
    """what each decay multiplies by"""
    every: int = 10
    """epochs (epoch_decay) or optimiser steps (step_decay) between decays"""
    milestones: tuple[int, ...] = ()
    """epochs after which milestones decays"""
    warmup_epochs: int = 10
    """epochs of linear warm-up (warmup_cosine)"""
    min_ratio: float = 0.01
    """where the cosine ends, as a share of the learning rate"""
    after: float = 0.75
    """share of all steps after which late_decay acts"""

    def __post_init__(self) -> None:
        names = ("constant", "epoch_decay", "milestones", "step_decay", "warmup_cosine", "late_decay")
        one_of(self, "name", names)
        if any(isinstance(m, bool) or not isinstance(m, int) for m in self.milestones):
            raise UsageError(f"schedule.milestones is {list(self.milestones)}; it must be a list of epochs, such as [10, 20]")
        self.milestones = tuple(self.milestones)
        at_least(self, "every", 1)
        at_least(self, "warmup_epochs", 0)
        for name in ("factor", "min_ratio", "after"):
            in_range(self, name, 0, 1)


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
        base_lr: the optimiser's learning rate.
        epoch: epoch that the step belongs to, counted from 1.
        step: steps taken before this one.
        epochs: epochs of the whole run.
        total_steps: steps of the whole run ("late_decay" needs it).

    Example:
        >>> learning_rate(ScheduleConfig(name="epoch_decay"), base_lr=1.0, epoch=11)
        0.1
    """
    if schedule.name == "epoch_decay":
        return base_lr * schedule.factor ** ((epoch - 1) // schedule.every)
    if schedule.name == "milestones":
        return base_lr * schedule.factor ** sum(epoch > m for m in schedule.milestones)
    if schedule.name == "step_decay":
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


def build_optimizer(module: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Build the optimiser over every parameter that takes gradients (biases and norm scales decay too)."""
    parameters = [p for p in module.parameters() if p.requires_grad]
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
    """Scale all gradients by min(1, clip_norm / (norm + 1e-6)); return the total L2 norm before clipping.

    Without a `clip_norm` the norm is measured and no gradient is touched.
    """
    parameters = list(parameters)
    if clip_norm is None:
        return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return nn.utils.clip_grad_norm_(parameters, clip_norm)
