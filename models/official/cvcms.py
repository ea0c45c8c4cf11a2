"""Official CVCMS checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from avplatform.models.decoders.cvcms import ClassTokensConfig
from avplatform.models.official.han import HAN_RULES, STEM_RULES, HANReader
from avplatform.models.official.mmil import MMIL_RULES
from avplatform.models.official.reader import need

_LAYER = r"av_class_encoder\.layers\.0\."


class CVCMSReader(HANReader):
    """CVCMS (NeurIPS 2021): HAN and class tokens; more than half of the tensors are not read."""

    rules = (
        *((p, f"decoder.{r}") for p, r in MMIL_RULES),
        *STEM_RULES,
        *HAN_RULES,
        (r"fc_occ_class_a\.(weight|bias)", r"decoder.audio_tokens.\1"),
        (r"fc_occ_class_v\.(weight|bias)", r"decoder.visual_tokens.\1"),
        (r"fc_occ_prob_a\.(weight|bias)", r"decoder.audio_classifier.\1"),
        (r"fc_occ_prob_v\.(weight|bias)", r"decoder.visual_classifier.\1"),
        (_LAYER + r"self_attn\.(.+)", r"decoder.layer.self_attention.\1"),
        (_LAYER + r"cm_attn\.(.+)", r"decoder.layer.cross_attention.\1"),
        (_LAYER + r"linear1\.(.+)", r"decoder.layer.feedforward.inner.\1"),
        (_LAYER + r"linear2\.(.+)", r"decoder.layer.feedforward.outer.\1"),
        (_LAYER + r"(norm[12]\..+)", r"decoder.layer.\1"),
    )
    unused_patterns: tuple[str, ...] = (
        r"fc_prob\.(weight|bias)",
        r"fc_occ_class_av\.(weight|bias)",
        r"fc_occ_(v|a|av)_[qkv]\.(weight|bias)",
        r"fc_occ_(frame|modality)_prob\.(weight|bias)",
        r"(hat_encoder|av_class_encoder)\.norm[12]\.(weight|bias)",
        r"(frame_att_encoder|modality_encoder)\..+",
    )
    name = "cvcms"
    title = "CVCMS (NeurIPS 2021)"

    dropout = 0.4

    def decoder(self, tensors: Mapping[str, Tensor]) -> ClassTokensConfig:
        """Return the options of the decoder of class tokens."""
        return ClassTokensConfig(
            token_width=need(tensors, "fc_occ_prob_a.weight").shape[1],
            hidden=need(tensors, "av_class_encoder.layers.0.linear1.weight").shape[0],
        )
