"""Guide networks: each reads one modality alone, and teaches the model what it heard or saw."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from avplatform.models.contracts import FeatureSpec, at_least_single
from avplatform.models.encoders.han import HANConfig, HANLayer
from avplatform.models.stem import VectorStem

AUDIO_PASSES, AUDIO_LAYERS = 4, 1
VISUAL_PASSES, VISUAL_LAYERS = 3, 2


class Guides(nn.Module):
    """The audio and the visual guide network, with a stem of their own, as `AVModel.companion`.

    They are needed in training only: no prediction reads them.

    Source: DHHN (ACM MM 2022), released code; its paper calls them modality-wise guiding networks.

    Args:
        features: the features of the dataset.
        num_classes: C.
        width: model width D.
        heads: attention heads.
        hidden: feed-forward width.
        dropout: dropout in the transformers.
        pool_first: average the frames of a segment before the affine map, see `VectorStem`.
        audio_rate: learning rate of the audio guide as a multiple of the model's.
        visual_rate: learning rate of the visual guide, likewise.

    Shape: audio [B, T, Da], visual [B, T*k, Dv] or [B, T, H, W, Dv], motion [B, T, Dm] or None ->
    guide_audio and guide_visual [B, C], probabilities of the video labels.
    """

    def __init__(
        self,
        *,
        features: FeatureSpec,
        num_classes: int,
        width: int = 512,
        heads: int = 8,
        hidden: int = 512,
        dropout: float = 0.1,
        pool_first: bool = True,
        audio_rate: float = 2.0,
        visual_rate: float = 0.2,
    ) -> None:
        super().__init__()
        self.stem = VectorStem(features=features, width=width, pool_first=pool_first)
        layer = dict(width=width, heads=heads, hidden=hidden, dropout=dropout)
        self.audio = Guide(num_classes, AUDIO_PASSES, AUDIO_LAYERS, layer)
        self.visual = Guide(num_classes, VISUAL_PASSES, VISUAL_LAYERS, layer)
        self.lr_scales = {
            "audio.": audio_rate,
            "stem.audio.": audio_rate,
            "visual.": visual_rate,
            "stem.": visual_rate,
        }
        """Factors of the learning rate by the beginning of a parameter's name; the first counts."""

    def forward(
        self, audio: Tensor, visual: Tensor, motion: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the video probabilities of both guides."""
        heard, seen = self.stem(audio, visual, motion)
        return {"guide_audio": self.audio(heard), "guide_visual": self.visual(seen)}


class Guide(nn.Module):
    """A transformer encoder applied several times, each time with a residual, and MIL pooling.

    Shape: [B, T, D] -> [B, C].
    """

    def __init__(self, num_classes: int, passes: int, layers: int, layer: dict[str, Any]) -> None:
        super().__init__()
        self.passes = passes
        config = HANConfig(**layer, cross=False)
        self.layers = nn.ModuleList(HANLayer(config) for _ in range(layers))
        for other in self.layers[1:]:  # the published layers start as copies
            other.load_state_dict(self.layers[0].state_dict())
        self.classifier = nn.Linear(config.width, num_classes)
        self.segment_attention = nn.Linear(config.width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the probabilities of the video."""
        for _ in range(self.passes):
            x = x + self.encode(x)
        weight = at_least_single(self.segment_attention(x)).softmax(dim=1)  # (B, T, C)
        return (weight * at_least_single(self.classifier(x)).sigmoid()).sum(dim=1)

    def encode(self, x: Tensor) -> Tensor:
        """Return what the transformer makes of the segments in one pass, without the residual."""
        for layer in self.layers:
            x = layer(x, cross=False)
        return x
