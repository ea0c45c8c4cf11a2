"""The position of a run: what changes from step to step besides tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Progress:
    """How far a run has come; saved with every checkpoint."""

    step: int = 0  # optimiser steps taken
    epoch: int = 1  # current epoch, counted from 1
    batch: int = 0  # batches of the current epoch that are done
    best: dict[str, Any] = field(default_factory=dict)  # epoch, step and value of the best epoch
    sums: dict[str, float] = field(default_factory=dict)  # by name, this epoch's losses added up
    summed: int = 0  # number of steps in `sums`
    skipped: int = 0  # steps without an update, because a loss or gradient was NaN or infinite
    skipped_in_a_row: int = 0  # those since the last step with an update
    seconds: float = 0.0  # wall time of training, before and after every resume
    cpu_seconds: float = 0.0
    validated: int = 0  # step of the last epoch's end, whether its validation was due or not
