"""The losses of guide networks, which each know one modality and teach the model (DHHN)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from avplatform.models.checks import at_least, sizes
from avplatform.models.config import AVModelConfig
from avplatform.models.contracts import Encoding, Parse, Rule, at_least_single
from avplatform.models.errors import UsageError
from avplatform.models.guides import Guides
from avplatform.tasks.losses import CLAMP, clamped_bce

HEADS = 8
"""Attention heads of the guide networks, as published."""


@dataclass(kw_only=True)
class GuideOptions:
    """The options of guide networks, which the configs of tasks inherit."""

    guides: bool = False
    """train with two guide networks, one per modality, whom the model follows (DHHN)"""
    guide_width: int = 512
    """width of the guide networks"""
    guide_audio_rate: float = 2.0
    """learning rate of the audio guide as a multiple of the model's"""
    guide_visual_rate: float = 0.2
    """learning rate of the visual guide as a multiple of the model's"""


def check_guides(config: GuideOptions) -> None:
    """Raise UsageError for options of guides that are out of range."""
    at_least(config, ("guide_audio_rate", "guide_visual_rate"), 1e-6)
    sizes(config, "guide_width")
    if config.guide_width % HEADS:
        raise UsageError(
            f"{type(config).__name__}.guide_width is {config.guide_width}; "
            f"it must be a multiple of {HEADS}, the number of attention heads"
        )


def guide_networks(config: GuideOptions, model: AVModelConfig) -> Guides | None:
    """Return new guide networks for a model, if the options of a task ask for them."""
    if not config.guides:
        return None
    return Guides(
        features=model.features,
        num_classes=len(model.classes),
        width=config.guide_width,
        heads=HEADS,
        hidden=config.guide_width,
        pool_first=not model.reference_order,
        audio_rate=config.guide_audio_rate,
        visual_rate=config.guide_visual_rate,
    )


def guide_rules(config: GuideOptions) -> list[Rule]:
    """Return the rules of the options of guides."""
    names = ("guide_width", "guide_audio_rate", "guide_visual_rate")
    return [(name, config.guides, "guides") for name in names]


def guide_losses(
    parse: Parse,
    encoding: Encoding,
    audio_target: Tensor,
    visual_target: Tensor,
    *,
    apart: float = 0.0,
) -> dict[str, Tensor]:
    """Return the losses of both guides, and those that make the model follow them.

    The guides learn the video labels; the model follows the probabilities of the guide of each
    stream, which have no gradient in these terms. With `apart`, both streams of the model, and both
    guides, are pushed apart. Without guides (outside training) there are no terms.

    Source: DHHN (ACM MM 2022), released code, where the terms are mean squares; its figure has
    roots of them.

    Shape: targets [B, C].
    """
    if "guide_audio" not in encoding.aux:
        return {}
    pairs = zip((parse.video.audio, parse.video.visual), ("audio", "visual"), strict=True)
    own: dict[str, Tensor] = {}
    guides: dict[str, Tensor] = {}
    for prediction, stream in pairs:
        if prediction is None:
            raise ValueError("guides need video predictions of both streams")
        own[stream] = prediction.probability.clamp(CLAMP, 1 - CLAMP)
        guides[stream] = at_least_single(encoding.aux[f"guide_{stream}"]).clamp(CLAMP, 1 - CLAMP)
    terms = {
        "follow_audio": _distance(own["audio"], guides["audio"].detach()),
        "follow_visual": _distance(own["visual"], guides["visual"].detach()),
        "guide_audio": clamped_bce(guides["audio"], audio_target),
        "guide_visual": clamped_bce(guides["visual"], visual_target),
    }
    if apart:
        terms["apart"] = -apart * _distance(own["audio"], own["visual"])
        terms["guide_apart"] = -apart * _distance(guides["audio"], guides["visual"])
    return terms


def _distance(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).square().mean()
