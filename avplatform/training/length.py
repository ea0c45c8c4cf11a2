"""The length of a resumed run: whether it can end where it is asked to."""

from __future__ import annotations

import math

from avplatform.config.compose import stored_config
from avplatform.config.run import RunConfig
from avplatform.models.errors import DataError, UsageError, counted
from avplatform.runs.folder import RunFolder, finished_results
from avplatform.training.checkpoint import checkpoint_steps
from avplatform.training.optim import learning_rate


def total_steps(config: RunConfig, steps_per_epoch: int) -> int:
    """Return the number of optimiser steps of a whole run."""
    return int(min(config.epochs * steps_per_epoch, config.max_steps or math.inf))


def check_length(config: RunConfig, steps_per_epoch: int) -> int | None:
    """Return the steps of a finished run that is about to be made longer, else None.

    Raises:
        UsageError: the run has taken more steps already than it is asked for; or it is finished,
            and would not become longer, or would have had other learning rates if it had been so
            long from the start.
        DataError: the run is finished and its checkpoints are gone.
    """
    if not config.resume:
        return None
    folder, total = RunFolder(config.resume), total_steps(config, steps_per_epoch)
    done = finished_results(folder)
    saved = checkpoint_steps(folder.checkpoints)
    taken = max(saved, default=0) if done is None else int(done["steps"])
    ends = f"--epochs {config.epochs}" + (
        f" with --max-steps {config.max_steps}" if config.max_steps else ""
    )
    if total < taken:
        raise UsageError(
            f"{config.resume} has taken {counted(taken, 'step')} already and cannot be made "
            f"shorter; {ends} would end it after {total:,}: give more, or start a new run"
        )
    if done is None:
        return None
    if total == taken:
        raise UsageError(
            f"{config.resume} is finished and cannot be made longer by {ends}, which end it after "
            f"{counted(total, 'step')} as before; raise --epochs and, if it is set, --max-steps"
        )
    if not saved:
        raise DataError(
            f"{config.resume} is finished and cannot be made longer: its checkpoints are gone; "
            f"start a new run (--config {config.resume} --epochs N)"
        )
    before = stored_config(config.resume)
    for step in range(taken):
        was, now = (_rate(c, step, steps_per_epoch) for c in (before, config))
        if was != now:
            raise UsageError(
                f"{config.resume} is finished and cannot be made longer: its schedule "
                f"({config.schedule.name}) depends on the length of the run, so step {step + 1} "
                f"of {total:,} would have had {now / was if was else math.inf:g} times the "
                "learning rate that it had; start a new run "
                f"(--config {config.resume} --epochs N), or begin one with these weights "
                f"(--init-from {config.resume})"
            )
    return taken


def _rate(config: RunConfig, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step, as a share of the base rate."""
    return learning_rate(
        config.schedule,
        base_lr=1.0,
        epoch=step // steps_per_epoch + 1,
        step=step,
        epochs=config.epochs,
        total_steps=total_steps(config, steps_per_epoch),
    )
