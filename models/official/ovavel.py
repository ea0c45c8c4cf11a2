"""Official checkpoints of OV-AVEL's fine-tuned baseline."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from avplatform.models.contracts import FeatureSpec
from avplatform.models.decoders.cosine import CosineConfig
from avplatform.models.encoders.temporal import TemporalConfig
from avplatform.models.errors import DataError, UsageError
from avplatform.models.official.reader import Labels, Reader, count_below, need

_LAYERS = r"temporal_av_layer\.{}_sa_blocks\.(\d+)\."
_PARTS = {
    r"self_attn\.q": "query",
    r"self_attn\.k": "key",
    r"self_attn\.v": "value",
    r"self_attn\.o": "output",
    r"ffn\.w_1": "feedforward.inner",
    r"ffn\.w_2": "feedforward.outer",
    "norm1": "attention_norm",
    "norm2": "feedforward_norm",
}
_SCALARS = {
    r"self_attn\.alpha": "global_share",
    r"loc_adj\.w": "adjacency_scale",
    r"loc_adj\.b": "adjacency_shift",
}


def _stream_rules(theirs: str, ours: str) -> tuple[tuple[str, str], ...]:
    layer, prefix = _LAYERS.format(theirs), rf"encoder.{ours}_layers.\1."
    return (
        *((rf"{layer}{a}\.(weight|bias)", rf"{prefix}{b}.\2") for a, b in _PARTS.items()),
        *((layer + a, prefix + b) for a, b in _SCALARS.items()),
        (rf"{layer}(weight|bias)", rf"{prefix}\2"),
    )


class OVAVELReader(Reader):
    """The temporal layers of OV-AVEL (CVPR 2025); the file holds neither texts nor ImageBind.

    It also holds cross-attention layers, which no forward pass reads, and numbers of windows and
    adjacencies, which are read where these options are on; shapes do not tell that.
    """

    name = "ovavel"
    title = "OV-AVEL's fine-tuned baseline (CVPR 2025)"
    takes: ClassVar[tuple[str, ...]] = (
        "heads",
        "adjacency",
        "window",
        "power_norm",
        "label_embeddings",
    )
    rules = (*_stream_rules("a", "audio"), *_stream_rules("v", "visual"))
    not_in_checkpoint = ("label_embeddings",)

    def unused(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Return the cross-attention layers, and the numbers of options that are off."""
        patterns = [r"temporal_av_layer\.[av]_xa_blocks\..+"]
        if self.window is None:
            patterns.append(_LAYERS.format("[av]") + r"self_attn\.alpha")
        if not self.adjacency:
            patterns.append(_LAYERS.format("[av]") + r"loc_adj\.[wb]")
        return [name for name in tensors if any(re.fullmatch(p, name) for p in patterns)]

    def build(self, tensors: Mapping[str, Tensor], labels: Labels) -> nn.Module:
        """Build the temporal layers with the cosine decoder as released."""
        first = "temporal_av_layer.a_sa_blocks.0."
        linear = f"{first}weight" in tensors
        width = need(tensors, f"{first}{'weight' if linear else 'ffn.w_1.weight'}").shape[1]
        if self.label_embeddings is None:
            raise UsageError(
                "a checkpoint of OV-AVEL does not hold its label embeddings; "
                "give them (--label-embeddings FILE)"
            )
        have, wanted = list(self.label_embeddings.shape), [len(labels.classes), width]
        if have != wanted:
            raise DataError(
                f"the label embeddings have shape {have}; the checkpoint needs {wanted}"
            )
        options: dict[str, Any] = {"form": "linear"}
        if not linear:
            off = "shapes do not tell it; off in the released configuration"
            options = dict(
                heads=self.by_default("heads", 1, "shapes do not tell it"),
                attention_width=need(tensors, f"{first}self_attn.q.weight").shape[0],
                hidden=need(tensors, f"{first}ffn.w_1.weight").shape[0],
                adjacency=self.by_default("adjacency", False, off),
                window=self.by_default("window", None, off),
                power_norm=self.by_default("power_norm", False, off),
            )
        layers = count_below(tensors, first.removesuffix("0."))
        return self.model(
            labels,
            features=FeatureSpec(audio_dim=width, visual_dim=width),
            label_texts=labels.label_texts,
            label_dim=width,
            encoder=TemporalConfig(input_scale=(20.0, 1.0), layers=layers, **options),
            decoder=CosineConfig(rectify="product"),
        )
