"""Options of the optimiser and of the learning-rate schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from avplatform.models.checks import at_least, check_choices, in_range
from avplatform.models.errors import UsageError


@dataclass(kw_only=True)
class OptimConfig:
    """The optimiser."""

    name: Literal["adam", "adamw"] = "adam"
    """adam, or adamw (decoupled weight decay)"""
    lr: float = 1e-3
    """learning rate; not scaled by the batch size unless lr_scaling says so"""
    head_lr: float | None = None
    """learning rate of what init_from does not give, scheduled as lr is; none: docs/training.md"""
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"
    """scale lr with (clips per step / lr_batch_size): not at all, linearly, or by square root"""
    lr_batch_size: int = 32
    """clips per step for which lr is meant (lr_scaling)"""
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
        check_choices(self)
        at_least(self, "lr_batch_size", 1)
        self.betas = (float(self.betas[0]), float(self.betas[1]))
        for name in ("lr", "eps", *(() if self.head_lr is None else ("head_lr",))):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise UsageError(f"optim.{name} is {value!r}; it must be a positive number")
        for beta in self.betas:
            if not 0 <= beta < 1:
                raise UsageError(f"optim.betas is {self.betas}; both must lie in [0, 1)")
        at_least(self, "weight_decay", 0)
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise UsageError(
                f"optim.clip_norm is {self.clip_norm!r}; it must be positive, "
                "or none for no clipping"
            )


@dataclass(kw_only=True)
class ScheduleConfig:
    """The learning-rate schedule.

    Source: HAN, MM-Pyr and LEAP multiply by 0.1 every 10 epochs ("epoch_decay"); CMBS multiplies by
    0.5 and PSP by 0.8 after given epochs ("milestones"); AVE multiplies by 0.1 every 15,000
    iterations ("step_decay"); VALOR warms up linearly for 10 epochs and then follows a cosine down
    to 1/100 ("warmup_cosine"). "late_decay" multiplies by `factor` once, after the share `after` of
    all steps.
    """

    name: Literal[
        "constant", "epoch_decay", "milestones", "step_decay", "warmup_cosine", "late_decay"
    ] = "constant"
    """shape of the schedule"""
    factor: float = 0.1
    """factor by which each decay multiplies the learning rate"""
    every: int = 10
    """epochs (epoch_decay) or optimiser steps (step_decay) between decays"""
    milestones: tuple[int, ...] = ()
    """epochs after which the learning rate decays (milestones)"""
    warmup_epochs: int = 10
    """epochs of linear warm-up (warmup_cosine)"""
    min_ratio: float = 0.01
    """end of the cosine, as a share of the learning rate (warmup_cosine)"""
    after: float = 0.75
    """share of all steps after which the learning rate decays (late_decay)"""

    def __post_init__(self) -> None:
        check_choices(self)
        if any(isinstance(m, bool) or not isinstance(m, int) for m in self.milestones):
            raise UsageError(
                f"schedule.milestones is {list(self.milestones)}; it must be a list of epochs, "
                "such as [10, 20]"
            )
        self.milestones = tuple(self.milestones)
        at_least(self, "every", 1)
        at_least(self, "warmup_epochs", 0)
        in_range(self, ("factor", "min_ratio", "after"), 0, 1)
