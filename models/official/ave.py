"""Official AVE and DMRN checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from avplatform.models.contracts import FeatureSpec
from avplatform.models.decoders.dch import DCHConfig
from avplatform.models.encoders.ave import AVEConfig
from avplatform.models.official.reader import Labels, Reader, map_size, need

ATTENTION_RULES = (
    (r"affine_audio\.(.+)", r"encoder.attention.audio.\1"),
    (r"affine_video\.(.+)", r"encoder.attention.visual.\1"),
    (r"affine_v\.(.+)", r"encoder.attention.visual_scores.\1"),
    (r"affine_g\.(.+)", r"encoder.attention.audio_scores.\1"),
    (r"affine_h\.(.+)", r"encoder.attention.score.\1"),
)
_BODY = (
    (r"lstm_audio\.(.+)", r"encoder.audio_lstm.\1"),
    (r"lstm_video\.(.+)", r"encoder.visual_lstm.\1"),
    *ATTENTION_RULES,
)


class AVEReader(Reader):
    """AVE's attention model (ECCV 2018); full and weak supervision have the same tensors."""

    rules: tuple[tuple[str, str], ...] = (
        *_BODY,
        (r"L1\.(.+)", r"decoder.hidden.\1"),
        (r"L2\.(.+)", r"decoder.classifier.\1"),
    )
    name = "ave"
    title = "AVE (ECCV 2018)"
    takes: ClassVar[tuple[str, ...]] = ("weak",)
    variant = "att"

    def look(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the supervision, which the tensors do not tell."""
        why = "both settings have the same tensors; give --weak for the weakly supervised model"
        self.by_default("weak", False, why)

    def build(self, tensors: Mapping[str, Tensor], labels: Labels) -> nn.Module:
        """Build AVE + DCH."""
        width, audio_dim = need(tensors, "affine_audio.weight").shape
        positions = need(tensors, "affine_h.weight").shape[1]
        hidden = need(tensors, "L1.weight").shape[0] if self.variant == "att" else 64
        self.check_classes(tensors, "L2.weight", labels)
        return self.model(
            labels,
            features=FeatureSpec(
                audio_dim=audio_dim,
                visual_dim=need(tensors, "affine_video.weight").shape[1],
                map_size=map_size(positions),
            ),
            encoder=AVEConfig(
                variant=self.variant,  # type: ignore[arg-type]
                attention_width=width,
                lstm_width=need(tensors, "lstm_audio.weight_hh_l0").shape[1],
            ),
            decoder=DCHConfig(form="ave" if self.variant == "att" else "dmrn", hidden=hidden),
        )


class DMRNReader(AVEReader):
    """DMRN (ECCV 2018)."""

    rules = (
        *_BODY,
        (r"U_a\.(.+)", r"encoder.audio_update.\1"),
        (r"U_v\.(.+)", r"encoder.visual_update.\1"),
        (r"L2\.(.+)", r"decoder.classifier.\1"),
    )
    name = "dmrn"
    title = "DMRN (ECCV 2018)"
    takes = ()
    variant = "dmrn"

    def look(self, tensors: Mapping[str, Tensor]) -> None:
        """Set nothing, because DMRN was published fully supervised only."""
