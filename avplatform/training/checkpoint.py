"""Checkpoints without pickles: weights and optimiser moments as safetensors, the rest as JSON, all with their sha256.

A checkpoint is a folder checkpoints/<step>/ that appears whole or not at all; should a file of it be damaged later, the
digests tell, and a run goes on from the checkpoint before. The random stream of a step follows from (seed, step, process),
so no generator state needs saving.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from avplatform.base.files import disk_errors, recover
from avplatform.models.errors import DataError
from avplatform.models.files import file_sha256, save_tensors, write_atomic

STATE = "state.json"


def save_checkpoint(
    folder: Path, *, tensors: Mapping[str, Mapping[str, Tensor]], state: dict[str, Any]
) -> Path:
    """Write checkpoints/<step>/.

    Args:
        folder: the run's checkpoints/.
        tensors: file name (without suffix) -> named tensors, such as {"model": ..., "optimizer": ...}.
        state: JSON-ready; holds "step".

    Raises:
        DataError: the disk is full or cannot be written.
    """
    return _write(folder / str(state["step"]), tensors, state)


def load_checkpoint(
    path: Path, *, checked: bool = False
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Return the tensors by file name and the state of a checkpoint.

    Args:
        path: its folder.
        checked: its digests were just compared (`newest_whole` does); comparing them again would read all of it twice, and
            once more on every process.

    Raises:
        DataError: a file is missing or damaged.
    """
    state = _state(path) if checked else check_checkpoint(path)
    try:
        return {
            name.removesuffix(".safetensors"): load_file(path / name) for name in state.pop("files")
        }, state
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from None


def check_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's state after comparing the digest of every file.

    Raises:
        DataError: a file is missing or damaged.
    """
    state = _state(path)
    try:
        for name, digest in state["files"].items():
            if file_sha256(path / name) != digest:
                raise DataError(f"checkpoint {path} is damaged: {name} is not what was written")
    except (OSError, KeyError, AttributeError) as error:
        raise _damaged(path, error) from None
    return state


def newest_whole(folder: Path, *, note: Callable[[str], object]) -> Path | None:
    """Return the newest checkpoint that is whole, with the best weights that it refers to; None where there is none.

    Newer ones that are damaged are renamed to damaged-<step>, and `note` is told why.
    """
    recover(folder)
    for step in reversed(checkpoint_steps(folder)):
        path = folder / str(step)
        try:
            best = check_checkpoint(path).get("best") or {}
            if best:
                check_checkpoint(folder / f"best-{best['step']}")
            return path
        except DataError as error:
            note(f"{error}; falling back to the one before")
            aside = folder / f"damaged-{step}"
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
    return None


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
        try:
            needed.add(
                (json.loads((folder / str(step) / STATE).read_bytes()).get("best") or {}).get(
                    "step"
                )
            )
        except (OSError, ValueError, AttributeError):
            return  # damaged by somebody else; what it refers to is not known, so nothing more is deleted
    for path in folder.glob("best-*"):
        if path.name not in {f"best-{step}" for step in needed}:
            shutil.rmtree(path, ignore_errors=True)


def save_best(folder: Path, weights: Mapping[str, Tensor], *, step: int) -> Path:
    """Write checkpoints/best-<step>/: the weights of the best epoch so far."""
    return _write(folder / f"best-{step}", {"model": weights}, {"step": step})


def load_best(folder: Path, *, step: int) -> dict[str, Tensor]:
    """Return the best epoch's weights.

    Raises:
        DataError: they are missing or damaged.
    """
    return load_checkpoint(folder / f"best-{step}")[0]["model"]


def _write(
    target: Path, tensors: Mapping[str, Mapping[str, Tensor]], state: dict[str, Any]
) -> Path:
    def write(path: Path) -> None:
        path.mkdir(parents=True)
        files = {}
        for name, values in tensors.items():
            file = path / f"{name}.safetensors"
            save_tensors(values, file)
            files[file.name] = file_sha256(file)
        content = {**state, "files": files}
        (path / STATE).write_text(
            json.dumps({**content, "digest": _digest_of_state(content)}, indent=2)
        )

    with disk_errors(target):
        return write_atomic(target, write)


def _state(path: Path) -> dict[str, Any]:
    """Return a checkpoint's state after comparing its own digest.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        state = json.loads((path / STATE).read_bytes())
        right = state.pop("digest") == _digest_of_state(state)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from None
    if not right:
        raise DataError(f"checkpoint {path} is damaged: {STATE} is not what was written")
    return state


def _digest_of_state(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _damaged(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return DataError(f"checkpoint {path} is damaged ({reason})")


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """Return the moments of an optimiser as "kind/parameter name" -> tensor; `names` in the order of its parameters."""
    tensors = {}
    for index, entry in optimizer.state_dict()["state"].items():
        for kind, value in entry.items():
            tensors[f"{kind}/{names[index]}"] = torch.as_tensor(value)
    return tensors


def put_optimizer_tensors(
    optimizer: torch.optim.Optimizer, names: list[str], tensors: Mapping[str, Tensor]
) -> None:
    """Put what `optimizer_tensors` returned into an optimiser over the same parameters."""
    entries = {names.index(name): entry for name, entry in by_parameter(tensors).items()}
    optimizer.load_state_dict(
        {"state": entries, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def by_parameter(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return tensors called "kind/parameter name" as {parameter name: {kind: tensor}}."""
    entries: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        kind, name = key.split("/", 1)
        entries.setdefault(name, {})[kind] = value
    return entries
