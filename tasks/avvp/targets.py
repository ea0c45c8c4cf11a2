"""What the losses on video labels compare predictions with, where labels are refined by stream.

A clip's weak label says that a class occurs. Refined labels say in which stream it does not: the
masks "keep_audio" and "keep_visual" [B, C] of a batch, 1 keep, 0 drop. They come from a file (MA)
or are made in every step (JoMoLD). A clip without masks keeps everything in both streams.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor

from avplatform.tasks.batch import Batch

GlobalTarget = Literal["weak", "official", "union"]
Stream = Literal["audio", "visual"]
Target = TypeVar("Target", Tensor, float)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Which weak labels hold in which stream, and what the losses make of the others.

    Args:
        audio: mask of the labels that hold in audio, [B, C]; None: all.
        visual: the same for visual.
        smooth_dropped: dropped labels are smoothed as those of absent classes are (CVCMS); else
            they are exactly 0 (MA, JoMoLD).
        whole: the label of the whole clip. "weak": the weak label; "official": what audio keeps, as
            MA's released code has it, where both labels share an array; "union": what either stream
            keeps (CVCMS).
    """

    audio: Tensor | None = None
    visual: Tensor | None = None
    smooth_dropped: bool = False
    whole: GlobalTarget = "weak"

    def label(self, stream: Stream, weak: Tensor) -> Tensor:
        """Return the weak label without what the stream drops: [B, C] -> [B, C]."""
        mask = self.audio if stream == "audio" else self.visual
        return weak if mask is None else weak * mask.to(weak.dtype)

    def target(self, stream: Stream, weak: Tensor, smoothing: float) -> Tensor:
        """Return the smoothed label of a stream: [B, C] -> [B, C]."""
        label = self.label(stream, weak)
        target = smooth(label, smoothing)
        return target if self.smooth_dropped else target * (1 - (weak - label))

    def guide_targets(
        self, weak: Tensor, *, refined: bool, audio_smooth: float, visual_smooth: float
    ) -> tuple[Tensor, Tensor]:
        """Return what guide networks learn: the weak label, or the targets if it is refined.

        Source: DHHN (ACM MM 2022), released code: only refined labels are smoothed for guides.

        Args:
            weak: the weak label.
            refined: whether the run refines labels, also in steps in which it drops none.
            audio_smooth: the smoothing of the audio target.
            visual_smooth: the smoothing of the visual target.

        Shape: [B, C] -> audio and visual [B, C].
        """
        if not refined:
            return weak, weak
        return (
            self.target("audio", weak, audio_smooth),
            self.target("visual", weak, visual_smooth),
        )

    def segments(self, stream: Stream, maps: Tensor) -> Tensor:
        """Return segment labels without the classes that the stream drops: [B, T, C]."""
        mask = self.audio if stream == "audio" else self.visual
        return maps if mask is None else maps * mask.to(maps.dtype)[:, None, :]

    def global_target(self, weak: Tensor) -> Tensor:
        """Return the label of the whole clip: [B, C] -> [B, C]."""
        if self.whole == "weak":
            return weak
        audio = self.label("audio", weak)
        return (
            audio if self.whole == "official" else torch.maximum(audio, self.label("visual", weak))
        )


def kept_labels(
    batch: Batch, *, smooth_dropped: bool = False, whole: GlobalTarget = "weak"
) -> Kept:
    """Return which labels a batch keeps in which stream."""
    masks = (batch.labels.get(f"keep_{stream}") for stream in ("audio", "visual"))
    audio, visual = masks
    return Kept(audio=audio, visual=visual, smooth_dropped=smooth_dropped, whole=whole)


def smooth(target: Target, smoothing: float) -> Target:
    """Smooth a weak label towards 0.5: s * y + (1 - s) / 2; smoothing 1 changes nothing."""
    return smoothing * target + (1 - smoothing) / 2
