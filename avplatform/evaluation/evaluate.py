"""Scores of a model on a split: batches of fixed composition, joined by row, counted.

Evaluation runs in the weights' own precision (no autocast), and a batch holds the same clips whatever the number of
processes, so that decisions do not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from avplatform.data.reading.arrays import SplitArrays
from avplatform.data.reading.sampling import eval_batches
from avplatform.models.errors import AVError, DataError
from avplatform.tasks.contracts import Arrays, Batch, Metrics, Task


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
        model: the unwrapped model; put into eval mode for the time of the call.
        task: decides and scores.
        split: the clips.
        accelerator: its processes share the batches.
        batch_size: clips in a batch.
        on_batch: called with the number of clips after each batch (a progress bar).
        change: what to do to each batch before the model sees it (the robustness card).

    Raises:
        DataError: a clip was lost or counted twice, or the split lacks the labels that are scored. An error of one process is
            raised on all of them.
    """
    was_training, state, failure = model.training, {}, None
    model.eval()
    metrics = task.metrics()
    evidence: list[Arrays] = []
    try:
        for indices in eval_batches(
            len(split), batch_size, accelerator.process_index, accelerator.num_processes
        ):
            batch = split.batch(indices)
            if change is not None:
                batch = change(batch)
            evidence.append(_score(metrics, task, model, batch.to(accelerator.device), split))
            if on_batch is not None:
                on_batch(len(batch))
        state = metrics.state()
    except Exception as error:
        if accelerator.num_processes == 1:
            raise
        failure = error  # not raised yet: the others, which may have no such batch, would wait for this process
    finally:
        model.train(was_training)
    if accelerator.num_processes > 1:
        metrics.merge(_gathered(state, failure))
        evidence = gather_object(evidence)
    if len(metrics) != len(split):
        raise DataError(
            f"{len(metrics)} clips were scored but the split holds {len(split)}; the data changed while reading?"
        )
    metrics.evidence = _by_row(evidence)
    return metrics


def _score(
    metrics: Metrics, task: Task, model: nn.Module, batch: Batch, split: SplitArrays
) -> Arrays:
    """Add the decisions on one batch; return its evidence."""
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


def _gathered(state: dict[str, Any], failure: Exception | None) -> list[dict[str, Any]]:
    """Return every process's state; where a process failed, raise its error on all of them."""
    # Errors of ours survive the way to another process; of a stranger's class that is not sure.
    sent = (
        RuntimeError(f"{type(failure).__name__}: {failure}")
        if failure and not isinstance(failure, AVError)
        else failure
    )
    answers: list[tuple[dict[str, Any], Exception | None]] = gather_object([(state, sent)])
    for _, error in answers:
        if error is not None:
            if isinstance(error, AVError):
                error.shared = True
            raise error from failure
    return [found for found, _ in answers]


def _by_row(parts: list[Arrays]) -> Arrays | None:
    """Join batches in the order of `Metrics.state`; None where a task gives no evidence."""
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
    """Return truth and decisions of a few clips, as `avplatform.runs.pictures.timelines` reads them."""
    batch = split.batch(np.asarray(list(indices))).to(accelerator.device)
    was_training = model.training
    model.eval()
    decisions = task.decide(model(batch.audio, batch.visual, batch.motion).parse)
    model.train(was_training)
    return task.tracks(decisions, batch)
