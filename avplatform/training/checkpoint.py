"""Checkpoints without pickles: tensors as safetensors, the rest as JSON, with sha256 digests.

A checkpoint is a folder checkpoints/<step>/ that appears complete or not at all. If one of its
files is damaged later, the digests show it, and a run goes on from the checkpoint before it. The
random numbers of a step follow from (seed, step, process), so no generator state needs saving.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from avplatform.base.files import disk_errors, recover
from avplatform.models.errors import DataError, one_line
from avplatform.models.files import file_sha256, save_tensors, write_atomic

STATE = "state.json"


def save_checkpoint(
    folder: Path, *, tensors: Mapping[str, Mapping[str, Tensor]], state: dict[str, Any]
) -> Path:
    """Write checkpoints/<step>/ and return its path.

    Args:
        folder: the run's checkpoints/ folder.
        tensors: named tensors by file name (without suffix): {"model": ..., "optimizer": ...}.
        state: everything else, ready for JSON; holds "step".

    Raises:
        DataError: the disk is full or cannot be written.
    """
    return _write(folder / str(state["step"]), tensors, state)


def load_checkpoint(
    path: Path, *, checked: bool = False
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Return the tensors (by file name) and the state of a checkpoint.

    Args:
        path: the checkpoint's folder.
        checked: the digests were just compared, as `newest_whole` does. Comparing them again would
            read every file once more on every process.

    Raises:
        DataError: a file is missing or damaged.
    """
    state = _state(path) if checked else check_checkpoint(path)
    try:
        files = {name: load_file(path / name) for name in state.pop("files")}
        return {name.removesuffix(".safetensors"): file for name, file in files.items()}, state
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
                raise DataError(f"checkpoint {path} is damaged: {name} differs from what was saved")
    except (OSError, KeyError, AttributeError) as error:
        raise _damaged(path, error) from None
    return state


def newest_whole(folder: Path, *, note: Callable[[str], object]) -> Path | None:
    """Return the newest intact checkpoint, or None if there is none.

    The best weights that it refers to must be intact too. Newer checkpoints that are damaged are
    renamed to damaged-<step>, and `note` is called with the reason.
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
            note(f"{error}; falling back to the checkpoint before it")
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
    """Delete all but the newest `keep` checkpoints, and best weights that none of these needs."""
    steps = checkpoint_steps(folder)
    for step in steps[:-keep]:
        shutil.rmtree(folder / str(step), ignore_errors=True)
    needed = {best_step}
    for step in steps[-keep:]:
        try:
            state = json.loads((folder / str(step) / STATE).read_bytes())
            needed.add((state.get("best") or {}).get("step"))
        except (OSError, ValueError, AttributeError):
            # The checkpoint is damaged and may refer to any best weights, so none are deleted.
            return
    for path in folder.glob("best-*"):
        if path.name not in {f"best-{step}" for step in needed}:
            shutil.rmtree(path, ignore_errors=True)


def save_best(folder: Path, weights: Mapping[str, Tensor], *, step: int) -> Path:
    """Write checkpoints/best-<step>/: the weights of the best epoch so far."""
    return _write(folder / f"best-{step}", {"model": weights}, {"step": step})


def load_best(folder: Path, *, step: int) -> dict[str, Tensor]:
    """Return the best epoch's weights.

    Raises:
        DataError: the weights are missing or damaged.
    """
    return load_checkpoint(folder / f"best-{step}")[0]["model"]


def _write(
    target: Path, tensors: Mapping[str, Mapping[str, Tensor]], state: dict[str, Any]
) -> Path:
    """Write the folder `target`, complete or not at all, with the digest of every file."""

    def write(path: Path) -> None:
        path.mkdir(parents=True)
        files = {}
        for name, values in tensors.items():
            file = path / f"{name}.safetensors"
            save_tensors(values, file)
            files[file.name] = file_sha256(file)
        content = {**state, "files": files}
        content["digest"] = _digest_of_state(content)
        (path / STATE).write_text(json.dumps(content, indent=2), encoding="utf-8")

    with disk_errors(target):
        return write_atomic(target, write)


def _state(path: Path) -> dict[str, Any]:
    """Return a checkpoint's state after comparing the digest of the state itself.

    Raises:
        DataError: the state is missing or damaged.
    """
    try:
        state = json.loads((path / STATE).read_bytes())
        right = state.pop("digest") == _digest_of_state(state)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from None
    if not right:
        raise DataError(f"checkpoint {path} is damaged: {STATE} differs from what was saved")
    return state


def _digest_of_state(state: dict[str, Any]) -> str:
    """Return the sha256 of the state, which itself holds the digests of the tensor files."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _damaged(path: Path, error: Exception) -> DataError:
    reason = one_line(error)
    return DataError(f"checkpoint {path} is damaged ({reason})")
