"""DHHN's encoder: a hybrid attention layer over three temporal scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avplatform.models.checks import DEPTH, check_choices, divides, in_range, sizes
from avplatform.models.contracts import Encoder, Encoding, Gives, Publication
from avplatform.models.encoders.han import HANConfig, HANLayer
from avplatform.models.errors import UsageError

MOST = 1024
"""Most segments of a kernel or a stride."""


@dataclass(kw_only=True)
class DHHNConfig:
    """Options of the DHHN encoder; the defaults are the published DHHN."""

    width: int = 512
    """model width D"""
    heads: int = 1
    """attention heads"""
    hidden: int = 512
    """feed-forward width"""
    dropout: float = 0.1
    """dropout on attention weights, attention outputs and feed-forward"""
    kernels: tuple[int, ...] = (1, 3, 5)
    """width of the convolution of each scale in segments, odd"""
    strides: tuple[int, ...] = (1, 2, 5)
    """segments per step of each scale"""
    with_input: bool = False
    """add the stem's features to all levels, as in the paper's figure (not in the code)"""
    map_reduction: Literal["mean", "attention"] = "mean"
    """how a visual map becomes a vector: mean over positions, or AVE's audio-guided attention"""

    def __post_init__(self) -> None:
        check_choices(self)
        sizes(self, "width", "heads", "hidden")
        in_range(self, "dropout", 0, 0.999)
        divides(self, "heads", self.width, "width")
        self.kernels, self.strides = tuple(self.kernels), tuple(self.strides)
        kernels, strides = _whole(self.kernels), _whole(self.strides)
        if not 1 <= len(kernels) <= DEPTH or any(kernel % 2 == 0 for kernel in kernels):
            raise UsageError(
                f"DHHNConfig.kernels is {list(self.kernels)}; it must be a list of odd numbers of "
                f"segments up to {MOST - 1}, such as [1, 3, 5]"
            )
        if len(strides) != len(kernels) or 0 in strides:
            raise UsageError(
                f"DHHNConfig.strides is {list(self.strides)}; it must hold a number of segments "
                f"from 1 to {MOST} for each of the {len(self.kernels)} kernels"
            )


def _whole(values: tuple[Any, ...]) -> tuple[int, ...]:
    """Return values, with 0 in place of what is not a whole number from 1 to `MOST`."""
    return tuple(v if type(v) is int and 1 <= v <= MOST else 0 for v in values)


class DHHN(Encoder):
    """Convolve each stream at several temporal scales; one hybrid attention layer reads them all.

    Level s is the sum of what the layer gives at the scales 1 to s, each repeated to T segments.
    The encoding is the last level; DHHN's own decoder reads all of them.

    Source: DHHN (ACM MM 2022), released code.

    Departs: as in the released code, neither the features before the convolution nor those of the
    stem are added, unlike in the paper's figure (`with_input` adds the latter). Batch norms use the
    clips that one process computes at once, so several processes or micro-batches give other
    statistics than one. Where that is a single step of a single clip, the running statistics are
    used, because one value has no variance. The published test reads audio and visual from two
    checkpoints of one run; here a model has one set of weights, of one epoch.

    Shape: audio and visual [B, T, D] -> audio and visual [B, T, D]; aux: levels_audio and
    levels_visual [B, L, T, D], the levels of the L scales.
    """

    name = "dhhn"
    Config = DHHNConfig
    wants = "vectors"
    about = (
        "The encoder DHHN lets segments and longer steps of both streams attend to each other, at "
        "three temporal scales"
    )
    paper = Publication(
        paper="DHHN",
        venue="ACM MM 2022",
        authors="Jiang et al.",
        citation="""@inproceedings{jiang2022dhhn,
  title = {{DHHN}: Dual Hierarchical Hybrid Network for Weakly-Supervised Audio-Visual Video \
Parsing},
  author = {Jiang, Xun and Xu, Xing and Chen, Zhiguo and Zhang, Jingran and Song, Jingkuan and \
Shen, Fumin and Lu, Huimin and Shen, Heng Tao},
  booktitle = {Proceedings of the 30th ACM International Conference on Multimedia},
  year = {2022}
}""",
    )
    recipes = {
        "dhhn": {
            "optim": {"lr": 3e-4},
            "schedule": {"name": "epoch_decay", "factor": 0.1, "every": 10},
            "epochs": 10,
            "batch_size": 64,
            "ties": "first",
        },
        "dhhn-refined": {
            "optim": {"lr": 3e-4},
            "schedule": {"name": "epoch_decay", "factor": 0.1, "every": 10},
            "epochs": 5,
            "batch_size": 64,
            "ties": "first",
        },
    }

    @classmethod
    def gives(cls, config: DHHNConfig) -> Gives:
        """Return the levels."""
        return frozenset({"levels"})

    def __init__(
        self, *, config: DHHNConfig, audio_dim: int, visual_dim: int, positions: int = 1
    ) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        scales = list(zip(config.kernels, config.strides, strict=True))
        self.audio_scales = nn.ModuleList(Scale(config.width, *scale) for scale in scales)
        self.visual_scales = nn.ModuleList(Scale(config.width, *scale) for scale in scales)
        self.layer = HANLayer(
            HANConfig(
                width=config.width,
                heads=config.heads,
                hidden=config.hidden,
                dropout=config.dropout,
            )
        )

    def forward(self, audio: Tensor, visual: Tensor) -> Encoding:
        """Encode both streams; see the class docstring for shapes."""
        clips, segments = audio.shape[:2]
        streams = torch.cat([audio, visual])  # (2B, T, D)
        level = streams if self.config.with_input else torch.zeros_like(streams)
        levels = []
        for hear, see in zip(self.audio_scales, self.visual_scales, strict=True):
            steps = self.layer(torch.cat([hear(audio), see(visual)]))  # (2B, T', D)
            level = level + repeated(steps, segments)
            levels.append(level)
        stacked = torch.stack(levels, dim=1)  # (2B, L, T, D)
        aux = {"levels_audio": stacked[:clips], "levels_visual": stacked[clips:]}
        return Encoding(audio=level[:clips], visual=level[clips:], aux=aux)


class Scale(nn.Module):
    """A convolution over time, batch norm and ReLU.

    Shape: [B, T, D] -> [B, T', D], where T' is T over the stride, rounded up or down.
    """

    def __init__(self, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(
            width, width, kernel, stride=stride, padding=kernel // 2, bias=False
        )
        self.norm = StepNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        return self.norm(self.convolution(x.mT)).relu().mT


class StepNorm(nn.BatchNorm1d):
    """Batch norm that uses its running statistics where the batch has a single step.

    Shape: [B, D, T'] -> [B, D, T'].
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel over clips and steps."""
        if not self.training or x.shape[0] * x.shape[2] > 1:
            return super().forward(x)
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


def repeated(steps: Tensor, segments: int) -> Tensor:
    """Repeat T' steps so that segment i of T reads step floor(i T' / T).

    Shape: [B, T', D] -> [B, T, D].
    """
    index = torch.arange(segments, device=steps.device) * steps.shape[1] // segments
    return steps[:, index]
