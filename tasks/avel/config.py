"""Options of event localization."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from avplatform.models.checks import at_least, check_choices, in_range
from avplatform.models.errors import UsageError
from avplatform.tasks.guides import GuideOptions, check_guides

_BOTH = (
    "an event of this task is heard and seen at once by definition, so none of its labels holds in "
    "one stream alone; labels are refined, and streams contrasted, for video parsing"
)
BACKGROUND = "background"
"""Name and label text of the class of segments without an event."""


@dataclass(kw_only=True)
class AVELConfig(GuideOptions):
    """Losses and decisions of event localization."""

    refused = MappingProxyType(
        dict.fromkeys(("refined", "denoise", "noise_ratios", "global_target", "contrast"), _BOTH)
    )

    supervision: Literal["full", "weak"] = "full"
    """segment labels, or one label per clip"""
    head_loss: Literal["ce", "soft_margin", "bce"] = "ce"
    """loss of the direct head; soft_margin: as published with AVE; bce: with PSP (weak)"""
    pair_weight: float = 100.0
    """weight of PSP's pair similarity loss, where the encoder gives similarities (full); 0: off"""
    auxiliary_weight: float = 1.0
    """weight of CMBS's losses on gate and queries under another head (full); 0: off"""
    segment_loss: Literal["ce", "bce", "per_modality"] = "ce"
    """loss of LEAP's segments; per_modality: binary, summed over the streams (the paper's Eq. 9)"""
    video_loss: Literal["combined", "per_modality", "off"] = "combined"
    """LEAP's loss on the video labels, in the full setting"""
    pair_target: Literal["clean", "official"] = "clean"
    """PSP's soft target; official: with the values that its loader leaves from earlier batches"""
    gate_loss: Literal["official", "plain"] = "official"
    """CMBS's loss on its gate; official: squashed twice, as published"""
    weak_relevance: Literal["official", "threshold"] = "threshold"
    """CMBS's relevant segments (weak); official: all, as published; threshold: gate above 0.5"""
    weak_target: Literal["mil", "prob"] = "mil"
    """video label (weak): the class, or PSP's shares of segments, which tell the duration"""
    token_weight: float = 1.0
    """weight of MGN's loss on its class tokens; 0: off"""
    weak_pool: Literal["max", "mean", "top4"] = "max"
    """pooling of LEAP's segments (weak); default: as the encoder's head (PSP mean, CMBS top4)"""
    decision: Literal["argmax", "masked", "agreement"] = "argmax"
    """masked: video probability at least 0.5 (LEAP); agreement: best in both streams (cosine)"""
    clip_class: Literal["none", "first"] = "none"
    """agreement: segments have their own class, or that of the first one, as released (OV-AVEL)"""
    equal_scores: Literal["background", "first"] = "background"
    """where all scores of a segment are equal (cosine); first: the first class, as released"""
    label_set: Literal["with_background", "events"] = "with_background"
    """texts: events and "background", or events alone (a relevance in LEAP; or agreement)"""
    label_texts: Literal["full", "first_phrase"] = "full"
    """texts of the label embeddings"""
    avss: Literal["off", "official", "paper"] = "off"
    """audio-visual semantic similarity loss"""
    avss_weight: float = 1.0
    """weight of the similarity loss"""
    empty_pair: Literal["zero", "one", "ignore"] = "zero"
    """EIoU of two background segments, in the paper form"""

    evidence_weights: tuple[float, float, float] = (2.0, 0.6, 0.6)
    """weights of the evidence decoder's losses on audio, visual and the joint branch (CMPAE)"""
    contrast_weight: float = 1.0
    """weight of JoMoLD's contrast of the segments of a clip (cmpae); 0: off"""
    count_terms: Literal["off", "add"] = "off"
    """add the likelihood of how many segments have an event (weak; mmil, cmpae; after BPS)"""
    mutual_weight: float = 1.0
    """weight of CMPAE's mutual learning (cmpae); 0: off"""
    global_uncertainty_floor: float = 0.9
    """least uncertainty of the joint branch in mutual learning, as released; 0: as it is"""
    segment_threshold: float = 0.5
    """both streams' segment probabilities are at least this where there is an event (cmpae)"""
    video_threshold: float = 0.5
    """the probability of the clip's event is at least this, else it is background (cmpae)"""

    def __post_init__(self) -> None:
        check_choices(self)
        if self.head_loss == "bce" and self.supervision == "full":
            raise UsageError(
                "AVELConfig.head_loss is 'bce', which is for weak supervision; "
                "use ce or soft_margin"
            )
        if self.supervision == "weak" and self.avss != "off":
            raise UsageError(
                "AVELConfig.avss needs segment labels; switch it off, or use full supervision"
            )
        if self.supervision == "weak" and self.decision == "masked":
            raise UsageError(
                "AVELConfig.decision is 'masked', which is for full supervision; use argmax"
            )
        weights = ("avss_weight", "pair_weight", "auxiliary_weight", "token_weight")
        at_least(self, (*weights, "contrast_weight", "mutual_weight"), 0)
        check_guides(self)
        in_range(self, "global_uncertainty_floor", 0, 1)
        in_range(self, ("segment_threshold", "video_threshold"), 0.01, 0.99)
        if any(weight < 0 for weight in self.evidence_weights):
            raise UsageError(
                f"AVELConfig.evidence_weights are {self.evidence_weights}; none may be negative"
            )
