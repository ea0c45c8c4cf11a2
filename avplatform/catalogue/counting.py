"""The floating-point operations of what runs on torch's meta device.

Nothing is computed there, but torch works the shapes of a result out in Python, which takes up to a
millisecond for one operation. The cells of the catalogue repeat the same operations on the same
shapes, so what was worked out once is looked up.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Known = tuple[list[tuple[Any, ...]], bool, int]
"""The shape, strides and type of each result, whether there is but one, and the operations."""
KNOWN: dict[Any, Known] = {}
"""What was worked out, by the function and the shapes and values that it was called with."""


class MetaCounter(TorchDispatchMode):
    """Counts in a `with` block as torch's `FlopCounterMode` does; the count is in `total`."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return what a function of torch returns, and count its operations."""
        kwargs = kwargs or {}
        key = (func, _described(args), _described(kwargs)) if _returns_new(func) else None
        if key in KNOWN:
            shapes, alone, count = KNOWN[key]
            self.total += count
            made = [torch.empty_strided(a, b, dtype=c, device="meta") for a, b, c in shapes]
            return made[0] if alone else tuple(made)
        found = func(*args, **kwargs)
        counter = flop_registry.get(func._overloadpacket)
        count = counter(*args, **kwargs, out_val=found) if counter is not None else 0
        self.total += count
        alone = isinstance(found, Tensor)
        every = [found] if alone else found
        if key is not None and all(x.is_meta for x in every):
            KNOWN[key] = [(x.shape, x.stride(), x.dtype) for x in every], alone, count
        return found


@cache
def _returns_new(func: Any) -> bool:
    """Return whether a function only returns new tensors, and changes nothing."""
    schema = func._schema
    return not schema.is_mutable and all(
        str(result.type) == "Tensor" and result.alias_info is None for result in schema.returns
    )


def _described(value: Any) -> Any:
    """Return what a result on the meta device depends on: shapes, types, and values of others."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    if isinstance(value, (list, tuple)):
        return tuple(_described(one) for one in value)
    if isinstance(value, dict):
        return tuple((name, _described(one)) for name, one in value.items())
    return type(value), value
