"""MM-Pyr, the multi-modal pyramid: attention and convolution over windows of growing length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from avplatform.models.checks import check_choices, divides, in_range, sizes
from avplatform.models.contracts import Encoder, Encoding, Gives, Publication
from avplatform.models.errors import UsageError
from avplatform.models.layers.attention import AttentionUnit

NEAR = 16  # dilation up to which a convolution is a matrix product
LEVELS = 16  # with 16 levels, the highest one sees 32,768 segments to each side


@dataclass(kw_only=True)
class MMPyrConfig:
    """Options of the MM-Pyr encoder; by default the published model with its streams in order."""

    width: int = 512
    """model width D"""
    heads: int = 8
    """attention heads"""
    hidden: int = 512
    """feed-forward width"""
    levels: int = 4
    """pyramid levels; level i sees 2**i segments to each side"""
    kernel: int = 3
    """width of the dilated convolution"""
    dropout: float = 0.2
    """dropout of the attention units"""
    attention_dropout: float = 0.1
    """dropout on attention weights"""
    official_slot_order: bool = False
    """return the visual stream as audio and the audio stream as visual, as published"""
    reference_order: bool = False
    """cross directions one by one and convolutions as published: the same bits, slower"""
    official_init: bool = True
    """start maps, feed-forwards and fusion units as copies, as the released code does"""

    map_reduction: Literal["mean", "attention"] = "mean"
    """how a visual map becomes a vector: mean over positions, or AVE's audio-guided attention"""

    def __post_init__(self) -> None:
        check_choices(self)
        sizes(self, "width", "heads", "hidden", "kernel")
        sizes(self, "levels", most=LEVELS)
        if self.kernel % 2 == 0:
            raise UsageError(
                f"MMPyrConfig.kernel is {self.kernel}; "
                "it must be odd, so that the window has a middle segment"
            )
        in_range(self, ("dropout", "attention_dropout"), 0, 0.999)
        divides(self, "heads", self.width, "width")


class MMPyr(Encoder):
    """Pyramid of windowed self and cross attention and dilated convolutions, fused over levels.

    Source: MM-Pyramid (ACM MM 2022), section 3.

    Departs: the published script swaps the streams on output; the default here does not.

    Shape: audio and visual [B, T, D] -> audio and visual [B, T, D]; aux: audio_levels and
    visual_levels [B, T, L, D].
    """

    name = "mmpyr"
    Config = MMPyrConfig
    wants = "vectors"
    about = (
        "The encoder MM-Pyr attends and convolves over windows of growing length, then weighs the "
        "levels"
    )
    paper = Publication(
        paper="MM-Pyramid",
        venue="ACM MM 2022",
        authors="Yu et al.",
        citation="""@inproceedings{yu2022mmpyramid,
  title = {MM-Pyramid: Multimodal Pyramid Attentional Network for Audio-Visual Event \
Localization and Video Parsing},
  author = {Yu, Jiashuo and Cheng, Ying and Zhao, Rui-Wei and Feng, Rui and Zhang, Yuejie},
  booktitle = {ACM International Conference on Multimedia},
  year = {2022}
}""",
    )
    recipes = {
        "mmpyr": {
            "optim": {"lr": 1e-4},
            "schedule": {"name": "epoch_decay", "factor": 0.1, "every": 10},
            "epochs": 40,
            "batch_size": 16,
        }
    }

    @classmethod
    def gives(cls, config: MMPyrConfig) -> Gives:
        """Return nothing in addition to both streams."""
        return frozenset()

    def __init__(
        self, *, config: MMPyrConfig, audio_dim: int, visual_dim: int, positions: int = 1
    ) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.levels = nn.ModuleList(PyramidLevel(config, reach=2**i) for i in range(config.levels))
        self.audio_fusion = AttentionUnit(config, config.width)
        self.visual_fusion = AttentionUnit(config, config.width)
        self.audio_select = nn.Linear(config.width, 1)
        self.visual_select = nn.Linear(config.width, 1)
        if config.official_init:
            self._copy()

    def forward(self, audio: Tensor, visual: Tensor) -> Encoding:
        """Encode both streams."""
        audio_levels, visual_levels = [], []
        for level in self.levels:
            audio, visual = level(audio, visual)
            audio_levels.append(audio)
            visual_levels.append(visual)
        a, v = torch.stack(audio_levels, dim=2), torch.stack(visual_levels, dim=2)  # (B, T, L, D)
        audio = _choose(a, self.audio_fusion, self.audio_select)
        visual = _choose(v, self.visual_fusion, self.visual_select)
        if self.config.official_slot_order:
            audio, visual = visual, audio
        return Encoding(audio=audio, visual=visual, aux={"audio_levels": a, "visual_levels": v})

    def _copy(self) -> None:
        levels: list[Any] = list(self.levels)
        first = levels[0].visual_self.feedforward.state_dict()
        for level in levels:
            for unit in (level.visual_self, level.audio_self, level.cross):
                unit.feedforward.load_state_dict(first)
        self.visual_fusion.load_state_dict(self.audio_fusion.state_dict())


class PyramidLevel(nn.Module):
    """One level: windowed self and cross attention of both streams, gated, then a convolution.

    Shape: audio and visual [B, T, D] -> audio and visual [B, T, D].
    """

    def __init__(self, config: MMPyrConfig, *, reach: int) -> None:
        super().__init__()
        self.reach, self.reference_order = reach, config.reference_order
        width = config.width
        self.visual_self = AttentionUnit(config, width)
        self.audio_self = AttentionUnit(config, width)
        self.cross = AttentionUnit(config, width)
        self.visual_gates = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(2))
        self.audio_gates = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(2))
        self.visual_temporal = TemporalBlock(config, dilation=reach)
        self.audio_temporal = TemporalBlock(config, dilation=reach)

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Return both streams of this level."""
        audio, visual = self.integrate(audio, visual)
        return self.audio_temporal(audio), self.visual_temporal(visual)

    def integrate(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Return both streams after attention and gates; the cross unit serves both directions."""
        mask = window(audio.shape[1], self.reach, audio.device)
        if self.reference_order:
            visual_cross = self.cross(visual, audio, mask)
            audio_cross = self.cross(audio, visual, mask)
        else:
            both, other = torch.cat([visual, audio]), torch.cat([audio, visual])
            visual_cross, audio_cross = self.cross(both, other, mask).chunk(2)
        visual = _gated(self.visual_self(visual, visual, mask), visual_cross, self.visual_gates)
        audio = _gated(self.audio_self(audio, audio, mask), audio_cross, self.audio_gates)
        return audio, visual


class TemporalBlock(nn.Module):
    """Dilated convolution, ReLU and pointwise convolution, added to the input and rectified.

    Shape: [B, T, D] -> [B, T, D].
    """

    def __init__(self, config: MMPyrConfig, *, dilation: int) -> None:
        super().__init__()
        width, kernel = config.width, config.kernel
        self.kernel, self.dilation = kernel, dilation
        # A far reach would need much padding.
        self.products = not config.reference_order and dilation <= NEAR
        self.conv1 = nn.Conv1d(
            width, width, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2
        )
        self.conv2 = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve over time; as products of matrices this is faster where segments are few."""
        if not self.products:
            x = x.transpose(1, 2).contiguous()  # (B, D, T)
            y = self.conv2(self.conv1(x).relu())
            return (y + x).relu().transpose(1, 2).contiguous()
        segments, step = x.shape[1], self.dilation
        reach = step * (self.kernel - 1) // 2
        padded = F.pad(x, (0, 0, reach, reach))
        taps = [padded[:, i * step : i * step + segments] for i in range(self.kernel)]
        read = torch.stack(taps, dim=-1).flatten(2)  # (B, T, D * kernel)
        y = F.linear(read, self.conv1.weight.flatten(1), self.conv1.bias).relu()
        return (F.linear(y, self.conv2.weight.flatten(1), self.conv2.bias) + x).relu()


def window(segments: int, reach: int, device: torch.device) -> Tensor:
    """Return which segments may see each other: bool [T, T], True for at most `reach` apart."""
    t = torch.arange(segments, device=device)
    return (t[:, None] - t[None, :]).abs() <= reach


def _gated(own: Tensor, cross: Tensor, gates: nn.ModuleList) -> Tensor:
    """Weight self and cross attention elementwise by gates that read both."""
    both = torch.cat([own, cross], dim=-1)
    return gates[0](both).sigmoid() * own + gates[1](both).sigmoid() * cross


def _choose(levels: Tensor, unit: AttentionUnit, select: nn.Linear) -> Tensor:
    """Let the levels of a segment attend to each other, and add them up by learned gates.

    Shape: [B, T, L, D] -> [B, T, D].
    """
    sequence = rearrange(levels, "b t l d -> (b t) l d")
    z = unit(sequence, sequence)
    chosen = (select(z).sigmoid() * z).sum(dim=1)
    return chosen.unflatten(0, levels.shape[:2])
