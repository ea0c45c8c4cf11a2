"""The LEAP decoder inside official checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from avplatform.models.decoders.leap import LEAP, LEAPConfig
from avplatform.models.official.reader import Labels, Reader, need, unit_rules

_BLOCK = r"l([av])_cma_network\.(\d+)\."


class LEAPDecoderReader(Reader):
    """The projection blocks alone: queries come in at the decoder's width, so label map and classifiers are absent."""

    title = "LEAP (ECCV 2024), the decoder"
    takes = ("heads", "blocks")
    rules = (
        *unit_rules(r"la_cma_network\.(\d+)\.", r"audio_blocks.\1."),
        *unit_rules(r"lv_cma_network\.(\d+)\.", r"visual_blocks.\1."),
    )
    unused_patterns = (
        r"(multiheadattn|feedforward)\..+",
        _BLOCK + r"self_attn\.layer_norm\.(weight|bias)",
    )
    not_in_checkpoint = (
        "labels.weight",
        "labels.bias",
        "audio_video.weight",
        "audio_video.bias",
        "visual_video.weight",
        "visual_video.bias",
    )

    def build(self, tensors: Mapping[str, Tensor], labels: Labels) -> nn.Module:
        """Build LEAP."""
        inner = need(tensors, "lv_cma_network.0.feed_forward.w_1.weight")
        blocks = {name.split(".")[1] for name in tensors if name.startswith("lv_cma_network.")}
        config = LEAPConfig(blocks=len(blocks), heads=self.heads or 8, hidden=inner.shape[0])
        return LEAP(config=config, width=inner.shape[1])
