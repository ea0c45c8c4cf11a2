"""Official checkpoints of MA, which are HAN's with further tensors that nothing reads."""

from __future__ import annotations

from avplatform.models.official.han import HANReader


class MAReader(HANReader):
    """MA (CVPR 2021): HAN + MMIL, trained with a contrast and with labels refined by modality."""

    unused_patterns: tuple[str, ...] = (
        *HANReader.unused_patterns,
        r"t_att2?\.(w_[qkv]s|fc)\.(weight|bias)",
        r"t_att2?\.layer_norm\.(gamma|beta)",
        r"fc[12]\.(weight|bias)",
    )
    name = "ma"
    title = "MA (CVPR 2021)"
