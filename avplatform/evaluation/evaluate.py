"""Evaluate a model on a split: the batches are fixed, and their scores are joined and counted.

Evaluation runs in the precision of the weights (no autocast), and a batch holds the same clips for
any number of processes, so that decisions do not depend on that number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from avplatform.base.processes import on_each
from avplatform.data.reading.arrays import SplitArrays
from avplatform.data.reading.sampling import eval_batches
from avplatform.models.errors import DataError
from avplatform.tasks.batch import Batch
from avplatform.tasks.contracts import Task
from avplatform.tasks.metrics import Arrays, Metrics


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    task: Task,
    split: SplitArrays,
    *,
    accelerator: Accelerator,
    batch_size: int = 64,
    on_batch: Callable[[int], None] | None = None,
    change: Callable[[Batch], Batch] | None = None,
) -> Metrics:
    """Return the metrics of `model` on every clip of `split`, the same on every process.

    Args:
        model: the unwrapped model; it is in eval mode during the call.
        task: makes the decisions and scores them.
        split: the clips.
        accelerator: the accelerator whose processes share the batches.
        batch_size: number of clips per batch.
        on_batch: called with the number of clips after each batch, for a progress bar.
        change: applied to each batch before the model sees it (for the robustness card).

    Raises:
        DataError: a clip was lost or counted twice, or the split lacks the labels that are scored.
            An error of one process is raised on all of them.
    """
    was_training = model.training
    metrics = task.metrics()
    evidence: list[Arrays] = []

    def score() -> dict[str, Any]:
        for indices in eval_batches(
            len(split), batch_size, accelerator.process_index, accelerator.num_processes
        ):
            batch = split.batch(indices)
            if change is not None:
                batch = change(batch)
            evidence.append(_score(metrics, task, model, batch.to(accelerator.device), split))
            if on_batch is not None:
                on_batch(len(batch))
        return metrics.state()

    model.eval()
    try:
        states = on_each(accelerator, score)
    finally:
        model.train(was_training)
    if accelerator.num_processes > 1:
        metrics.merge(states)
        evidence = gather_object(evidence)
    if len(metrics) != len(split):
        raise DataError(
            f"{len(metrics)} clips were scored but the split holds {len(split)}; "
            "check that nothing changes the data while they are read"
        )
    metrics.evidence = _by_row(evidence)
    return metrics


def _score(
    metrics: Metrics, task: Task, model: nn.Module, batch: Batch, split: SplitArrays
) -> Arrays:
    """Add the decisions on one batch to the metrics; return the batch's evidence."""
    parse = model(batch.audio, batch.visual, batch.motion).parse
    decisions = task.decide(parse)
    try:
        metrics.update(decisions, batch)
    except KeyError as error:
        if error.args[0] not in split.spec.labels:
            raise
        raise DataError(
            f"the split '{split.name}' has no label {error.args[0]!r}, so it cannot be scored"
        ) from None
    evidence = {"row": batch.row, **task.evidence(parse, decisions)}
    return {name: value.detach().cpu().numpy() for name, value in evidence.items()}


def _by_row(parts: list[Arrays]) -> Arrays | None:
    """Join the batches' evidence in the order of `Metrics.state`; None if the task gives none."""
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(joined.pop("row"), kind="stable")
    return {name: value[order] for name, value in joined.items()} or None


@torch.inference_mode()
def example_tracks(
    model: nn.Module,
    task: Task,
    split: SplitArrays,
    indices: Iterable[int],
    *,
    accelerator: Accelerator,
) -> list[dict]:
    """Return truth and decisions of a few clips, for `avplatform.runs.pictures.timelines`."""
    batch = split.batch(np.asarray(list(indices))).to(accelerator.device)
    was_training = model.training
    model.eval()
    decisions = task.decide(model(batch.audio, batch.visual, batch.motion).parse)
    model.train(was_training)
    each = split.spec.segment_seconds
    return [clip | {"segment_seconds": each} for clip in task.tracks(decisions, batch)]
