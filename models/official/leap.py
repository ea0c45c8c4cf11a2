"""Official LEAP checkpoints, and the LEAP decoder inside them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from avplatform.models.decoders.leap import LEAP
from avplatform.models.decoders.leap_config import LEAPConfig
from avplatform.models.errors import DataError, UsageError
from avplatform.models.official.han import STEM_RULES
from avplatform.models.official.mmpyr import MMP_RULES, MMPyrReader
from avplatform.models.official.reader import Labels, Reader, count_below, need, unit_rules

_BLOCK = r"l([av])_cma_network\.(\d+)\."


class LEAPDecoderReader(Reader):
    """The projection blocks alone, without the label map and the video classifiers."""

    name = "leap_decoder"
    title = "LEAP (ECCV 2024), the decoder"
    takes = ("heads", "blocks")
    rules = (
        *unit_rules(r"la_cma_network\.(\d+)\.", r"audio_blocks.\1."),
        *unit_rules(r"lv_cma_network\.(\d+)\.", r"visual_blocks.\1."),
    )
    unused_patterns = (
        r"(multiheadattn|feedforward)\..+",
        _BLOCK + r"self_attn\.layer_norm\.(weight|bias)",
    )
    not_in_checkpoint = tuple(
        f"{layer}.{part}"
        for layer in ("labels", "audio_video", "visual_video")
        for part in ("weight", "bias")
    )

    def build(self, tensors: Mapping[str, Tensor], labels: Labels) -> nn.Module:
        """Build LEAP."""
        inner = need(tensors, "lv_cma_network.0.feed_forward.w_1.weight")
        blocks = count_below(tensors, "lv_cma_network.")
        config = LEAPConfig(blocks=blocks, heads=self.heads or 8, hidden=inner.shape[0])
        return LEAP(config=config, width=inner.shape[1])


class LEAPReader(MMPyrReader):
    """LEAP on MM-Pyr (ECCV 2024); its checkpoint lacks label embeddings, which must be given."""

    name = "leap"
    title = "LEAP (ECCV 2024)"
    takes = ("heads", "blocks", "label_embeddings")
    official_slot_order = False
    rules = (
        *STEM_RULES,
        *MMP_RULES,
        (r"fc_l\.(.+)", r"decoder.labels.\1"),
        (r"fc_la\.(.+)", r"decoder.audio_video.\1"),
        (r"fc_lv\.(.+)", r"decoder.visual_video.\1"),
        *((r"AVL\." + pattern, f"decoder.{ours}") for pattern, ours in LEAPDecoderReader.rules),
    )
    unused_patterns = (
        *MMPyrReader.unused_patterns,
        r"AVL\.(multiheadattn|feedforward)\..+",
        r"AVL\.l[av]_cma_network\.\d+\.self_attn\.layer_norm\.(weight|bias)",
    )
    not_in_checkpoint = ("label_embeddings",)

    def build(self, tensors: Mapping[str, Tensor], labels: Labels) -> nn.Module:
        """Build MM-Pyr + LEAP."""
        if self.label_embeddings is None:
            raise UsageError(
                "a LEAP checkpoint does not hold its label embeddings; "
                "give them (--label-embeddings FILE)"
            )
        dim = need(tensors, "fc_l.weight").shape[1]
        have, wanted = list(self.label_embeddings.shape), [len(labels.classes), dim]
        if have != wanted:
            raise DataError(
                f"the label embeddings have shape {have}; the checkpoint needs {wanted}"
            )
        blocks = count_below(tensors, "AVL.lv_cma_network.")
        decoder = LEAPConfig(
            blocks=self.by_file(
                "blocks", blocks, f"it has {blocks} projection blocks per modality"
            ),
            heads=self.by_default("heads", 8, "shapes do not tell it"),
            hidden=need(tensors, "AVL.lv_cma_network.0.feed_forward.w_1.weight").shape[0],
        )
        return self.pyramid(
            tensors, labels, decoder=decoder, label_texts=labels.label_texts, label_dim=dim
        )
