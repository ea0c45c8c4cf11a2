"""Options of the LEAP decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avplatform.models.checks import DEPTH, check_choices, divides, finite, in_range, sizes
from avplatform.models.errors import UsageError


@dataclass(kw_only=True)
class LEAPConfig:
    """Options of the LEAP decoder; the defaults are the authors' released code."""

    blocks: int = 2
    """projection blocks N per modality"""
    heads: int = 8
    """attention heads (the paper writes one)"""
    width: int | None = None
    """decoder width; none: the encoder's, otherwise one linear map per stream adapts it"""
    hidden: int = 512
    """feed-forward width"""
    dropout: float = 0.2
    """dropout on both residual branches and inside the feed-forward"""
    attention_dropout: float = 0.1
    """dropout on attention weights"""
    form: Literal["released", "paper", "pooled"] = "released"
    """released: pre-norm, scores from the updated query; paper: Eqs. 2 to 7; pooled: weak labels"""
    score_gain: float | None = None
    """initial learned gain on segment scores, for faster training; none: off, as published"""
    score_bias: float | None = None
    """initial learned bias on segment scores; none: off, as published"""
    score_by_text: bool = False
    """learn how gain and bias of segment scores follow from the text; at first they do not"""
    clip_share: float | None = None
    """initial learned share of the clip's score in those of its segments; none: as published"""
    shared_video_classifier: bool = False
    """one video classifier for both modalities (the paper's W)"""
    streams: Literal["both", "fused", "all"] = "both"
    """streams that labels query: audio and visual, the fused stream (AVEL), or all three (AVEL)"""
    reads: Literal["outputs", "queries", "rectified"] = "outputs"
    """encoder features: outputs, CMBS's gated queries, or rectified outputs (as AVE's own head)"""
    combine: Literal["none", "mean", "geometric", "product", "or"] = "none"
    """audio-visual: none (AVVP), mean of logits; of probabilities geometric mean, product, or OR"""
    relevance: Literal["none", "linear"] = "none"
    """linear: a map of the fused stream gives relevance (AVEL without a background text)"""
    classify_queries: bool = False
    """classify CMBS's gated queries too: a training aid that no decision reads"""
    official_init: bool = True
    """start the maps of an attention, and all blocks, as copies, as the released code does"""
    centre_labels: bool = False
    """label embeddings lose their mean over the model's classes, then have unit variance"""
    joint_space: bool = False
    """texts and features are of one joint model: at first, scores follow their cosines"""

    def __post_init__(self) -> None:
        check_choices(self)
        sizes(self, "heads", "width", "hidden")
        sizes(self, "blocks", most=DEPTH)
        if self.width is not None:
            divides(self, "heads", self.width, "width")
        in_range(self, ("dropout", "attention_dropout"), 0, 0.999)
        if self.clip_share is not None:
            in_range(self, "clip_share", 0, 1)
        finite(self, "score_gain", "score_bias")
        if self.form == "pooled" and self.shared_video_classifier:
            raise UsageError(
                "LEAPConfig.shared_video_classifier is on, but the form 'pooled' has no video "
                "classifier; leave one of them out"
            )
        if self.form == "paper" and self.heads != 1:
            raise UsageError(f"LEAPConfig.heads is {self.heads}; the form 'paper' has one head")
