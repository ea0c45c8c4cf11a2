"""AVE's encoder: audio-guided attention and a bidirectional LSTM per stream; DMRN fuses both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from avplatform.models.checks import DEPTH, check_choices, sizes
from avplatform.models.contracts import Encoder, Encoding, Gives, Publication, Rule
from avplatform.models.layers.audio_guided_attention import AudioGuidedAttention


@dataclass(kw_only=True)
class AVEConfig:
    """Options of the AVE encoder; the defaults are those of the published supervised model."""

    variant: Literal["att", "dmrn"] = "att"
    """att: attention and LSTMs; dmrn: residual fusion on top"""
    attention_width: int = 512
    """hidden width of the audio-guided attention"""
    lstm_width: int = 128
    """width of each LSTM direction; the streams come out twice as wide"""
    residual_blocks: int = 1
    """how often DMRN's residual block is applied (with the same weights)"""
    official_init: bool = True
    """Xavier weights in the attention, as published for att"""

    def __post_init__(self) -> None:
        check_choices(self)
        sizes(self, "attention_width", "lstm_width")
        sizes(self, "residual_blocks", most=DEPTH)


def _recipe(epochs: int) -> dict[str, Any]:
    return {
        "schedule": {"name": "step_decay", "factor": 0.1, "every": 15000},
        "epochs": epochs,
        "batch_size": 64,
        "seed": 3344,
        "ties": "first",
    }


class AVE(Encoder):
    """Audio-guided visual attention, then one LSTM per stream.

    Source: AVE (ECCV 2018), sections 4.1 to 4.3.

    Departs: the published code of DMRN swaps the residuals between the modalities: the output of
    each stream is the other stream plus the mean update; we follow the code.

    Shape: audio [B, T, Da], visual [B, T, P, Dv] -> audio and visual [B, T, 2 * lstm_width], and
    with "dmrn" fused of the same shape.
    """

    name = "ave"
    Config = AVEConfig
    wants = "maps"
    about = (
        "The encoder AVE attends to the picture guided by the sound, and runs one LSTM per stream"
    )
    paper = Publication(
        paper="AVE",
        venue="ECCV 2018",
        authors="Tian et al.",
        citation="""@inproceedings{tian2018ave,
  title = {Audio-Visual Event Localization in Unconstrained Videos},
  author = {Tian, Yapeng and Shi, Jing and Li, Bochen and Duan, Zhiyao and Xu, Chenliang},
  booktitle = {European Conference on Computer Vision},
  year = {2018}
}""",
    )
    recipes = {"ave": _recipe(300), "ave-weak": _recipe(250)}
    pooling = "max"

    @classmethod
    def gives(cls, config: AVEConfig) -> Gives:
        """Return a fused stream for DMRN."""
        return frozenset({"fused"} if config.variant == "dmrn" else ())

    @classmethod
    def own_head(cls, config: AVEConfig) -> str | None:
        """Return the head of DMRN; the other variant has the default form."""
        return "dmrn" if config.variant == "dmrn" else None

    @classmethod
    def unread(cls, config: AVEConfig) -> list[Rule]:
        """Return one option per variant, which the other variant does not read."""
        dmrn = config.variant == "dmrn"
        return [
            ("residual_blocks", dmrn, "variant dmrn"),
            ("official_init", not dmrn, "variant att"),
        ]

    def __init__(
        self, *, config: AVEConfig, audio_dim: int, visual_dim: int, positions: int
    ) -> None:
        super().__init__()
        each = config.lstm_width
        self.config, self.width = config, 2 * each
        self.attention = AudioGuidedAttention(
            audio_dim=audio_dim,
            visual_dim=visual_dim,
            positions=positions,
            width=config.attention_width,
            xavier=config.official_init and config.variant == "att",
        )
        self.audio_lstm = nn.LSTM(audio_dim, each, batch_first=True, bidirectional=True)
        self.visual_lstm = nn.LSTM(visual_dim, each, batch_first=True, bidirectional=True)
        if config.variant == "dmrn":
            self.audio_update = _update(self.width)
            self.visual_update = _update(self.width)

    def forward(self, audio: Tensor, visual: Tensor) -> Encoding:
        """Encode both streams."""
        attended, weights = self.attention(audio, visual)
        a, v = self.audio_lstm(audio)[0], self.visual_lstm(attended)[0]  # (B, T, D)
        aux = {"spatial_attention": weights, "attended_visual": attended}
        aux |= {"lstm_audio": a, "lstm_visual": v}
        fused = None
        if self.config.variant == "dmrn":
            for _ in range(self.config.residual_blocks):
                aux["audio_update"] = self.audio_update(a)
                aux["visual_update"] = self.visual_update(v)
                mixed = (aux["visual_update"] + aux["audio_update"]) / 2
                a, v = torch.tanh(v + mixed), torch.tanh(a + mixed)  # swapped, as published
            fused = (a + v) / 2
        return Encoding(audio=a, visual=v, fused=fused, aux=aux)


def _update(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))
