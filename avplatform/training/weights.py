"""Weights and moments of a model that may be sharded (FSDP), and the average of weights (EMA)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from avplatform.models.errors import DataError, one_line
from avplatform.training.step import is_distributed, whole


def is_sharded(model: nn.Module) -> bool:
    """Return whether each process holds a part of the weights (FSDP).

    If so, every process has to call the functions below.
    """
    return any(is_distributed(p) for p in model.parameters())


def model_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the full weights by name, on every process."""
    if is_sharded(model):
        states, options = _states()
        weights: dict[str, Tensor] = states.get_model_state_dict(model, options=options)
        return weights
    return model.state_dict()


def put_model_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load full weights into a model; every process has to call it with all weights.

    Raises:
        DataError: the weights belong to another model.
    """
    with _fits_model():
        if is_sharded(model):
            states, options = _states()
            states.set_model_state_dict(model, dict(weights), options=options)
        else:
            model.load_state_dict(weights)


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's state as full tensors by "kind/parameter name".

    The kinds are torch's, such as "exp_avg" and "step". Every process has to call it.
    """
    names = _trained_names(model, optimizer)
    entries = _whole_state(model, optimizer).get("state", {})
    return {
        f"{kind}/{name if isinstance(name, str) else names[name]}": torch.as_tensor(value)
        for name, entry in entries.items()
        for kind, value in entry.items()
    }


def put_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Load what `optimizer_state` returned into an optimiser; every process has to call it.

    Raises:
        DataError: the state belongs to another model.
    """
    with _fits_model():
        entries: dict[Any, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            kind, name = key.split("/", 1)
            entries.setdefault(name, {})[kind] = value
        groups = _whole_state(model, optimizer)["param_groups"]
        if is_sharded(model):
            stored: Any = {"state": entries, "param_groups": groups}
            states, options = _states()
            states.set_optimizer_state_dict(model, _plain(optimizer), stored, options=options)
        else:
            names = _trained_names(model, optimizer)
            entries = {names.index(name): entry for name, entry in entries.items()}
            optimizer.load_state_dict({"state": entries, "param_groups": groups})


class WeightAverage:
    """Exponential moving average (EMA) of a model's weights, in float32 or wider, on their device.

    Args:
        model: the model whose weights start the average.
        decay: weight of the past, in [0, 1). In step n it is min(decay, (1 + n) / (10 + n)), so
            that the average soon forgets the random initial weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._values = {name: _wide(p.detach()) for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the model's weights, after optimiser step `step` (from 1)."""
        rate = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, parameter in model.named_parameters():
            value = self._values[name]
            value.lerp_(parameter.detach().to(value.dtype), rate)

    def weights(self) -> dict[str, Tensor]:
        """Return the full averaged parameters by name; every process has to call it."""
        return {name: whole(value) for name, value in self._values.items()}

    def load(self, weights: Mapping[str, Tensor], model: nn.Module) -> None:
        """Restore what `weights` returned, sharded like the parameters of `model`."""
        for name, parameter in model.named_parameters():
            value = weights[name]
            if is_distributed(parameter):
                from torch.distributed.tensor import distribute_tensor

                like: Any = parameter
                value = distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
            self._values[name].copy_(value)


def _wide(value: Tensor) -> Tensor:
    """Return a copy in float32, or in float64 where the value has it."""
    return value.clone() if value.dtype == torch.float64 else value.to(torch.float32, copy=True)


def _trained_names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Return the names of an optimiser's parameters, in the order in which it numbers them."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [names.get(id(p), "") for group in optimizer.param_groups for p in group["params"]]


@contextlib.contextmanager
def _fits_model() -> Iterator[None]:
    """Turn an error of the block into a DataError that says that the tensors do not fit."""
    try:
        yield
    except (RuntimeError, ValueError, KeyError) as error:
        raise DataError(f"the checkpoint is of another model ({one_line(error, 300)})") from None


def _whole_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the optimiser's state, by parameter name if it is sharded, else by position."""
    if is_sharded(model):
        states, options = _states()
        state: dict[str, Any] = states.get_optimizer_state_dict(
            model, _plain(optimizer), options=options
        )
        return state
    return optimizer.state_dict()


def _plain(optimizer: Any) -> torch.optim.Optimizer:
    """Return the optimiser inside Accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)


def _states() -> tuple[Any, Any]:
    """Return torch's functions for states of sharded models, and the options for full tensors.

    Their import takes seconds, and a model that no process shares needs none of them.
    """
    from torch.distributed.checkpoint import state_dict

    return state_dict, state_dict.StateDictOptions(full_state_dict=True)
