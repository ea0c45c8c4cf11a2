"""How the events that a user lists become the labels of a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

When = Literal["always", "timed", "training"]


@dataclass(frozen=True, kw_only=True)
class FromEvents:
    """The labels that a task makes of events; a task without it cannot be taught by a list.

    Args:
        labels: the names of the labels, and when they are known: always, only where the times of
            events are known ("timed"), or there and in training clips alone ("training").
        make: makes the labels of clips. It is given, as float32 [N, T, C], the share of each
            segment in which a class is heard, and the same for what is seen; 0 where it does not
            count as active, and 1 everywhere for a class that is somewhere in the clip. It returns
            arrays [N, ...] by name, of uint8 (0 or 1) or int64 (positions of classes).
        classes: returns the classes of a store whose events are of the given classes.
        one_at_a_time: whether a segment has one class at most.
    """

    labels: Mapping[str, When]
    make: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]
    classes: Callable[[Sequence[str]], Sequence[str]] = list
    one_at_a_time: bool = False
