"""The MMIL decoder inside official checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from avplatform.models.decoders.mmil import MMIL, MMILConfig
from avplatform.models.official.reader import Labels, Reader, need

MMIL_RULES = (
    (r"fc_prob\.(weight|bias)", r"classifier.\1"),
    (r"fc_frame_att\.(weight|bias)", r"segment_attention.\1"),
    (r"fc_av_att\.(weight|bias)", r"modality_attention.\1"),
)


class MMILReader(Reader):
    """The MMIL decoder alone."""

    name = "mmil"
    title = "MMIL (ECCV 2020)"
    rules = MMIL_RULES

    def build(self, tensors: Mapping[str, Tensor], labels: Labels) -> nn.Module:
        """Build MMIL."""
        classes, width = need(tensors, "fc_prob.weight").shape
        return MMIL(config=MMILConfig(), width=width, num_classes=classes)
