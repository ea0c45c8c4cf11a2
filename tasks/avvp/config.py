"""Options of audio-visual video parsing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from avplatform.models.checks import at_least, check_choices, in_range
from avplatform.models.errors import UsageError, counted
from avplatform.tasks.avvp.contrast import Contrast
from avplatform.tasks.avvp.denoise import Rounding, WarmUp
from avplatform.tasks.avvp.losses import Pooling
from avplatform.tasks.avvp.metrics import STREAMS
from avplatform.tasks.avvp.targets import GlobalTarget
from avplatform.tasks.guides import GuideOptions, check_guides

OF_VIDEOS = (
    "class_thresholds",
    *(f"{s}_{kind}" for s in STREAMS for kind in ("video_threshold", "class_thresholds")),
)
"""Options on the thresholds of whole videos of a stream."""
CLASS_THRESHOLDS = tuple(f"{stream}_class_thresholds" for stream in STREAMS)
"""Options with a threshold for each class, which may be picked on validation."""


@dataclass(kw_only=True)
class AVVPConfig(GuideOptions):
    """Losses and decisions of video parsing."""

    supervision: Literal["pseudo", "weak"] = "pseudo"
    """segment pseudo-labels, or video labels only"""
    objective: Literal["auto", "basic", "han", "valor", "mil"] = "auto"
    """auto: L_basic, or HAN's for weak labels of pooled videos; mil: weak, segments pooled here"""
    pooling: Pooling = "linear"
    """how the objective mil pools segments over time"""
    audio_smooth: float = 1.0
    """smoothing of the audio label in the weak losses; 1: none"""
    visual_smooth: float = 0.9
    """smoothing of the visual label in the weak losses; 1: none"""
    refined: str | None = None
    """file of labels by modality for training (`avplatform pseudo-label exchange`)"""
    denoise: Literal["off", "self", "full"] = "off"
    """drop labels of a batch that its predictions contradict; self: without cross attention"""
    noise_ratios: str | None = None
    """file of the shares of labels to drop (`avplatform pseudo-label noise-ratio`), for denoise"""
    denoise_rounding: Rounding = "truncate"
    """of the number of labels to drop in a batch; carry: the next batch gets the fraction"""
    denoise_warm_up: WarmUp = "official"
    """how the ratios grow; official: by the authors' code (0 in the first epoch, then full)"""
    denoise_warm_up_epochs: float = 0.9
    """epochs until the ratios are full"""
    smooth_epochs: int = 0
    """smooth the labels only in so many epochs from the first (CVCMS: 2); 0: in all"""
    smooth_dropped: bool = False
    """smooth labels that refinement drops as those of absent classes (CVCMS); off: exactly 0"""
    global_target: GlobalTarget = "weak"
    """label of the whole clip; official: what audio keeps (MA); union: what either stream keeps"""
    audio_weight: float = 1.0
    """weight of the losses on audio (JoMoLD: 2)"""
    visual_weight: float = 1.0
    """weight of the losses on visual"""
    global_weight: float = 1.0
    """weight of the loss on the whole clip, in the objectives han, valor and mil"""
    segment_weight: float = 1.0
    """weight of L_basic's segment terms"""
    global_term: Literal["once", "twice", "drop"] = "once"
    """how often L_basic counts the label of the whole clip"""
    avss: Literal["off", "official", "paper"] = "off"
    """audio-visual semantic similarity loss: off, as released, or Eqs. 10 and 11"""
    avss_weight: float = 1.0
    """weight of the similarity loss"""
    avss_eps: float = 0.01
    """offset of the released target"""
    empty_pair: Literal["zero", "one", "ignore"] = "zero"
    """EIoU of two segments without events, in the paper form"""
    contrast: Contrast = "off"
    """contrast of audio and visual: within a clip (ma, jomold) or of clips that share a class"""
    contrast_weight: float = 1.0
    """weight of the contrast"""
    contrast_temperature: float | None = None
    """divisor of its similarities; none: as published, 0.2 within a clip and 1 across clips"""
    contrast_visual: Literal["stem", "encoded"] = "stem"
    """visual features of ma: from before the encoder, as published, or encoded"""
    contrast_after: int = 0
    """epochs from the first without the contrast (CVCMS: 2)"""
    count_terms: Literal["off", "add", "replace"] = "off"
    """likelihood of how many segments have a class (after BPS); replace: without the global term"""
    count_weight: float = 1.0
    """weight of the likelihood of counts"""
    mutual_weight: float = 0.0
    """weight of CMPAE's mutual learning, for decoders with uncertainties; 0: off"""
    global_uncertainty_floor: float = 0.9
    """least uncertainty of the joint branch in mutual learning, as released; 0: as it is"""
    token_weight: float = 1.0
    """weight of MGN's loss on its class tokens; 0: off"""
    apart_weight: float = 1.0
    """weight of the terms that push audio and visual apart (guides); 0: off"""
    gate: Literal["global", "modality", "none"] = "global"
    """the video prediction that must contain a class for its segments to have it"""
    threshold: float = 0.5
    """a class is decided where its probability is at least this"""
    audio_segment_threshold: float | None = None
    """threshold of audio segments; none: threshold"""
    visual_segment_threshold: float | None = None
    """threshold of visual segments; none: threshold"""
    audio_video_threshold: float | None = None
    """threshold of the whole audio stream, for the gate modality; none: threshold"""
    visual_video_threshold: float | None = None
    """threshold of the whole visual stream, for the gate modality; none: threshold"""
    class_thresholds: Literal["off", "visual", "both"] = "off"
    """pick one video threshold per class on validation after training: of visual (CMPAE) or both"""
    threshold_epoch: int = 0
    """epoch whose weights pick class_thresholds (CMPAE: 8), or the last before; 0: the kept one"""
    audio_class_thresholds: tuple[float, ...] = ()
    """threshold of the whole audio stream per class, in their order; empty: the same for all"""
    visual_class_thresholds: tuple[float, ...] = ()
    """threshold of the whole visual stream per class, in their order; empty: the same for all"""
    label_texts: Literal["plain", "official"] = "plain"
    """texts of the label embeddings; official: spelt as behind the published ones"""

    def __post_init__(self) -> None:
        check_choices(self)
        fits = {"pseudo": ("auto", "basic", "valor"), "weak": ("auto", "basic", "han", "mil")}[
            self.supervision
        ]
        if self.objective not in fits:
            choices = ", ".join(fits)
            raise UsageError(
                f"AVVPConfig.objective '{self.objective}' does not go with {self.supervision}; "
                f"use {choices}"
            )
        in_range(self, ("audio_smooth", "visual_smooth", "threshold"), 0, 1)
        at_least(self, ("audio_weight", "visual_weight", "global_weight", "contrast_weight"), 0)
        at_least(self, ("contrast_after", "smooth_epochs", "threshold_epoch"), 0)
        in_range(self, "denoise_warm_up_epochs", 1e-6, 1e6)
        if self.contrast_temperature is not None:
            in_range(self, "contrast_temperature", 1e-6, 1e6)
        for name in (f"{s}_{level}_threshold" for s in STREAMS for level in ("segment", "video")):
            if getattr(self, name) is not None:
                in_range(self, name, 0, 1)
        for stream in STREAMS:
            for value in getattr(self, f"{stream}_class_thresholds"):
                if not 0 <= value <= 1:
                    raise UsageError(
                        f"AVVPConfig.{stream}_class_thresholds holds {value!r}; each must lie "
                        "between 0 and 1"
                    )
        at_least(
            self, ("segment_weight", "avss_weight", "avss_eps", "mutual_weight", "count_weight"), 0
        )
        in_range(self, "global_uncertainty_floor", 0, 1)
        at_least(self, ("token_weight", "apart_weight"), 0)
        check_guides(self)

    @property
    def refines(self) -> bool:
        """Whether labels are refined by stream: from a file, or in every batch."""
        return self.refined is not None or self.denoise != "off"

    def limit(self, stream: str, level: Literal["segment", "video"]) -> float:
        """Return the threshold of a stream's segments, or of its videos without class thresholds.

        Examples:
            >>> AVVPConfig(threshold=0.45, audio_segment_threshold=0.25).limit("audio", "segment")
            0.25
        """
        own = getattr(self, f"{stream}_{level}_threshold")
        return self.threshold if own is None else own

    def check_classes(self, classes: Sequence[str]) -> None:
        """Raise UsageError if thresholds are given per class, but not one for each of these."""
        for stream in STREAMS:
            count = len(getattr(self, f"{stream}_class_thresholds"))
            if count not in (0, len(classes)):
                raise UsageError(
                    f"task_config.{stream}_class_thresholds holds {counted(count, 'threshold')}, "
                    f"but there are {counted(len(classes), 'class')}; give one per class"
                )

    def for_classes(self, known: Sequence[str], classes: Sequence[str]) -> AVVPConfig:
        """Return the options for other classes; those that are known keep their thresholds."""
        kept: dict[str, Any] = {}
        for stream in STREAMS:
            if limits := getattr(self, f"{stream}_class_thresholds"):
                own = dict(zip(known, limits, strict=True))
                rest = self.limit(stream, "video")
                kept[f"{stream}_class_thresholds"] = tuple(own.get(n, rest) for n in classes)
        return dataclasses.replace(self, **kept)

    def at(self, threshold: float) -> AVVPConfig:
        """Return these options with one threshold for all streams, classes, segments and videos."""
        names = [f.name for f in dataclasses.fields(self) if f.name.endswith("_threshold")]
        whole: dict[str, Any] = dict.fromkeys(names)
        whole |= {f"{stream}_class_thresholds": () for stream in STREAMS}
        return dataclasses.replace(self, **whole, threshold=threshold)
