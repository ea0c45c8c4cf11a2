"""Official MM-Pyr checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from avplatform.models.av_model import AVModel
from avplatform.models.decoders.mmil import MMILConfig
from avplatform.models.encoders.mmpyr import MMPyrConfig
from avplatform.models.errors import DataError
from avplatform.models.official.han import STEM_RULES
from avplatform.models.official.mmil import MMIL_RULES
from avplatform.models.official.reader import (
    Labels,
    Reader,
    count_below,
    need,
    stem_features,
    unit_rules,
)

_MSA = r"MMP\.capture\.msa\.(\d+)\."
MMP_RULES = (
    *unit_rules(_MSA + r"vsablock\.layer\.", r"encoder.levels.\1.visual_self."),
    *unit_rules(_MSA + r"asablock\.layer\.", r"encoder.levels.\1.audio_self."),
    *unit_rules(_MSA + r"cmablock\.layer\.", r"encoder.levels.\1.cross."),
    (_MSA + r"lv1\.(.+)", r"encoder.levels.\1.visual_gates.0.\2"),
    (_MSA + r"lv2\.(.+)", r"encoder.levels.\1.visual_gates.1.\2"),
    (_MSA + r"la1\.(.+)", r"encoder.levels.\1.audio_gates.0.\2"),
    (_MSA + r"la2\.(.+)", r"encoder.levels.\1.audio_gates.1.\2"),
    (r"MMP\.capture\.vnetwork\.(\d+)\.(conv[12]\..+)", r"encoder.levels.\1.visual_temporal.\2"),
    (r"MMP\.capture\.anetwork\.(\d+)\.(conv[12]\..+)", r"encoder.levels.\1.audio_temporal.\2"),
    *unit_rules(r"MMP\.fusion\.vadaptiveinteraction\.", r"encoder.visual_fusion.", groups=0),
    *unit_rules(r"MMP\.fusion\.aadaptiveinteraction\.", r"encoder.audio_fusion.", groups=0),
    (r"MMP\.fusion\.vselectfusion\.(.+)", r"encoder.visual_select.\1"),
    (r"MMP\.fusion\.aselectfusion\.(.+)", r"encoder.audio_select.\1"),
)
_ALIAS = re.compile(r"(MMP\.capture\.[va]network\.\d+\.)net\.([02])\.(weight|bias)")


class MMPyrReader(Reader):
    """MM-Pyr + MMIL (ACM MM 2022), whose script swaps the streams; so does the model built here."""

    rules = (*((p, f"decoder.{r}") for p, r in MMIL_RULES), *STEM_RULES, *MMP_RULES)
    unused_patterns: tuple[str, ...] = (
        r"MMP\.(capture|fusion)\.(multiheadattn|feedforward)\..+",
        r"MMP\..+\.self_attn\.layer_norm\.(weight|bias)",
        _ALIAS.pattern,
    )
    name = "mmpyr"
    title = "MM-Pyr (ACM MM 2022)"
    takes: ClassVar[tuple[str, ...]] = ("heads",)
    official_slot_order = True

    def build(self, tensors: Mapping[str, Tensor], labels: Labels) -> nn.Module:
        """Build MM-Pyr + MMIL."""
        self.check_classes(tensors, "fc_prob.weight", labels)
        return self.pyramid(tensors, labels, decoder=MMILConfig())

    def pyramid(self, tensors: Mapping[str, Tensor], labels: Labels, **config: Any) -> AVModel:
        """Return a model with MM-Pyr as its encoder; the other fields of its config are given."""
        check_aliases(tensors)
        inner = "MMP.capture.msa.0.vsablock.layer.feed_forward.w_1.weight"
        return self.model(
            labels,
            features=stem_features(tensors),
            encoder=MMPyrConfig(
                width=need(tensors, "fc_a.weight").shape[0],
                heads=self.by_default("heads", 8, "shapes do not tell it"),
                hidden=need(tensors, inner).shape[0],
                levels=count_below(tensors, "MMP.capture.msa."),
                kernel=need(tensors, "MMP.capture.vnetwork.0.conv1.weight", 3).shape[2],
                official_slot_order=self.official_slot_order,
                reference_order=True,
            ),
            reference_order=True,
            **config,
        )


def check_aliases(tensors: Mapping[str, Tensor]) -> None:
    """Check that convolutions which a checkpoint stores under two names are equal.

    Raises:
        DataError: they differ, so it is not known which one was trained.
    """
    for name, value in tensors.items():
        if found := _ALIAS.fullmatch(name):
            first = f"{found[1]}conv{1 if found[2] == '0' else 2}.{found[3]}"
            if first in tensors and not torch.equal(tensors[first], value):
                raise DataError(
                    f"'{name}' and '{first}' are one tensor in MM-Pyr but differ in this "
                    "checkpoint; give a file that its training script wrote"
                )
