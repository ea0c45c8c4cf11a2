"""A recipe that follows the number of clips, and what is said of runs that are too short."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from avplatform.config.run import RunConfig
from avplatform.data import Data
from avplatform.data.adapters.registry import adapter_of_spec
from avplatform.data.store.schema import SPLITS
from avplatform.models.errors import counted
from avplatform.tasks.contracts import Task

FEW_STEPS = 500
"""Runs of fewer steps seldom learn when events happen."""
STEPS = 1000
"""Steps that a followed recipe takes, at least."""
BATCHES, SMALLEST = 8, 4
"""Batches of an epoch that a followed batch size aims at, and the smallest batch size."""
VALIDATIONS = 50
"""Validations of a run with a followed recipe, about."""


def training_clips(task: Task, data: Data) -> int:
    """Return the number of clips that a run of the task trains on."""
    first, *others = task.train_splits()
    return sum(
        data.rows(data.split_name(name))
        for name in (first, *(other for other in others if other in data.splits))
    )


def steps_per_epoch(config: RunConfig, clips: int, processes: int = 1) -> int:
    """Return the number of optimiser steps of an epoch of `clips` clips."""
    size = config.batch_size * (processes if config.batch_scope == "process" else 1)
    return clips // size if config.drop_last else math.ceil(clips / size)


def fitted(config: RunConfig, task: Task, data: Data) -> tuple[RunConfig, str]:
    """Return the configuration with a recipe for few clips, and a line that says what follows.

    The recipe changes only where the run would take fewer than `FEW_STEPS` steps, on data with
    classes of their own (a registered dataset, its simulation and the demo keep the recipe), and
    only in options that nobody set: batch size, epochs, learning rate, interval of validations.
    The line is empty where nothing changes.
    """
    opened, clips = config.left_open, training_clips(task, data)
    if (
        not {"batch_size", "epochs"} & opened
        or config.max_steps is not None
        or config.held_out
        or adapter_of_spec(data.spec) is not None
        or config.epochs * steps_per_epoch(config, clips) >= FEW_STEPS
    ):
        return config, ""
    new, followed = config, []
    if "batch_size" in opened and config.batch_scope == "global" and not config.drop_last:
        size = 2 ** int(math.log2(max(SMALLEST, clips / BATCHES)))
        size = min(config.batch_size, max(size, config.accumulation))
        new = dataclasses.replace(new, batch_size=size)
        followed.append(f"batch size {size}")
        if "optim.lr" in opened and config.optim.lr_scaling == "none":
            lr = config.optim.lr * math.sqrt(size / config.batch_size)
            new = dataclasses.replace(new, optim=dataclasses.replace(config.optim, lr=lr))
            followed.append(f"learning rate {lr:g}")
    if "epochs" in opened:
        epochs = max(config.epochs, math.ceil(STEPS / max(1, steps_per_epoch(new, clips))))
        new = dataclasses.replace(new, epochs=epochs)
        followed.append(f"{epochs} epochs")
    if "validate_every" in opened and new.epochs > 2 * VALIDATIONS:
        new = dataclasses.replace(new, validate_every=new.epochs // VALIDATIONS)
        followed.append(f"a validation every {new.validate_every} epochs")
    return new, (
        f"{counted(clips, 'training clip')} are few, so these follow from their number: "
        f"{', '.join(followed)}; a preset or --batch-size, --epochs, --optim.lr and "
        "--validate-every take precedence"
    )


def length(clips: int, steps: int, total: int) -> str:
    """Return how long a run is, in words."""
    return (
        f"{counted(clips, 'training clip')}, {counted(steps, 'step')} per epoch, "
        f"{counted(total, 'step')} in all"
    )


def advice(config: RunConfig, clips: int, steps: int, total: int) -> list[str]:
    """Return a line for each reason why a run is too short to learn, with the remedy.

    How many steps a run needs is not known of runs that start from a trained model.

    Args:
        config: the run's configuration.
        clips: number of training clips.
        steps: optimiser steps of an epoch.
        total: optimiser steps of the run.
    """
    lines = []
    if total < FEW_STEPS and not config.init_from:
        epochs = math.ceil(FEW_STEPS / max(1, steps))
        flags = [f"--epochs to {epochs}"] if epochs > config.epochs else []
        if config.max_steps is not None and config.max_steps < FEW_STEPS:
            flags.append(f"--max-steps to {FEW_STEPS}")
        lines.append(
            f"this run takes {counted(total, 'step')}; with fewer than {FEW_STEPS} a model seldom "
            f"learns: raise {' and '.join(flags)}"
        )
    if steps == 1 and clips > 1:
        lines.append(
            f"an epoch is one batch of {counted(clips, 'clip')}, so there is one step per epoch: "
            f"lower --batch-size to {max(1, min(SMALLEST, clips // 2))}"
        )
    return lines


def unmeasured(splits: Sequence[str], metric: str) -> str:
    """Return what cannot be measured where the events of scored splits have no times.

    Args:
        splits: the splits, validation or test or both.
        metric: the figure of whole videos that takes the place of those by segments.
    """
    chosen = (
        f"the epoch is chosen by {metric}, the first of equal ones, and "
        if SPLITS[1] in splits
        else ""
    )
    return (
        f"the events of {' and '.join(splits)} have no times: {chosen}only {metric} is measured "
        "there, which says what is found and not when; give onset and offset for a few of these "
        "videos to measure that"
    )


def monotony(answer: str) -> str:
    """Return what is said of a model that answers alike of all clips, three times in a row."""
    return (
        f"three validations in a row found {answer} in every clip: train longer (--epochs), try "
        "another --optim.lr, and check the labels (avplatform data verify)"
    )
