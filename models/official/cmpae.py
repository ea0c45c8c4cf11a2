"""Official CMPAE checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from avplatform.models.decoders.cmpae import EvidenceConfig
from avplatform.models.encoders.han import HANConfig
from avplatform.models.official.han import HAN_RULES, STEM_RULES
from avplatform.models.official.reader import Labels, Reader, count_below, need, stem_features

_DECODER = {
    r"fc_prob": "presence",
    r"fc_prob_beta": "absence",
    r"fc_frame_att": "attention",
    r"v2a\.0": "audio_selector",
    r"a2v\.0": "visual_selector",
    r"classifier1\.0": "joint_hidden",
    r"classifier2": "joint_classifier",
}


class CMPAEReader(Reader):
    """CMPAE (CVPR 2023): HAN with an ELU stem and two mixed passes, and the evidence decoder.

    The thresholds of classes are not in the checkpoint, but in a spreadsheet beside it.
    """

    rules = (
        *(
            (rf"{theirs}\.(weight|bias)", rf"decoder.{ours}.\1")
            for theirs, ours in _DECODER.items()
        ),
        *((theirs.replace(r"\.(", r"\.0\.("), ours) for theirs, ours in STEM_RULES),
        *HAN_RULES,
    )
    unused_patterns = (
        r"fc_global\.[02]\.(weight|bias)",
        r"hat_encoder\.norm[12]\.(weight|bias)",
    )
    name = "cmpae"
    title = "CMPAE (CVPR 2023)"
    takes: ClassVar[tuple[str, ...]] = ("heads",)

    def build(self, tensors: Mapping[str, Tensor], labels: Labels) -> nn.Module:
        """Build HAN + evidence."""
        self.check_classes(tensors, "fc_prob.weight", labels)
        return self.model(
            labels,
            features=stem_features(tensors, inside=".0"),
            encoder=HANConfig(
                width=need(tensors, "fc_a.0.weight").shape[0],
                heads=self.by_default("heads", 1, "shapes do not tell it"),
                hidden=need(tensors, "hat_encoder.layers.0.linear1.weight").shape[0],
                layers=count_below(tensors, "hat_encoder.layers."),
                mixture=0.8,
                stem_activation="elu",
            ),
            decoder=EvidenceConfig(),
            reference_order=True,
        )
