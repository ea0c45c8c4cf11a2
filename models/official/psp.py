"""Official PSP checkpoints, fully and weakly supervised."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from avplatform.models.contracts import FeatureSpec
from avplatform.models.decoders.dch import DCHConfig
from avplatform.models.encoders.psp import PSPConfig
from avplatform.models.official.ave import ATTENTION_RULES
from avplatform.models.official.reader import Labels, Reader, map_size, need

_PROPAGATION = {
    "v_L1": "visual_value",
    "v_L2": "visual_query",
    "a_L1": "audio_key",
    "a_L2": "audio_value",
    "v_fc": "visual_fusion",
    "a_fc": "audio_fusion",
    "layer_norm": "norm",
}


class PSPReader(Reader):
    """PSP (CVPR 2021); the keys tell which of the two published models a file holds."""

    name = "psp"
    title = "PSP (CVPR 2021)"
    takes = ("weak",)
    rules = (
        *((r"attention\." + pattern, ours) for pattern, ours in ATTENTION_RULES),
        *(
            (rf"psp\.{name}\.(.+)", rf"encoder.propagation.{ours}.\1")
            for name, ours in _PROPAGATION.items()
        ),
        (r"lstm_a_v\.lstm_audio\.(.+)", r"encoder.audio_lstm.\1"),
        (r"lstm_a_v\.lstm_video\.(.+)", r"encoder.visual_lstm.\1"),
        (r"fa\.([01])\.(.+)", r"encoder.audio_map.\1.\2"),
        (r"fv\.([01])\.(.+)", r"encoder.visual_map.\1.\2"),
        (r"linear_v\.(.+)", r"encoder.visual_map.\1"),
        (r"L1\.(.+)", r"decoder.hidden.\1"),
        (r"L2\.(.+)", r"decoder.classifier.\1"),
        (r"W3\.(.+)", r"decoder.weighting.\1"),
    )

    @property
    def unused_patterns(self) -> tuple[str, ...]:  # type: ignore[override]
        """Patterns of the keys that the forward pass of the variant never reads."""
        if self.weak:
            return (r"temperature", r"W[12]\.weight")
        return (r"linear_v\.(weight|bias)", r"[va]_classify\..+", r"L[34]\.(weight|bias)")

    def look(self, tensors: Mapping[str, Tensor]) -> None:
        """Tell the two published models apart: only the weak one has the weighting `W3`."""
        self.weak = self.weak_if(tensors, "W3.weight")

    def build(self, tensors: Mapping[str, Tensor], labels: Labels) -> nn.Module:
        """Build PSP with its own head."""
        width = need(tensors, "lstm_a_v.lstm_audio.weight_hh_l0").shape[1]
        audio_dim = need(
            tensors, "attention.affine_audio.weight" if self.weak else "fa.0.weight"
        ).shape[1]
        positions = need(tensors, "attention.affine_h.weight").shape[1]
        attention_width, visual_dim = need(tensors, "attention.affine_video.weight").shape
        self.check_classes(tensors, "L2.weight", labels)
        return self.model(
            labels,
            features=FeatureSpec(
                audio_dim=audio_dim, visual_dim=visual_dim, map_size=map_size(positions)
            ),
            encoder=PSPConfig(
                variant="weak" if self.weak else "full",
                lstm_width=width,
                attention_width=attention_width,
            ),
            decoder=DCHConfig(
                form="psp", weighting=bool(self.weak), hidden=need(tensors, "L1.weight").shape[0]
            ),
        )
