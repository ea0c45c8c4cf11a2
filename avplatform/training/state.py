"""The state of a run: where it stands, saved as a checkpoint and restored from the newest whole one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avplatform.base.processes import on_all, on_main
from avplatform.models.errors import UsageError
from avplatform.training.checkpoint import (
    load_checkpoint,
    newest_whole,
    prune_checkpoints,
    save_checkpoint,
)
from avplatform.training.progress import Progress
from avplatform.training.weights import (
    model_weights,
    optimizer_state,
    put_model_weights,
    put_optimizer_state,
)

if TYPE_CHECKING:
    from avplatform.training.setup import RunSetup


def save_state(run: RunSetup) -> None:
    """Write a checkpoint of the run and delete old ones; every process calls it.

    Raises:
        DataError: the weights are no longer finite, or the disk cannot be written.
    """
    tensors: dict[str, dict[str, Tensor]] = {"model": model_weights(run.trained_model)}
    if not all(
        bool(torch.isfinite(v).all()) for v in tensors["model"].values() if v.is_floating_point()
    ):
        raise on_all(
            f"the weights became NaN or infinite before step {run.progress.step}; lower --optim.lr, set --optim.clip-norm, or "
            f"skip such steps with --on-nan skip. The last whole state is in {run.folder.checkpoints}"
        )
    tensors["optimizer"] = optimizer_state(run.trained_model, run.optimizer)
    if run.average is not None:
        tensors["average"] = run.average.weights()
    if kept := run.task.state():
        tensors["task"] = kept
    scaler = run.accelerator.scaler
    state = {
        **vars(run.progress),
        "processes": run.accelerator.num_processes,
        "scaler": scaler.state_dict() if scaler is not None else None,
    }

    def write() -> None:
        save_checkpoint(run.folder.checkpoints, tensors=tensors, state=state)
        prune_checkpoints(
            run.folder.checkpoints, run.config.checkpointing.keep, run.progress.best.get("step")
        )

    on_main(run.accelerator, write)


def restore_state(run: RunSetup) -> None:
    """Put the newest whole checkpoint into the run, if it has one, and drop the records that it will make again.

    Raises:
        UsageError: the number of processes changed where a step's clips depend on it.
        DataError: the checkpoint is of another model.
    """
    path = on_main(
        run.accelerator, lambda: newest_whole(run.folder.checkpoints, note=run.console.note)
    )
    if path is not None:
        tensors, state = load_checkpoint(path, checked=True)
        before, now = state.pop("processes"), run.accelerator.num_processes
        if run.config.batch_scope == "process" and before != now:
            raise UsageError(
                f"the run had {before} processes and batches of {run.config.batch_size} clips for each; resume it with "
                f"as many, not {now}: otherwise its steps change"
            )
        scaler = state.pop("scaler")
        if scaler and run.accelerator.scaler is not None:
            run.accelerator.scaler.load_state_dict(scaler)
        put_model_weights(run.trained_model, tensors["model"])
        put_optimizer_state(run.trained_model, run.optimizer, tensors["optimizer"])
        if run.average is not None:
            run.average.load(tensors["average"], run.trained_model)
        run.task.load_state(tensors.get("task", {}))
        run.progress = Progress(**state)
    progress = run.progress
    on_main(run.accelerator, lambda: run.folder.rewind(progress.step, validated=progress.validated))
