"""Official AVE and DMRN checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from avplatform.models.av_model import AVModel
from avplatform.models.config import AVModelConfig
from avplatform.models.contracts import FeatureSpec
from avplatform.models.decoders.dch import DCHConfig
from avplatform.models.encoders.ave import AVEConfig
from avplatform.models.official.reader import Labels, Reader, need

_BODY = (
    (r"lstm_audio\.(.+)", r"encoder.audio_lstm.\1"),
    (r"lstm_video\.(.+)", r"encoder.visual_lstm.\1"),
    (r"affine_audio\.(.+)", r"encoder.attention.audio.\1"),
    (r"affine_video\.(.+)", r"encoder.attention.visual.\1"),
    (r"affine_v\.(.+)", r"encoder.attention.visual_scores.\1"),
    (r"affine_g\.(.+)", r"encoder.attention.audio_scores.\1"),
    (r"affine_h\.(.+)", r"encoder.attention.score.\1"),
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
        self.by_default(
            "weak",
            False,
            "both settings have the same tensors; give --weak for the weakly supervised model",
        )

    def build(self, tensors: Mapping[str, Tensor], labels: Labels) -> nn.Module:
        """Build AVE + DCH."""
        width, audio_dim = need(tensors, "affine_audio.weight").shape
        positions = need(tensors, "affine_h.weight").shape[1]
        side = round(positions**0.5)
        hidden = need(tensors, "L1.weight").shape[0] if self.variant == "att" else 64
        config = AVModelConfig(
            task=labels.task,
            classes=self.classes(tensors, "L2.weight", labels),
            task_config=labels.task_config,
            features=FeatureSpec(
                audio_dim=audio_dim,
                visual_dim=need(tensors, "affine_video.weight").shape[1],
                map_size=(side, positions // side),
            ),
            encoder=AVEConfig(
                variant=self.variant,  # type: ignore[arg-type]
                attention_width=width,
                lstm_width=need(tensors, "lstm_audio.weight_hh_l0").shape[1],
            ),
            decoder=DCHConfig(form="ave" if self.variant == "att" else "dmrn", hidden=hidden),
        )
        return AVModel(config)


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
