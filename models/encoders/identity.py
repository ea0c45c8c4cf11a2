"""The encoder that changes nothing, for decoders that compare features with texts directly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from avplatform.models.checks import check_choices, sizes
from avplatform.models.contracts import Encoder, Encoding, Gives, Rule
from avplatform.models.encoders.temporal import Temporal, check_scale, scaled, space_rule


@dataclass(kw_only=True)
class IdentityConfig:
    """Options of the encoder that changes nothing."""

    width: int | None = None
    """project both streams to this width D; none: take the features as they are"""
    space: Literal["auto", "shared", "apart"] = "auto"
    """features as they are: one space; apart: side by side; auto: by whether the widths agree"""
    input_scale: tuple[float, float] | None = None
    """norms that audio and visual vectors get (ImageBind: 20 and 1); none: as they are"""

    def __post_init__(self) -> None:
        check_choices(self)
        sizes(self, "width")
        check_scale(self)


class Identity(Encoder):
    """Return both streams as they are, with the norms of `input_scale` where it is given.

    Without `width` it has no parameters. Behind it, the decoder cosine needs no training.

    Source: OV-AVEL (CVPR 2025), the baseline without training.

    Shape: audio and visual [B, T, D] -> audio and visual [B, T, D].
    """

    name = "identity"
    Config = IdentityConfig
    wants = "vectors"
    about = "The encoder identity passes the features on as they are"
    paper = Temporal.paper
    recipes = {"identity": {"optim": {"lr": 5e-5}, "epochs": 1, "batch_size": 32}}

    @classmethod
    def gives(cls, config: IdentityConfig) -> Gives:
        """Return nothing: both streams are all there is."""
        return frozenset()

    @classmethod
    def unread(cls, config: IdentityConfig) -> list[Rule]:
        """Return the rule of the space of the features."""
        return [space_rule(config)]

    def __init__(
        self, *, config: IdentityConfig, audio_dim: int, visual_dim: int, positions: int = 1
    ) -> None:
        super().__init__()
        self.config, self.width = config, audio_dim

    def forward(self, audio: Tensor, visual: Tensor) -> Encoding:
        """Return the streams; see the class docstring for shapes."""
        return Encoding(*scaled(audio, visual, self.config.input_scale))
