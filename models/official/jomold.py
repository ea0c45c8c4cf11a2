"""Official JoMoLD checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from avplatform.models.decoders.mmil import MMILConfig
from avplatform.models.official.han import HANReader


class JoMoLDReader(HANReader):
    """JoMoLD (ECCV 2022): HAN, whose layers are stacked, and MMIL with dropout on visual."""

    unused_patterns: tuple[str, ...] = (r"hat_encoder\.norm[12]\.(weight|bias)",)
    name = "jomold"
    title = "JoMoLD (ECCV 2022)"
    stacked = True

    def decoder(self, tensors: Mapping[str, Tensor]) -> MMILConfig:
        """Return MMIL's options."""
        return MMILConfig(visual_dropout=0.5)


class JoMoLDEstimatorReader(JoMoLDReader):
    """JoMoLD's noise estimator: the model of its first stage, trained without cross attention."""

    unused_patterns: tuple[str, ...] = (
        *JoMoLDReader.unused_patterns,
        r"hat_encoder\.layers\.\d+\.cm_attn\..+",
    )
    name = "jomold-estimator"
    title = "JoMoLD's noise estimator (ECCV 2022)"
    cross = False
