"""What flows between stem, encoder, decoder and task.

Axes everywhere: B clips, T segments (one second each in LLP and AVE), C classes, D model width, P map positions,
E label-embedding width. All tensors are batch-first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from avplatform.models.checks import MAP_EDGE, sizes
from avplatform.models.errors import UsageError

STREAMS = ("audio", "visual", "av")


@dataclass
class Encoding:
    """What an encoder makes of the two feature streams.

    Shape: audio, visual and fused are [B, T, D]; `aux` holds named extras (spatial_attention [B, T, P], ...).
    """

    audio: Tensor
    visual: Tensor
    fused: Tensor | None = None
    aux: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Prediction:
    """Scores of one stream, tagged with what they are.

    `kind` is "logit" or "probability"; `activation` is the function that turns its logits into probabilities:
    "sigmoid" (classes are independent) or "softmax" over the last axis (classes exclude each other).

    Shape: values are [B, T, C] for segments and [B, C] for videos.
    """

    values: Tensor
    kind: Literal["logit", "probability"] = "logit"
    activation: Literal["sigmoid", "softmax"] = "sigmoid"

    @property
    def probability(self) -> Tensor:
        """Scores as probabilities, in at least single precision."""
        values = at_least_single(self.values)
        if self.kind == "probability":
            return values
        return values.sigmoid() if self.activation == "sigmoid" else values.softmax(dim=-1)

    @property
    def logit(self) -> Tensor:
        """Scores as logits, in at least single precision.

        Raises:
            ValueError: the model returned probabilities; the logits cannot be had back from them exactly.
        """
        if self.kind != "logit":
            raise ValueError("this prediction holds probabilities, not logits")
        return at_least_single(self.values)


@dataclass
class StreamPredictions:
    """One prediction per stream; a stream that a cell does not predict is None."""

    audio: Prediction | None = None
    visual: Prediction | None = None
    av: Prediction | None = None


@dataclass
class Parse:
    """What a decoder says about a clip, per segment and for the whole video.

    Shape: segment values [B, T, C], video values [B, C]; attention [B, stream, C, T] with streams in the order
    audio, visual; relevance [B, T].
    """

    segment: StreamPredictions = field(default_factory=StreamPredictions)
    video: StreamPredictions = field(default_factory=StreamPredictions)
    attention: Tensor | None = None
    relevance: Prediction | None = None
    aux: dict[str, Tensor] = field(default_factory=dict)
    queried_by_labels: bool = False  # LEAP: segments and video are scored by class texts


class Output(NamedTuple):
    """What `AVModel` returns: the parse, and the encoding that it was made from (losses on features need it)."""

    parse: Parse
    encoding: Encoding


class Encoder(nn.Module):
    """Base of all encoders: two feature streams in, an `Encoding` out.

    A subclass sets `wants` and takes keyword arguments only: `config` (its own dataclass), `audio_dim`,
    `visual_dim` and `positions` (P, the number of map positions, 1 for vectors). The stem gives it

    * wants = "vectors": audio [B, T, config.width] and visual [B, T, config.width], already projected;
    * wants = "maps": the raw audio vectors [B, T, audio_dim] and a map [B, T, P, visual_dim] (P = 1 for datasets of
      vectors).

    It must set `self.width`, the D of what it returns.
    """

    Config: ClassVar[type]
    wants: Literal["vectors", "maps"] = "vectors"
    width: int

    def forward(self, audio: Tensor, visual: Tensor) -> Encoding:
        """Encode both streams; see the class docstring for shapes."""
        raise NotImplementedError


class Decoder(nn.Module):
    """Base of all decoders: an `Encoding` in, a `Parse` out.

    A subclass takes keyword arguments only: `config` (its own dataclass), `width` (D of the encoding), `num_classes`
    (C) and `label_dim` (E). `needs_labels` says whether forward needs label embeddings [C, E].
    """

    Config: ClassVar[type]
    needs_labels: bool = False

    def forward(self, encoding: Encoding, label_embeddings: Tensor | None = None) -> Parse:
        """Parse the encoded clip; `label_embeddings` is [C, E] for decoders that need labels."""
        raise NotImplementedError


def at_least_single(values: Tensor) -> Tensor:
    """Cast half and bfloat16 to float32; leave float32 and float64 as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


@dataclass(kw_only=True)
class FeatureSpec:
    """The features of a dataset, as far as a model must know them.

    Shape: audio [B, T, audio_dim]; visual [B, T, visual_dim], or [B, T, H, W, visual_dim] where `map_size` is (H, W);
    motion [B, T, motion_dim] where there is one. `extractors` says how the features were made (recipe, weights and their
    checksums), as far as it is known; it does not count when specs are compared.
    """

    audio_dim: int = 128
    visual_dim: int = 512
    motion_dim: int | None = None
    map_size: tuple[int, int] | None = None
    extractors: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        sizes(self, "audio_dim", "visual_dim", "motion_dim")
        if self.map_size is not None:
            height, width = self.map_size
            if not (1 <= height <= MAP_EDGE and 1 <= width <= MAP_EDGE):
                raise UsageError(
                    f"FeatureSpec.map_size is {self.map_size}; both must lie between 1 and {MAP_EDGE}"
                )
            self.map_size = (int(height), int(width))

    @property
    def positions(self) -> int:
        """Number of map positions P; 1 for a dataset of vectors."""
        return 1 if self.map_size is None else self.map_size[0] * self.map_size[1]
