"""The labels of training that do not hold in a stream: named by a file, or found by denoising."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from avplatform.models.contracts import encoder_of
from avplatform.tasks.avvp.config import AVVPConfig
from avplatform.tasks.avvp.denoise import Denoiser
from avplatform.tasks.avvp.losses import video_probabilities
from avplatform.tasks.avvp.metrics import STREAMS
from avplatform.tasks.avvp.refinements import NoiseRatios, RefinedLabels, read_ratios
from avplatform.tasks.avvp.targets import smooth
from avplatform.tasks.batch import Batch, Processes, TrainingClips


class Dropping:
    """Adds masks of labels to batches: "keep_audio" and "keep_visual" [B, C], 1 keep, 0 drop.

    The files that the options name are read when they are first needed, as training begins.

    Args:
        config: the options of the task.
        classes: the names of the classes.
    """

    def __init__(self, config: AVVPConfig, classes: Sequence[str]) -> None:
        self.config, self.classes = config, tuple(classes)

    @cached_property
    def refined(self) -> RefinedLabels:
        """The refined labels of the file that the options name."""
        return RefinedLabels.read(str(self.config.refined), self.classes)

    @cached_property
    def ratios(self) -> NoiseRatios:
        """The noise ratios of the file that the options name."""
        return read_ratios(self.config.noise_ratios, self.classes)

    @cached_property
    def denoiser(self) -> Denoiser:
        """What finds labels to drop, with the noise ratios."""
        config = self.config
        return Denoiser(
            self.ratios.both(),
            rounding=config.denoise_rounding,
            warm_up=config.denoise_warm_up,
            warm_up_epochs=config.denoise_warm_up_epochs,
        )

    def check(self, clips: TrainingClips) -> list[str]:
        """Refuse refined labels and noise ratios of other data, clips or classes; return notes."""
        config, said = self.config, list[str]()
        if config.refined is not None:
            said += self.refined.check(clips, path=config.refined)
        if config.denoise != "off":
            rounding = config.denoise_rounding
            said += self.ratios.check(clips, path=str(config.noise_ratios), rounding=rounding)
        return said

    def by_file(self, batch: Batch) -> Batch:
        """Return a batch with the masks of the file, if the options name one."""
        if (file := self.config.refined) is None:
            return batch
        keep = self.refined.masks(batch.clip_id, like=batch.labels["weak"], path=file)
        return dataclasses.replace(batch, labels=batch.labels | keep)

    def by_denoising(
        self,
        model: nn.Module,
        batch: Batch,
        processes: Processes,
        *,
        labels: Callable[[Batch, Tensor], tuple[Tensor, Tensor]],
        smoothing: tuple[float, float],
    ) -> Batch:
        """Return a batch without the labels that the model's own predictions contradict.

        Args:
            model: the model in training.
            batch: this process's clips.
            processes: all processes, among whose clips the losses are ranked.
            labels: returns the audio and visual labels [B, C] in the precision of a tensor.
            smoothing: of the audio and the visual label.
        """
        strength = 0.0 if self.config.denoise == "off" else self.denoiser.strength(batch.moment)
        if not strength:
            return batch
        with encoder_of(model).self_only() if self.config.denoise == "self" else nullcontext():
            parse = model(batch.audio, batch.visual, batch.motion).parse
        audio, visual, _ = video_probabilities(parse)
        found = processes.gather(torch.stack([audio, visual, *labels(batch, audio)], dim=1))
        dropped = self.denoiser.dropped(
            *found.transpose(0, 1).chunk(2),  # (N, 4, C) -> 2 x (2, N, C)
            targets=(smooth(1.0, smoothing[0]), smooth(1.0, smoothing[1])),
            strength=strength,
        )
        own = processes.own(dropped.transpose(0, 1))  # (B, 2, C)
        keep = {}
        for name, gone in zip(STREAMS, own.to(audio.device).unbind(dim=1), strict=True):
            kept = batch.labels.get(f"keep_{name}", torch.ones_like(batch.labels["weak"]))
            keep[f"keep_{name}"] = kept.masked_fill(gone, 0)
        return dataclasses.replace(batch, labels=batch.labels | keep)

    def origins(self) -> dict[str, dict[str, Any]]:
        """Return how refined labels and noise ratios were made."""
        refined = {} if self.config.refined is None else {"refined": self.refined.made_by}
        noise = {} if self.config.denoise == "off" else {"noise_ratios": self.ratios.made_by}
        return refined | noise

    def state(self) -> dict[str, Tensor]:
        """Return the fractions that denoising carries to the next batch, if it does."""
        if self.config.denoise == "off" or self.config.denoise_rounding == "truncate":
            return {}
        return {"carried": self.denoiser.carried}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        if "carried" in state:
            self.denoiser.carried = state["carried"]
