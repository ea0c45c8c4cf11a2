"""Official DHHN checkpoints, which hold the main network without its guides."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from avplatform.models.decoders.mmil import MMILConfig
from avplatform.models.encoders.dhhn import DHHNConfig
from avplatform.models.official.han import STEM_RULES
from avplatform.models.official.mmil import MMIL_RULES
from avplatform.models.official.reader import Labels, Reader, count_below, need, stem_features

_STREAMS = {"conv_x1": "audio", "conv_x2": "visual"}
_LAYER = {
    "self_attn": "self_attention",
    "cm_attn": "cross_attention",
    "linear1": "feedforward.inner",
    "linear2": "feedforward.outer",
    "norm1": "norm1",
    "norm2": "norm2",
}
PUBLISHED_STRIDES = {1: 1, 3: 2, 5: 5}
"""The stride of the published scales by the width of their kernels."""


class DHHNReader(Reader):
    """DHHN + MMIL over all levels (ACM MM 2022); shapes tell neither heads nor strides."""

    name = "dhhn"
    title = "DHHN (ACM MM 2022)"
    takes = ("heads",)
    rules = (
        *((pattern, f"decoder.{ours}") for pattern, ours in MMIL_RULES),
        *STEM_RULES,
        *(
            (rf"{a}\.(\d+)\.blocks\.0\.{part}\.(.+)", rf"encoder.{b}_scales.\1.{ours}.\2")
            for a, b in _STREAMS.items()
            for part, ours in (("0", "convolution"), ("1", "norm"))
        ),
        *(
            (rf"hat_encoder\.layers\.0\.{a}\.(.+)", rf"encoder.layer.{b}.\1")
            for a, b in _LAYER.items()
        ),
    )
    unused_patterns = (r"hat_encoder\.norm[12]\.(weight|bias)",)

    def build(self, tensors: Mapping[str, Tensor], labels: Labels) -> nn.Module:
        """Build DHHN + MMIL."""
        self.check_classes(tensors, "fc_prob.weight", labels)
        kernels = tuple(
            need(tensors, f"conv_x1.{scale}.blocks.0.0.weight", 3).shape[2]
            for scale in range(count_below(tensors, "conv_x1."))
        )
        strides = tuple(PUBLISHED_STRIDES.get(kernel, 1) for kernel in kernels)
        shown = ", ".join(map(str, strides))
        self.by_default("strides", shown, "as published; shapes do not tell them")
        return self.model(
            labels,
            features=stem_features(tensors),
            encoder=DHHNConfig(
                width=need(tensors, "fc_a.weight").shape[0],
                heads=self.by_default("heads", 1, "shapes do not tell it"),
                hidden=need(tensors, "hat_encoder.layers.0.linear1.weight").shape[0],
                kernels=kernels,
                strides=strides,
            ),
            decoder=MMILConfig(levels="mean"),
            reference_order=True,
        )
