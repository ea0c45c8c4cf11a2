"""MGN's decoder: segments are grouped by class tokens, and each class is scored from its group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from avplatform.models.checks import DEPTH, check_choices, divides, in_range, sizes
from avplatform.models.contracts import (
    Decoder,
    Encoder,
    Encoding,
    Gives,
    Needs,
    Options,
    Parse,
    Prediction,
    Rule,
    StreamPredictions,
    at_least_single,
)
from avplatform.models.encoders.mgn import MGN
from avplatform.models.errors import UsageError
from avplatform.models.layers.grouping import Block, Grouped, Grouping, published_start


@dataclass(kw_only=True)
class GroupingDecoderConfig:
    """Options of the grouping decoder; the widths are those of the published MGN."""

    tokens: Literal["own", "encoder"] = "own"
    """class tokens: learned by the decoder, or those that the encoder passed on (MGN)"""
    assignment: Literal["soft", "hard"] = "soft"
    """how segments are assigned to classes"""
    joint_assignment: Literal["soft", "hard"] = "soft"
    """how the audio groups are assigned to the visual ones"""
    segment_factor: Literal["released", "assignment", "relative"] = "released"
    """what multiplies a clip's probability; relative: the assignment over its largest in time"""
    heads: int = 8
    """attention heads"""
    hidden: int = 512
    """feed-forward width"""
    token_hidden: int = 64
    """width between the two maps that mix the class tokens"""
    layers: int = 6
    """transformer blocks over the groups of both streams"""
    stochastic_depth: float = 0.1
    """probability that a clip skips a branch of a block in training"""
    gumbel_noise: bool = True
    """noise on hard assignments in training; off: always the nearest"""
    product: bool = False
    """also predict audio-visual segments, as the product of both streams' probabilities (AVEL)"""

    def __post_init__(self) -> None:
        check_choices(self)
        sizes(self, "heads", "hidden", "token_hidden")
        sizes(self, "layers", most=DEPTH)
        in_range(self, "stochastic_depth", 0, 0.999)


class GroupingDecoder(Decoder):
    """Group segments by class tokens, group the groups of both streams, and score each class.

    A segment has the probability of its clip times a factor from the assignment of the segment to
    the class.

    Source: MGN (NeurIPS 2022), released code.

    Departs: "released" multiplies by 1 + softmax over time of a soft assignment (by a hard one
    itself), as the code does. For T = 10 this factor lies between 1.039 and 1.232, so a class is
    nearly always in all segments or in none; what exceeds 1 is set to 1. "assignment" is Eq. 18 of
    the paper, which few segments would pass. "relative" is ours. Behind an encoder without class
    tokens the decoder has its own, which start at small random values, because equal tokens would
    leave several maps without gradient.

    Shape: video [B, C] logits for audio, visual and av; segment [B, T, C] probabilities for audio
    and visual, with `product` also av; aux: token_scores_audio and token_scores_visual [C, C] (rows
    are tokens), assignment_audio, assignment_visual, factor_audio and factor_visual [B, C, T].
    """

    name = "group"
    Config = GroupingDecoderConfig
    about = (
        "The decoder of MGN groups the segments by learned class tokens and scores each class from "
        "its group"
    )
    closed = "The grouping decoder has one token per class that it was trained on"
    paper = MGN.paper
    fixed = {"apart": {"product": False}, "joint": {"product": True}}

    @classmethod
    def gives(cls, config: GroupingDecoderConfig) -> Gives:
        """Return a pooled probability of the whole clip, and the scores of the class tokens."""
        return frozenset({"pooled", "token scores"})

    @classmethod
    def encoder_options(cls, encoder: type[Encoder]) -> Options:
        """Return grouped audio and one token per class for MGN's encoder, as published."""
        published = {"audio_segments": "grouped", "tokens": None}
        return published if issubclass(encoder, MGN) else {}

    @classmethod
    def options_for(cls, needs: Needs, encoder: type[Encoder]) -> Options:
        """Return the tokens of the encoder if it has some, and for a joint stream the factor."""
        options = dict(super().options_for(needs, encoder))
        if "tokens" in (encoder.gives(encoder.Config()) or ()):
            options["tokens"] = "encoder"
        if needs.streams == "joint":
            options["segment_factor"] = "relative"
        return options

    @classmethod
    def scores_background(cls, needs: Needs, encoder: type[Encoder]) -> bool:
        """Return False, because the classes are independent here."""
        return False

    @classmethod
    def check(
        cls,
        config: GroupingDecoderConfig,
        needs: Needs,
        encoder: type[Encoder],
        encoder_config: Any,
    ) -> list[Rule]:
        """Refuse tokens that the encoder does not give."""
        super().check(config, needs, encoder, encoder_config)
        if config.tokens == "encoder" and "tokens" not in (encoder.gives(encoder_config) or ()):
            raise UsageError(
                f"decoder_config.tokens is 'encoder', but {encoder.name} has no class tokens; "
                "use own"
            )
        hard = "hard" in (config.assignment, config.joint_assignment)
        return [("gumbel_noise", hard, "a hard assignment or joint_assignment")]

    def __init__(
        self, *, config: GroupingDecoderConfig, width: int, num_classes: int, label_dim: int = 0
    ) -> None:
        super().__init__()
        self.config = config
        divides(config, "heads", width, "width")
        hard, joint_hard = (x == "hard" for x in (config.assignment, config.joint_assignment))
        self.audio_grouping = Grouping(config, width, tokens=num_classes, hard=hard)
        self.visual_grouping = Grouping(config, width, tokens=num_classes, hard=hard)
        self.joint_blocks = nn.Sequential(*(Block(config, width) for _ in range(config.layers)))
        self.joint_grouping = Grouping(config, width, tokens=num_classes, hard=joint_hard)
        self.audio_score, self.visual_score = nn.Linear(width, 1), nn.Linear(width, 1)
        self.joint_score = nn.Linear(width, 1)
        self.token_classes = nn.Linear(width, num_classes)
        published_start(self)
        if config.tokens == "own":
            self.audio_tokens = nn.Parameter(torch.empty(num_classes, width))
            self.visual_tokens = nn.Parameter(torch.empty(num_classes, width))
            nn.init.trunc_normal_(self.audio_tokens, std=0.02)
            nn.init.trunc_normal_(self.visual_tokens, std=0.02)

    def forward(self, encoding: Encoding, label_embeddings: Tensor | None = None) -> Parse:
        """Parse the encoded clip; label embeddings are not read."""
        learned, tokens = self._tokens(encoding)
        audio = self.audio_grouping(encoding.audio, tokens[0])
        visual = self.visual_grouping(encoding.visual, tokens[1])
        joint = self.group_both(audio.groups, visual.groups)
        video = [
            at_least_single(score(grouped.groups).squeeze(-1))  # (B, C)
            for score, grouped in (
                (self.audio_score, audio),
                (self.visual_score, visual),
                (self.joint_score, joint),
            )
        ]
        factors = [self._factor(grouped) for grouped in (audio, visual)]  # (B, C, T) each
        segments = [
            (logit.sigmoid()[:, None, :] * factor.mT).clamp(max=1)  # (B, T, C)
            for logit, factor in zip(video, factors, strict=False)
        ]
        segment = StreamPredictions(*(Prediction(p, "probability") for p in segments))
        if self.config.product:
            segment.av = Prediction(segments[0] * segments[1], "probability")
        return Parse(
            segment=segment,
            video=StreamPredictions(*(Prediction(logit) for logit in video)),
            aux={
                "token_scores_audio": at_least_single(self.token_classes(learned[0])),
                "token_scores_visual": at_least_single(self.token_classes(learned[1])),
                "assignment_audio": audio.assignment,
                "assignment_visual": visual.assignment,
                "factor_audio": factors[0],
                "factor_visual": factors[1],
            },
        )

    def group_both(self, audio: Tensor, visual: Tensor) -> Grouped:
        """Let the groups of both streams attend to each other; assign the audio to the visual ones.

        Shape: two [B, C, D] -> groups [B, C, D].
        """
        heard, seen = self.joint_blocks(torch.cat([audio, visual], dim=1)).chunk(2, dim=1)
        return self.joint_grouping(heard, seen)

    def _tokens(self, encoding: Encoding) -> tuple[list[Tensor], list[Tensor]]:
        """Return the tokens as learned [C, D], and as grouped by [C, D] or [B, C, D]."""
        if self.config.tokens == "own":
            own: list[Tensor] = [self.audio_tokens, self.visual_tokens]
            return own, own
        aux = encoding.aux
        if "tokens_audio" not in aux:
            raise ValueError("MGN is set to read class tokens, which this encoder does not give")
        return (
            [aux["class_tokens_audio"], aux["class_tokens_visual"]],
            [aux["tokens_audio"], aux["tokens_visual"]],
        )

    def _factor(self, grouped: Grouped) -> Tensor:
        """Return what multiplies the probability of a class in each segment: [B, C, T]."""
        assignment = at_least_single(grouped.assignment)
        if self.config.segment_factor == "relative":
            return assignment / assignment.amax(dim=-1, keepdim=True).clamp(min=1e-6)
        if self.config.segment_factor == "assignment" or self.config.assignment == "hard":
            return assignment
        return 1 + at_least_single(grouped.soft).softmax(dim=-1)
