"""MGN's encoder: transformers over segments and class tokens, and time grouping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from avplatform.models.checks import DEPTH, check_choices, divides, in_range, sizes
from avplatform.models.contracts import Encoder, Encoding, Gives, Publication, Rule
from avplatform.models.errors import DataError
from avplatform.models.layers.grouping import Block, Grouping, published_start


@dataclass(kw_only=True)
class MGNConfig:
    """Options of the MGN encoder; the widths are those of the published MGN."""

    width: int = 128
    """model width D"""
    heads: int = 8
    """attention heads"""
    hidden: int = 512
    """feed-forward width"""
    layers: int = 3
    """transformer blocks of each stream"""
    stochastic_depth: float = 0.1
    """probability that a clip skips a branch of a block in training"""
    tokens: int | None = None
    """learned tokens of each stream; none: one per class, as published"""
    audio_segments: Literal["plain", "grouped"] = "plain"
    """plain: row i is second i; grouped: audio regrouped by visual segments, as published"""
    time_assignment: Literal["hard", "soft"] = "hard"
    """how audio segments are assigned to visual ones; soft: published with hard class groups"""
    token_hidden: int = 64
    """width between the two maps that mix the visual segments as tokens (grouped)"""
    gumbel_noise: bool = True
    """noise on a hard assignment in training; off: always the nearest"""
    map_reduction: Literal["mean", "attention"] = "mean"
    """how a visual map becomes a vector: mean over positions, or AVE's audio-guided attention"""

    def __post_init__(self) -> None:
        check_choices(self)
        sizes(self, "width", "heads", "hidden", "tokens", "token_hidden")
        sizes(self, "layers", most=DEPTH)
        in_range(self, "stochastic_depth", 0, 0.999)
        divides(self, "heads", self.width, "width")


class MGN(Encoder):
    """Let the segments of each stream attend to each other and to one learned token per class.

    Only MGN's own decoder ties a token to its class. For others the tokens are places to look at:
    they start alike and have the same gradients, so they stay alike, and `tokens` may set their
    number. No weight then depends on the number of classes, and no token is given to a decoder.

    With `audio_segments` "grouped" the audio segments are then assigned to the visual segments of
    the stem and summed up, and the audio stream holds these sums.

    Source: MGN (NeurIPS 2022), released code.

    Departs: "plain" leaves the grouping out. The grouping mixes time: a row of the grouped audio
    stream is a group, which only training may tie to a second, so decoders that decide second by
    second cannot rely on it, and the weights hold for clips of one length only. MGN's own decoder
    is given grouped audio by default, the others plain audio. The stem keeps PyTorch's initial
    weights; the class tokens start at 0, as published.

    Shape: audio and visual [B, T, D] -> audio and visual [B, T, D]; aux: tokens_audio and
    tokens_visual [B, C, D], class_tokens_audio and class_tokens_visual [C, D] (as learned), unless
    `tokens` sets their number, and if grouped time_assignment [B, T, T] (visual, audio) and
    plain_audio [B, T, D].

    Raises:
        DataError: the clips are not as long as those of training (grouped).
    """

    name = "mgn"
    Config = MGNConfig
    wants = "vectors"
    sized = True
    about = (
        "The encoder MGN lets the segments of a stream attend to each other and to learned tokens "
        "of the classes"
    )
    paper = Publication(
        paper="MGN",
        venue="NeurIPS 2022",
        authors="Mo and Tian",
        citation="""@inproceedings{mo2022mgn,
  title = {Multi-modal Grouping Network for Weakly-Supervised Audio-Visual Video Parsing},
  author = {Mo, Shentong and Tian, Yapeng},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2022}
}""",
    )
    recipes = {
        "mgn": {
            "optim": {"lr": 3e-4},
            "schedule": {"name": "epoch_decay", "factor": 0.1, "every": 10},
            "epochs": 40,
            "batch_size": 16,
        }
    }

    @classmethod
    def gives(cls, config: MGNConfig) -> Gives:
        """Return the class tokens, if there is one per class."""
        return frozenset({"tokens"} if config.tokens is None else ())

    @classmethod
    def unread(cls, config: MGNConfig) -> list[Rule]:
        """Return the rules of the options of time grouping."""
        grouped = config.audio_segments == "grouped"
        hard = grouped and config.time_assignment == "hard"
        return [
            ("time_assignment", grouped, "audio_segments grouped"),
            ("token_hidden", grouped, "audio_segments grouped"),
            ("gumbel_noise", hard, "audio_segments grouped with a hard time_assignment"),
        ]

    def __init__(
        self,
        *,
        config: MGNConfig,
        audio_dim: int,
        visual_dim: int,
        positions: int = 1,
        num_classes: int,
        segments: int,
    ) -> None:
        super().__init__()
        self.config, self.width, self.segments = config, config.width, segments
        tokens = config.tokens or num_classes
        self.audio_tokens = nn.Parameter(torch.zeros(tokens, config.width))
        self.visual_tokens = nn.Parameter(torch.zeros(tokens, config.width))
        self.audio_blocks, self.visual_blocks = (
            nn.Sequential(*(Block(config, config.width) for _ in range(config.layers)))
            for _ in range(2)
        )
        if config.audio_segments == "grouped":
            self.time_grouping = Grouping(
                config, config.width, tokens=segments, hard=config.time_assignment == "hard"
            )
        published_start(self)

    def forward(self, audio: Tensor, visual: Tensor) -> Encoding:
        """Encode both streams; see the class docstring for shapes."""
        segments = audio.shape[1]
        if self.config.audio_segments == "grouped" and segments != self.segments:
            raise DataError(
                f"the clips have {segments} segments, but this model groups the audio of clips of "
                f"{self.segments} (encoder_config.audio_segments 'grouped'); give it clips of "
                f"{self.segments} segments, or train one with audio_segments plain"
            )
        heard, audio_tokens = self._attend(self.audio_blocks, audio, self.audio_tokens)
        seen, visual_tokens = self._attend(self.visual_blocks, visual, self.visual_tokens)
        aux: dict[str, Tensor] = {}
        if self.config.tokens is None:
            aux = {
                "tokens_audio": audio_tokens,
                "tokens_visual": visual_tokens,
                "class_tokens_audio": self.audio_tokens,
                "class_tokens_visual": self.visual_tokens,
            }
        if self.config.audio_segments == "grouped":
            grouped = self.time_grouping(heard, visual)
            aux |= {"time_assignment": grouped.assignment, "plain_audio": heard}
            heard = grouped.groups
        return Encoding(audio=heard, visual=seen, aux=aux)

    @staticmethod
    def _attend(blocks: nn.Module, stream: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Pass segments and tokens through the blocks: [B, T, D] and [B, C, D]."""
        rows = torch.cat([stream, tokens.expand(stream.shape[0], -1, -1)], dim=1)  # (B, T + C, D)
        found = blocks(rows)
        return found[:, : stream.shape[1]], found[:, stream.shape[1] :]
