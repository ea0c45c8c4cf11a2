"""Whether finite differences stay clear of the points where a function has no derivative."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Kinks(TorchFunctionMode):
    """Records on which side of each kink a computation runs, and refuses one on another side.

    Kinks are those of relu, leaky_relu, abs, clamp, normalize, maximum and minimum over an axis,
    the largest k, and comparisons of real numbers (hard decisions, pruning). Enter it around each
    computation; the first one is what others are compared with.

    Raises:
        AssertionError: a computation lies on another side of a kink than the first one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first: list[tuple[str, Tensor]] = []
        self.recording, self.position = True, 0

    def __enter__(self) -> Kinks:
        self.position = 0
        return super().__enter__()

    def __exit__(self, kind, value, trace) -> None:
        super().__exit__(kind, value, trace)
        if kind is None:
            assert self.recording or self.position == len(self.first), (
                "a computation has fewer kinks"
            )
            self.recording = False

    @property
    def watched(self) -> Counter[str]:
        """How many numbers stood beside a kink, by the kind of kink."""
        found: Counter[str] = Counter()
        for name, side in self.first:
            found[name] += side.numel()
        return found

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = getattr(function, "__name__", "").strip("_")
        if name in SIDES and isinstance(args[0], Tensor) and args[0].is_floating_point():
            self._compare(name, SIDES[name](result, *args, **(kwargs or {})))
        return result

    def _compare(self, name: str, side: Tensor) -> None:
        if self.recording:
            self.first.append((name, side))
            return
        assert self.position < len(self.first), "a computation has more kinks"
        expected = self.first[self.position]
        assert expected[0] == name and torch.equal(expected[1], side), (
            f"a finite difference crosses a kink of {name}"
        )
        self.position += 1


def _clamp(result: Tensor, x: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    low, high = (-torch.inf if min is None else min), (torch.inf if max is None else max)
    return (x > low).long() + (x >= high).long()


def _extreme(result: Tensor, x: Tensor, dim: int, keepdim: bool = False) -> Tensor:
    return x == (result if keepdim else result.unsqueeze(dim))


SIDES = {
    "relu": lambda result, x, **options: x > 0,
    "leaky_relu": lambda result, x, **options: x > 0,
    "abs": lambda result, x: x > 0,
    "clamp": _clamp,
    "normalize": lambda result, x, dim=1, eps=1e-12, **options: x.norm(dim=dim) > eps,
    "amax": _extreme,
    "amin": _extreme,
    "topk": lambda result, x, k, dim: result[1].sort(dim=dim).values,
    **dict.fromkeys(("gt", "ge", "lt", "le"), lambda result, *args: result),
}
