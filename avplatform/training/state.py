"""The state of a run: saved as a checkpoint, restored from the newest intact checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avplatform.base.processes import error_on_all, on_main
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
    from avplatform.training.setup import Setup


def save_state(setup: Setup, progress: Progress) -> None:
    """Write a checkpoint of the run and delete old ones; every process has to call it.

    Raises:
        DataError: the weights are not finite, or the disk cannot be written.
    """
    tensors: dict[str, dict[str, Tensor]] = {"model": model_weights(setup.trained_model)}
    if not all(
        bool(torch.isfinite(v).all()) for v in tensors["model"].values() if v.is_floating_point()
    ):
        raise error_on_all(
            f"the weights became NaN or infinite before step {progress.step}; lower --optim.lr, "
            "set --optim.clip-norm, or skip such steps with --on-nan skip. "
            f"The last good checkpoint is in {setup.folder.checkpoints}"
        )
    tensors["optimizer"] = optimizer_state(setup.trained_model, setup.optimizer)
    if setup.average is not None:
        tensors["average"] = setup.average.weights()
    if kept := setup.task.state():
        tensors["task"] = kept
    scaler = setup.accelerator.scaler
    state = {
        **vars(progress),
        "processes": setup.accelerator.num_processes,
        "scaler": scaler.state_dict() if scaler is not None else None,
    }

    def write() -> None:
        save_checkpoint(setup.folder.checkpoints, tensors=tensors, state=state)
        prune_checkpoints(
            setup.folder.checkpoints, setup.config.checkpointing.keep, progress.best.get("step")
        )

    on_main(setup.accelerator, write)


def restore_state(setup: Setup) -> Progress:
    """Restore the run from its newest intact checkpoint, if there is one, and return its progress.

    Records that were logged after the checkpoint are dropped.

    Raises:
        UsageError: the number of processes changed, and the batches depend on it.
        DataError: the checkpoint belongs to another model, or none is left of a run that started
            from another model's weights.
    """
    path = on_main(
        setup.accelerator, lambda: newest_whole(setup.folder.checkpoints, note=setup.console.note)
    )
    progress = Progress()
    if path is not None:
        tensors, state = load_checkpoint(path, checked=True)
        before, now = state.pop("processes"), setup.accelerator.num_processes
        if setup.config.batch_scope == "process" and before != now:
            raise UsageError(
                f"the run had {before} processes with batches of {setup.config.batch_size} clips "
                f"each; resume it with as many processes, not {now}, because its steps would change"
            )
        scaler = state.pop("scaler")
        if scaler and setup.accelerator.scaler is not None:
            setup.accelerator.scaler.load_state_dict(scaler)
        put_model_weights(setup.trained_model, tensors["model"])
        put_optimizer_state(setup.trained_model, setup.optimizer, tensors["optimizer"])
        if setup.average is not None:
            setup.average.load(tensors["average"], setup.trained_model)
        setup.task.load_state(tensors.get("task", {}))
        progress = Progress(**state)
    elif setup.start is not None and not setup.start.loaded:
        raise error_on_all(
            f"no checkpoint of {setup.folder.path} is whole, and its model did not start from "
            "random weights; start a new run with the same --init-from"
        )
    on_main(
        setup.accelerator, lambda: setup.folder.rewind(progress.step, validated=progress.validated)
    )
    return progress
