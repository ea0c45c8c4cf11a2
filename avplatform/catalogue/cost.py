"""The cost of a model by part: trainable parameters and floating-point operations of one clip.

Models are built on torch's meta device, so no memory is allocated and nothing is computed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from avplatform.catalogue.counting import MetaCounter
from avplatform.models.av_model import AVModel, count_parameters
from avplatform.models.config import AVModelConfig, component_config, config_to_dict
from avplatform.models.contracts import Encoding, FeatureSpec
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS

PARTS = ("stem", "encoder", "decoder")


@dataclass(kw_only=True, frozen=True)
class Cost:
    """Cost of a model, by part: stem, encoder, decoder."""

    parameters: dict[str, int]
    flops: dict[str, int]

    @property
    def total_parameters(self) -> int:
        """Return the number of trainable parameters of the whole model."""
        return sum(self.parameters.values())

    @property
    def total_flops(self) -> int:
        """Return the number of operations of one clip, from features to predictions."""
        return sum(self.flops.values())


def cost_of(config: AVModelConfig, *, segments: int | None = None) -> Cost:
    """Return the cost of a model of this config on one clip (default length: the model's own).

    FLOPs are twice the multiply-accumulates of matrix products, convolutions and LSTMs in one
    forward pass of one clip; elementwise operations, norms and softmaxes are not counted. On the
    meta device an LSTM runs as the matrix products that it consists of, which the counter sees; on
    a CPU it is one opaque kernel.
    """
    # The stem and most encoders do not depend on the task, the classes and the decoder.
    simple = next(name for name, kind in DECODERS.items() if not kind.needs_labels)
    sized = ENCODERS[config.encoder._type].sized
    part: dict[str, Any] = {
        "task": "",
        "classes": config.classes if sized else ["-"],
        "decoder": {"_type": simple},
    }
    if sized:
        part["segments"] = config.segments
    shared = {name: config_to_dict(getattr(config, name)) for name in ("features", "encoder")}
    key = json.dumps({**part, **shared, "reference_order": config.reference_order}, sort_keys=True)
    segments = segments or config.segments
    encoded = _encode(key, segments)
    decoder = json.dumps(config_to_dict(config.decoder), sort_keys=True)
    parameters, flops = _decode(key, segments, decoder, len(config.classes), config.label_dim)
    return Cost(
        parameters={**encoded.parameters, "decoder": parameters},
        flops={**encoded.flops, "decoder": flops},
    )


def flops_per_clip(model: AVModel | AVModelConfig, *, segments: int | None = None) -> int:
    """Return the floating-point operations of one clip, counted as `cost_of` says."""
    config = model.config if isinstance(model, AVModel) else model
    return cost_of(config, segments=segments).total_flops


def input_shapes(features: FeatureSpec, *, segments: int) -> dict[str, list[int]]:
    """Return the shape of each input of one clip, by name."""
    shapes = {"audio": [1, segments, features.audio_dim]}
    shapes["visual"] = [1, segments, *(features.map_size or ()), features.visual_dim]
    if features.motion_dim is not None:
        shapes["motion"] = [1, segments, features.motion_dim]
    return shapes


@dataclass(kw_only=True)
class _Encoded:
    """The encoding of one clip on the meta device, and its cost; all decoders share it."""

    encoding: Encoding
    width: int
    parameters: dict[str, int]
    flops: dict[str, int]


@cache
def _encode(key: str, segments: int) -> _Encoded:
    config = AVModelConfig.from_dict(json.loads(key))
    with torch.device("meta"):
        model = AVModel(config).eval()
        inputs = {
            name: torch.zeros(shape)
            for name, shape in input_shapes(config.features, segments=segments).items()
        }
    with torch.no_grad(), MetaCounter() as stem:
        streams = model.stem(inputs["audio"], inputs["visual"], inputs.get("motion"))
    with torch.no_grad(), MetaCounter() as encoder:
        encoding = model.encoder(*streams)
    return _Encoded(
        encoding=encoding,
        width=model.encoder.width,
        parameters={n: count_parameters(getattr(model, n)) for n in ("stem", "encoder")},
        flops={"stem": stem.total, "encoder": encoder.total},
    )


@cache
def _decode(key: str, segments: int, decoder: str, classes: int, label_dim: int) -> tuple[int, int]:
    """Return the parameters and operations of a decoder behind an encoder."""
    encoded = _encode(key, segments)
    config = component_config("decoder", json.loads(decoder))
    kind = DECODERS[config._type]
    label_dim = encoded.width if kind.texts_as_wide(config) else label_dim
    with torch.device("meta"):
        module = kind(
            config=config, width=encoded.width, num_classes=classes, label_dim=label_dim
        ).eval()
        labels = torch.zeros(classes, label_dim) if kind.needs_labels else None
    with torch.no_grad(), MetaCounter() as counter:
        module(encoded.encoding, labels)
    return count_parameters(module), counter.total
