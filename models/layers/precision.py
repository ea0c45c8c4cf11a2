"""Tensors in the precision of autocast."""

from __future__ import annotations

import torch
from torch import Tensor


def in_autocast(x: Tensor) -> Tensor:
    """Return a tensor in the precision that autocast gives to products, or as it is without it.

    Autocast casts the weights of a model once, but an input anew for each product that reads it.
    """
    kind = x.device.type
    if x.is_meta or not torch.is_autocast_enabled(kind):  # the meta device knows no autocast
        return x
    return x.to(torch.get_autocast_dtype(kind))
