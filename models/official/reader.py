"""What the readers of official checkpoints share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn


class Reader:
    """Knows one published model: how to build ours from its shapes, and which of its keys is which of our parameters.

    `rules` are (pattern, replacement) pairs for whole names; `unused_patterns` match keys that published checkpoints hold
    but their forward pass never reads; `not_in_checkpoint` are our names that the checkpoint does not hold.
    """

    rules: tuple[tuple[str, str], ...] = ()
    unused_patterns: tuple[str, ...] = ()
    not_in_checkpoint: tuple[str, ...] = ()
    reshaped: Mapping[str, str] = {}  # official name -> ours, where the same values have another shape

    def __init__(
        self,
        *,
        heads: int | None = None,
        norm: Literal["post", "pre"] = "post",
        weak: bool = False,
        label_embeddings: Tensor | None = None,
    ) -> None:
        self.heads, self.norm, self.weak, self.label_embeddings = heads, norm, weak, label_embeddings

    def build(self, tensors: Mapping[str, Tensor]) -> nn.Module:
        """Build our module, with the sizes that the shapes tell."""
        raise NotImplementedError

    def unused(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Return the keys that the published forward pass never reads."""
        return [name for name in tensors if any(re.fullmatch(p, name) for p in self.unused_patterns)]

    def key_map(self, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """Return {official name: our name} of the keys that are used."""
        unused, keys = set(self.unused(tensors)), {}
        for name in tensors:
            if name in unused:
                continue
            if name in self.reshaped:
                keys[name] = self.reshaped[name]
                continue
            for pattern, ours in self.rules:
                if re.fullmatch(pattern, name):
                    keys[name] = re.sub(pattern, ours, name)
                    break
        return keys


def unit_rules(prefix: str, ours: str, *, groups: int = 1) -> tuple[tuple[str, str], ...]:
    """Return the rules of one attention unit of MM-Pyr or LEAP; `prefix` is a pattern with that many groups."""
    last = rf"\{groups + 1}"
    parts = {
        r"self_attn\.linears\.0": "attention.query",
        r"self_attn\.linears\.1": "attention.key",
        r"self_attn\.linears\.2": "attention.value",
        r"self_attn\.linears\.3": "attention.output",
        r"feed_forward\.w_1": "feedforward.inner",
        r"feed_forward\.w_2": "feedforward.outer",
        r"sublayer\.0\.norm": "attention_norm",
        r"sublayer\.1\.norm": "feedforward_norm",
    }
    return tuple((rf"{prefix}{pattern}\.(.+)", f"{ours}{name}.{last}") for pattern, name in parts.items())


def clean(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip the "module." of a data-parallel wrapper."""
    return {name.removeprefix("module."): value for name, value in tensors.items()}


def need(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """Return a tensor that the sizes are read from.

    Raises:
        DataError: it is not there.
    """
    from models.errors import DataError

    if name not in tensors:
        raise DataError(f"the checkpoint has no '{name}'; is it of this model?")
    return tensors[name]
