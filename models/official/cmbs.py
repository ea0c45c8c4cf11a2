"""Official CMBS checkpoints, fully and weakly supervised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from avplatform.models.contracts import FeatureSpec
from avplatform.models.decoders.dch import DCHConfig
from avplatform.models.encoders.cmbs import PUBLISHED, CMBSConfig
from avplatform.models.official.reader import Labels, Reader, count_below, need

_ATTENTION = {
    "video_query": "query", "video_key": "key", "video_value": "value", "norm": "norm",
    "affine_video_ave": "self_mean", "affine_video_3": "self_position", "ave_v_att": "self_score",
    "affine_audio_1": "channel_audio", "affine_video_1": "channel_visual",
    "affine_bottleneck": "bottleneck", "affine_v_c_att": "channel_score",
    "affine_video_2": "spatial_visual", "affine_audio_2": "spatial_audio",
    "affine_v_s_att": "spatial_score",
}  # fmt: skip
_LAYER = {
    "linear1": "feedforward.inner",
    "linear2": "feedforward.outer",
    "norm1": "norm1",
    "norm2": "norm2",
}
_STREAMS = {"video": "visual", "audio": "audio"}


def _stream_rules(theirs: str, ours: str) -> tuple[tuple[str, str], ...]:
    encoder = rf"{theirs}_encoder\.encoder\.layers\.(\d+)\."
    decoder = rf"{theirs}_decoder\.decoder\.layers\.0\."
    layers, layer = rf"encoder.{ours}_encoder.layers.\1.", f"encoder.{ours}_decoder.layer."
    return (
        (rf"{theirs}_encoder\.affine_matrix\.(.+)", rf"encoder.{ours}_encoder.affine.\1"),
        (rf"{theirs}_decoder\.affine_matrix\.(.+)", rf"encoder.{ours}_decoder.affine.\1"),
        (encoder + r"self_attn\.(.+)", layers + r"attention.\2"),
        (decoder + r"multihead_attn\.(.+)", layer + r"attention.\1"),
        *((encoder + rf"{a}\.(.+)", layers + rf"{b}.\2") for a, b in _LAYER.items()),
        *((decoder + rf"{a}\.(.+)", layer + rf"{b}.\1") for a, b in _LAYER.items()),
        (rf"{theirs}_gated\.0\.(.+)", rf"encoder.{ours}_gate.\1"),
        (rf"{theirs}_cas\.(.+)", rf"decoder.head.{ours}_class.\1"),
    )


class CMBSReader(Reader):
    """CMBS (CVPR 2022); the keys tell which of the two published models a file holds."""

    name = "cmbs"
    title = "CMBS (CVPR 2022)"
    takes = ("heads", "weak")
    rules = (
        *(
            (rf"spatial_channel_att\.{a}\.(.+)", rf"encoder.attention.{b}.\1")
            for a, b in _ATTENTION.items()
        ),
        (r"v_fc\.(.+)", r"encoder.map.\1"),
        *(rule for theirs, ours in _STREAMS.items() for rule in _stream_rules(theirs, ours)),
        (r"audio_visual_rnn_layer\.audio_rnn\.(.+)", r"encoder.audio_lstm.\1"),
        (r"audio_visual_rnn_layer\.visual_rnn\.(.+)", r"encoder.visual_lstm.\1"),
        (r"AVInter\.video_multihead\.(.+)", r"encoder.visual_interaction.attention.\1"),
        (r"VAInter\.video_multihead\.(.+)", r"encoder.audio_interaction.attention.\1"),
        (r"AVInter\.norm1\.(.+)", r"encoder.visual_interaction.norm.\1"),
        (r"VAInter\.norm1\.(.+)", r"encoder.audio_interaction.norm.\1"),
        (r"localize_module\.classifier\.(.+)", r"decoder.head.relevance.\1"),
        (r"localize_module\.event_classifier\.(.+)", r"decoder.head.event.\1"),
    )
    unused_patterns = (
        r"(audio|video)_encoder\.encoder_layer\..+",
        r"(audio|video)_decoder\.decoder_layer\..+",
        r"(audio|video)_decoder\.decoder\.layers\.0\.self_attn\..+",
        r"spatial_channel_att\.ave_bottleneck\..+",
        r"(audio|video)_norm\..+",
        r"classifier\.(weight|bias)",
    )
    # A convolution of width 1 there, a linear map here.
    reshaped = {"CAS_model.classifier.0.weight": "decoder.head.classifier.weight"}

    def look(self, tensors: Mapping[str, Tensor]) -> None:
        """Tell the two published models apart: only the weak one has this classifier."""
        self.weak = self.weak_if(tensors, "CAS_model.classifier.0.weight")

    def build(self, tensors: Mapping[str, Tensor], labels: Labels) -> nn.Module:
        """Build CMBS with its own head."""
        width = need(tensors, "video_encoder.affine_matrix.weight").shape[0]
        audio_dim = need(tensors, "spatial_channel_att.affine_audio_1.weight").shape[1]
        visual_dim = need(tensors, "v_fc.weight").shape[0]
        lstm = tensors.get("audio_visual_rnn_layer.audio_rnn.weight_hh_l0")
        variant: Literal["full", "weak"] = "weak" if self.weak else "full"
        heads = PUBLISHED[variant]["interaction_heads"]
        self.by_default("interaction heads", heads, "as published with this variant")
        self.by_default("map size", "7x7", "shapes do not tell it")
        self.check_classes(tensors, "video_cas.weight", labels)
        layer = "layers.0.linear1.weight"
        return self.model(
            labels,
            features=FeatureSpec(audio_dim=audio_dim, visual_dim=visual_dim, map_size=(7, 7)),
            encoder=CMBSConfig(
                variant=variant,
                width=width,
                heads=self.by_default("heads", 4, "shapes do not tell it"),
                encoder_hidden=need(tensors, f"video_encoder.encoder.{layer}").shape[0],
                decoder_hidden=need(tensors, f"video_decoder.decoder.{layer}").shape[0],
                layers=count_below(tensors, "video_encoder.encoder.layers."),
                lstm_width=128 if lstm is None else lstm.shape[-1],
            ),
            decoder=DCHConfig(form="cmbs", weighting=bool(self.weak)),
        )
