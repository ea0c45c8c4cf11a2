"""Options of audio-visual video parsing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avplatform.models.checks import at_least, check_choices, in_range
from avplatform.models.errors import UsageError
from avplatform.tasks.avvp.losses import Pooling


@dataclass(kw_only=True)
class AVVPConfig:
    """Losses and decisions of video parsing."""

    supervision: Literal["pseudo", "weak"] = "pseudo"
    """segment pseudo-labels, or video labels only"""
    objective: Literal["auto", "basic", "han", "valor", "mil"] = "auto"
    """auto: L_basic with pseudo-labels, else HAN's (LEAP: L_basic); mil: weak, pooled segments"""
    pooling: Pooling = "linear"
    """how the objective mil pools segments over time"""
    audio_smooth: float = 1.0
    """smoothing of the audio label in the weak losses; 1: none"""
    visual_smooth: float = 0.9
    """smoothing of the visual label in the weak losses; 1: none"""
    refined: str | None = None
    """file of labels by modality for training (`avplatform pseudo-label exchange`)"""
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
    gate: Literal["global", "modality", "none"] = "global"
    """the video prediction that must contain a class for its segments to have it"""
    threshold: float = 0.5
    """a class is decided where its probability is at least this"""
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
        at_least(self, ("segment_weight", "avss_weight", "avss_eps"), 0)
