"""Official HAN and VALOR checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from avplatform.models.decoders.mmil import MMILConfig
from avplatform.models.encoders.han import HANConfig
from avplatform.models.official.mmil import MMIL_RULES
from avplatform.models.official.reader import Labels, Reader, count_below, need, stem_features

STEM_RULES = (
    (r"fc_a\.(weight|bias)", r"stem.audio.\1"),
    (r"fc_v\.(weight|bias)", r"stem.visual.\1"),
    (r"fc_st\.(weight|bias)", r"stem.motion.\1"),
    (r"fc_fusion\.(weight|bias)", r"stem.fusion.\1"),
)
_LAYER = r"hat_encoder\.layers\.(\d+)\."
HAN_RULES = (
    (_LAYER + r"self_attn\.(.+)", r"encoder.layers.\1.self_attention.\2"),
    (_LAYER + r"cm_attn\.(.+)", r"encoder.layers.\1.cross_attention.\2"),
    (_LAYER + r"linear1\.(.+)", r"encoder.layers.\1.feedforward.inner.\2"),
    (_LAYER + r"linear2\.(.+)", r"encoder.layers.\1.feedforward.outer.\2"),
    (_LAYER + r"(norm[12]\..+)", r"encoder.layers.\1.\2"),
)


class HANReader(Reader):
    """HAN + MMIL (ECCV 2020); shapes do not tell the number of heads, which is 1 by default."""

    rules = (*((p, f"decoder.{r}") for p, r in MMIL_RULES), *STEM_RULES, *HAN_RULES)
    unused_patterns: tuple[str, ...] = (
        r"(audio_encoder|visual_encoder|cmt_encoder)\..+",
        r"hat_encoder\.norm[12]\.(weight|bias)",
    )
    name = "han"
    title = "HAN (ECCV 2020)"
    takes: ClassVar[tuple[str, ...]] = ("heads",)
    default_heads = 1
    update = "parallel"
    stacked = False
    cross = True
    dropout = 0.1

    def build(self, tensors: Mapping[str, Tensor], labels: Labels) -> nn.Module:
        """Build HAN and the decoder."""
        width = need(tensors, "fc_a.weight").shape[0]
        self.check_classes(tensors, "fc_frame_att.weight", labels)
        return self.model(
            labels,
            features=stem_features(tensors),
            encoder=HANConfig(
                width=width,
                heads=self.by_default("heads", self.default_heads, "shapes do not tell it"),
                hidden=need(tensors, "hat_encoder.layers.0.linear1.weight").shape[0],
                layers=count_below(tensors, "hat_encoder.layers."),
                norm=self.norm_placement(tensors),
                update=self.update,  # type: ignore[arg-type]
                stacked=self.stacked,
                cross=self.cross,
                dropout=self.dropout,
            ),
            decoder=self.decoder(tensors),
            reference_order=True,
        )

    def decoder(self, tensors: Mapping[str, Tensor]) -> Any:
        """Return the options of the decoder."""
        return MMILConfig()

    def norm_placement(self, tensors: Mapping[str, Tensor]) -> Literal["post", "pre"]:
        """Return "post", because HAN has its norms after each residual sum."""
        return "post"


class VALORReader(HANReader):
    """VALOR's HAN (NeurIPS 2023): stacked layers, sequential update, eight heads by default."""

    name = "valor"
    title = "VALOR (NeurIPS 2023)"
    takes = ("heads", "norm")
    default_heads = 8
    update = "sequential"
    stacked = True

    @property
    def unused_patterns(self) -> tuple[str, ...]:  # type: ignore[override]
        """Patterns of the final norms, which only pre-norm applies."""
        return (r"hat_encoder\.final_norm_[av]\.(weight|bias)",) if self.norm != "pre" else ()

    @property
    def rules(self) -> tuple[tuple[str, str], ...]:  # type: ignore[override]
        """HAN's rules, and those of the final norms."""
        return (
            *HANReader.rules,
            (r"hat_encoder\.final_norm_a\.(.+)", r"encoder.final_norm_audio.\1"),
            (r"hat_encoder\.final_norm_v\.(.+)", r"encoder.final_norm_visual.\1"),
        )

    def norm_placement(self, tensors: Mapping[str, Tensor]) -> Literal["post", "pre"]:
        """Return the given placement or "post"; trained final norms only hint at "pre"."""
        final = {n: v for n, v in tensors.items() if n.startswith("hat_encoder.final_norm_")}
        if not final:
            return self.by_file("norm", "post", "it has no final norms, which pre-norm needs")
        hint = "have their initial values, which speaks for post"
        if any(bool((v != (1 if n.endswith("weight") else 0)).any()) for n, v in final.items()):
            hint = "were trained, which speaks for --norm pre"
        return self.by_default(
            "norm", "post", f"keys and shapes do not tell it; the file's final norms {hint}"
        )
