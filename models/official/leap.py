"""The LEAP decoder inside official checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from models.decoders.leap import LEAP, LEAPConfig
from models.official.reader import Reader, need

_BLOCK = r"l([av])_cma_network\.(\d+)\."
_PARTS = (
    (r"self_attn\.linears\.0\.(.+)", "attention.query"),
    (r"self_attn\.linears\.1\.(.+)", "attention.key"),
    (r"self_attn\.linears\.2\.(.+)", "attention.value"),
    (r"self_attn\.linears\.3\.(.+)", "attention.output"),
    (r"feed_forward\.w_1\.(.+)", "feedforward.inner"),
    (r"feed_forward\.w_2\.(.+)", "feedforward.outer"),
    (r"sublayer\.0\.norm\.(.+)", "attention_norm"),
    (r"sublayer\.1\.norm\.(.+)", "feedforward_norm"),
)


class LEAPDecoderReader(Reader):
    """The projection blocks alone: queries come in at the decoder's width, so label map and classifiers are absent."""

    rules = tuple(
        (rf"l{letter}_cma_network\.(\d+)\.{pattern}", rf"{name}_blocks.\1.{ours}.\2")
        for letter, name in (("a", "audio"), ("v", "visual"))
        for pattern, ours in _PARTS
    )
    unused_patterns = (r"(multiheadattn|feedforward)\..+", _BLOCK + r"self_attn\.layer_norm\.(weight|bias)")
    not_in_checkpoint = (
        "labels.weight",
        "labels.bias",
        "audio_video.weight",
        "audio_video.bias",
        "visual_video.weight",
        "visual_video.bias",
    )

    def build(self, tensors: Mapping[str, Tensor]) -> nn.Module:
        """Build LEAP."""
        inner = need(tensors, "lv_cma_network.0.feed_forward.w_1.weight")
        blocks = {name.split(".")[1] for name in tensors if name.startswith("lv_cma_network.")}
        config = LEAPConfig(blocks=len(blocks), heads=self.heads or 8, hidden=inner.shape[0])
        return LEAP(config=config, width=inner.shape[1])
