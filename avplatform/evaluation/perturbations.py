"""Perturbations of the robustness card: shifts, silence, frozen video, noise, a missing modality.

They change segment features, because that is what models read here. A perturbation takes a batch
and returns a new one. Noise depends only on the clip's row, so that batch size and number of
processes do not matter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from avplatform.data.reading.arrays import SplitArrays
from avplatform.tasks.batch import Batch, later

Change = Callable[[Batch], Batch]

SHIFTS = (1, 2, 3)
NOISE = (20, 10, 0)
"""Signal-to-noise ratios in decibels."""


def shift_name(segments: int) -> str:
    """Return the card's name for audio that is late by some segments."""
    return f"audio late by {segments} s"


def perturbations(split: SplitArrays, *, seed: int = 0) -> dict[str, Change]:
    """Return all perturbations of the card by name, in the card's order."""
    silence = mean_audio(split)
    out: dict[str, Change] = {shift_name(k): partial(shift_audio, segments=k) for k in SHIFTS}
    out["audio muted"] = partial(mute_audio, silence=silence)
    out["video frozen"] = freeze_video
    for stream in ("audio", "visual"):
        for level in NOISE:
            out[f"{stream} noise {level} dB"] = partial(
                add_noise, stream=stream, decibels=level, seed=seed
            )
    out["no audio"] = partial(drop, stream="audio")
    out["no visual"] = partial(drop, stream="visual")
    return out


def shift_audio(batch: Batch, *, segments: int) -> Batch:
    """Delay the audio by some segments; copies of its first segment fill the start.

    Labels of audible events ("dense_audio") move along, because the events still occur, only
    later; events that leave the clip no longer count. Segment labels of events that are both heard
    and seen (as in AVE) say nothing about the audio alone, and stay.
    """
    labels = dict(batch.labels)
    if "dense_audio" in labels:
        labels["dense_audio"] = later(labels["dense_audio"], segments)
    return dataclasses.replace(batch, audio=later(batch.audio, segments), labels=labels)


def mute_audio(batch: Batch, *, silence: Tensor) -> Batch:
    """Replace every audio segment by the split's mean segment, a value in the model's range."""
    return dataclasses.replace(batch, audio=silence.to(batch.audio).expand_as(batch.audio).clone())


def freeze_video(batch: Batch) -> Batch:
    """Repeat the first visual segment, and the first motion segment, in all segments."""
    segments = batch.audio.shape[1]
    frames = batch.visual.shape[1] // segments  # some data have several visual vectors per segment
    visual = batch.visual[:, :frames].repeat(1, segments, *[1] * (batch.visual.dim() - 2))
    motion = None if batch.motion is None else batch.motion[:, :1].expand_as(batch.motion).clone()
    return dataclasses.replace(batch, visual=visual, motion=motion)


def add_noise(batch: Batch, *, stream: str, decibels: float, seed: int) -> Batch:
    """Add Gaussian noise to the features of one stream at a signal-to-noise ratio in decibels.

    The stream "visual" includes motion. The signal's power is the variance of the clip's features
    over its segments and channels.
    """
    if stream == "audio":
        return dataclasses.replace(batch, audio=_noisy(batch.audio, batch.row, decibels, seed))
    motion = None if batch.motion is None else _noisy(batch.motion, batch.row, decibels, seed + 2)
    return dataclasses.replace(
        batch, visual=_noisy(batch.visual, batch.row, decibels, seed + 1), motion=motion
    )


def drop(batch: Batch, *, stream: str) -> Batch:
    """Replace a modality by zeros ("visual" includes motion)."""
    if stream == "audio":
        return dataclasses.replace(batch, audio=torch.zeros_like(batch.audio))
    motion = None if batch.motion is None else torch.zeros_like(batch.motion)
    return dataclasses.replace(batch, visual=torch.zeros_like(batch.visual), motion=motion)


def mean_audio(split: SplitArrays) -> Tensor:
    """Return the mean audio segment of a split, [Da]."""
    total = torch.zeros(split.spec.features.audio_dim, dtype=torch.float64)
    audio = split.columns()["audio"]
    for start in range(0, len(audio), 256):
        total += torch.from_numpy(audio[start : start + 256].astype("float64")).sum(dim=(0, 1))
    return (total / (audio.shape[0] * audio.shape[1])).float()


def _noisy(values: Tensor, rows: Tensor, decibels: float, seed: int) -> Tensor:
    out = values.clone()
    for clip, row in enumerate(rows.tolist()):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + row) % 2**63)
        noise = torch.randn(values[clip].shape, generator=generator, dtype=torch.float32).to(values)
        out[clip] += noise * (values[clip].var(correction=0) * 10 ** (-decibels / 10)).sqrt()
    return out
