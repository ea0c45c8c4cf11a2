"""Checkpoints without pickles: weights and optimiser moments as safetensors, the rest as JSON.

A checkpoint is a folder checkpoints/<step>/ that appears whole or not at all. The random stream of a step follows from
(seed, step, process), so no generator state needs saving.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from avplatform.training.run_folder import write_atomic
from models.errors import DataError


def save_checkpoint(folder: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> Path:
    """Write checkpoints/<step>/ with weights, optimiser and `state` (which holds "step")."""

    def write(path: Path) -> None:
        path.mkdir(parents=True)
        save_file(_weights(model), path / "model.safetensors")
        save_file(_optimizer_tensors(model, optimizer), path / "optimizer.safetensors")
        (path / "state.json").write_text(json.dumps(state, indent=2))

    return write_atomic(folder / str(state["step"]), write)


def load_checkpoint(path: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put a checkpoint into model and optimiser; return its state.

    Raises:
        DataError: a file is missing, damaged, or of another model.
    """
    try:
        state = json.loads((path / "state.json").read_text())
        model.load_state_dict(load_file(path / "model.safetensors"))
        tensors = load_file(path / "optimizer.safetensors")
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        entries: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            kind, name = key.split("/", 1)
            entries.setdefault(names.index(name), {})[kind] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": entries, "param_groups": groups})
    except (OSError, SafetensorError, json.JSONDecodeError, RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"checkpoint {path} cannot be read ({reason})") from None
    return state


def checkpoint_steps(folder: Path) -> list[int]:
    """Return the steps of the checkpoints in a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit() and p.is_dir())


def prune_checkpoints(folder: Path, keep: int, best_step: int | None) -> None:
    """Delete all but the newest `keep` checkpoints, and best weights that no kept checkpoint refers to."""
    steps = checkpoint_steps(folder)
    for step in steps[:-keep]:
        shutil.rmtree(folder / str(step), ignore_errors=True)
    needed = {best_step}
    for step in steps[-keep:]:
        best = json.loads((folder / str(step) / "state.json").read_text()).get("best") or {}
        needed.add(best.get("step"))
    for path in folder.glob("best-*"):
        if path.name not in {f"best-{step}" for step in needed}:
            shutil.rmtree(path, ignore_errors=True)


def save_best(folder: Path, model: nn.Module, *, step: int) -> Path:
    """Write checkpoints/best-<step>/: the weights of the best epoch so far."""

    def write(path: Path) -> None:
        path.mkdir(parents=True)
        save_file(_weights(model), path / "model.safetensors")

    return write_atomic(folder / f"best-{step}", write)


def load_best(folder: Path, model: nn.Module, *, step: int) -> None:
    """Put the best epoch's weights into the model."""
    model.load_state_dict(load_file(folder / f"best-{step}" / "model.safetensors"))


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    tensors = {}
    for index, entry in optimizer.state_dict()["state"].items():
        for kind, value in entry.items():
            tensors[f"{kind}/{names[index]}"] = torch.as_tensor(value).detach().cpu().contiguous()
    return tensors
