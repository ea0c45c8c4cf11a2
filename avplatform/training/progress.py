"""Where a run stands between two steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Progress:
    """Where a run stands; it is saved with every checkpoint."""

    step: int = 0
    epoch: int = 1
    batch: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)  # of the losses of this epoch,
    summed: int = 0  # over so many steps
    skipped: int = 0  # steps without an update, because of NaN
    skipped_in_a_row: int = 0
    seconds: float = 0.0  # of all processes that worked on the run one after the other
    cpu_seconds: float = 0.0
    validated: int = 0  # step of the last validation
