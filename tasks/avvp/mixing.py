"""CVCMS's mixed pairs: the audio of a clip with the visual of another clip of the batch."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import torch
from torch import Tensor

from avplatform.models.contracts import CLASS_AUX, Encoding, Parse
from avplatform.tasks.batch import Batch

Value = TypeVar("Value")


def draw_partners(clips: int) -> Tensor:
    """Return another clip for each clip, uniformly among the others: [B] with B of at least 2."""
    return (torch.arange(clips) + torch.randint(1, clips, (clips,))) % clips


def mixed(batch: Batch, partners: Tensor | None = None) -> Batch:
    """Return a batch in which each clip is followed by its audio with the visual of another clip.

    The clip that is made so has the classes of both, and its refined labels say which of them are
    heard and which are seen. A batch of one clip has no other clip and is returned as it is.

    Source: CVCMS (NeurIPS 2021), released code.

    Departs: the partners are drawn among the clips of one process, so they depend on the number of
    processes. The released code draws again until the partner is another clip, which never ends for
    a batch of one.

    Args:
        batch: B clips.
        partners: the other clip of each clip, [B]; None: drawn.

    Shape: features and labels [B, ...] -> [2 * B, ...], rows in the order clip, mixed, clip, ...
    """
    if len(batch) < 2:
        return batch
    other = (draw_partners(len(batch)) if partners is None else partners).to(batch.row.device)
    weak = batch.labels["weak"]
    masks = {
        f"keep_{s}": batch.labels.get(f"keep_{s}", torch.ones_like(weak))
        for s in ("audio", "visual")
    }
    second = {
        name: values[other] if name.endswith("visual") else values
        for name, values in batch.labels.items()
    }
    second |= {
        "weak": torch.maximum(weak, weak[other]),
        "keep_audio": weak * masks["keep_audio"].to(weak.dtype),
        "keep_visual": (weak * masks["keep_visual"].to(weak.dtype))[other],
    }
    first = batch.labels | masks
    return dataclasses.replace(
        batch,
        audio=_alternate(batch.audio, batch.audio),
        visual=_alternate(batch.visual, batch.visual[other]),
        motion=None if batch.motion is None else _alternate(batch.motion, batch.motion[other]),
        row=_alternate(batch.row, batch.row),
        clip_id=[name for name in batch.clip_id for _ in range(2)],
        labels={
            name: _alternate(first[name], second[name].to(first[name].dtype)) for name in first
        },
        rows_per_clip=2,
    )


def unmixed(parse: Parse, encoding: Encoding, batch: Batch) -> tuple[Parse, Encoding, Batch]:
    """Return predictions, features and labels of the clips themselves, without the mixed pairs."""
    step = batch.rows_per_clip
    if step == 1:
        return parse, encoding, batch
    labels = {name: values[::step] for name, values in batch.labels.items()}
    own = dataclasses.replace(batch, row=batch.row[::step], labels=labels, rows_per_clip=1)
    return _every(parse, step), _every(encoding, step), own


def _alternate(first: Tensor, second: Tensor) -> Tensor:
    return torch.stack([first, second], dim=1).flatten(0, 1)


def _every(value: Value, step: int) -> Value:
    """Return every `step`-th row of all tensors, except those of `aux` that belong to classes."""
    found: Any = value
    if isinstance(value, Tensor):
        found = value[::step]
    elif isinstance(value, dict):
        found = {
            name: each if name in CLASS_AUX else _every(each, step) for name, each in value.items()
        }
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (f.name for f in dataclasses.fields(value))
        found = dataclasses.replace(
            value, **{name: _every(getattr(value, name), step) for name in fields}
        )
    return found
