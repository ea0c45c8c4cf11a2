"""Official MGN checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from avplatform.models.decoders.group import GroupingDecoderConfig
from avplatform.models.encoders.mgn import MGNConfig
from avplatform.models.official.han import STEM_RULES
from avplatform.models.official.reader import Labels, Reader, count_below, need, stem_features

_BLOCK = {
    "norm1": "attention_norm",
    "norm2": "feedforward_norm",
    "attn.proj": "attention.out_proj",
    "mlp.fc1": "feedforward.inner",
    "mlp.fc2": "feedforward.outer",
}
_GROUPING = {
    "norm_tokens": "tokens_norm",
    "mlp_inter.fc1": "mix.inner",
    "mlp_inter.fc2": "mix.outer",
    "norm_post_tokens": "mixed_norm",
    "norm_x": "rows_norm",
    "pre_assign_attn.norm_post": "read_norm",
    "pre_assign_attn.attn.q_proj": "attention.query",
    "pre_assign_attn.attn.k_proj": "attention.key",
    "pre_assign_attn.attn.v_proj": "attention.value",
    "pre_assign_attn.attn.proj": "attention.output",
    "pre_assign_attn.norm2": "feedforward_norm",
    "pre_assign_attn.mlp.fc1": "feedforward.inner",
    "pre_assign_attn.mlp.fc2": "feedforward.outer",
    "assign.q_proj": "query",
    "assign.k_proj": "key",
    "assign.v_proj": "value",
    "assign.proj": "output",
    "norm_new_x": "group_norm",
    "mlp_channels.fc1": "group_feedforward.inner",
    "mlp_channels.fc2": "group_feedforward.outer",
}


def grouping_rules(theirs: str = "", ours: str = "") -> tuple[tuple[str, str], ...]:
    """Return the rules of one grouping block, whose names begin with `theirs` and `ours`."""
    prefix = theirs.replace(".", r"\.")
    return tuple(
        (prefix + a.replace(".", r"\.") + r"\.(weight|bias)", rf"{ours}{b}.\1")
        for a, b in _GROUPING.items()
    )


def _block_rules(theirs: str, ours: str) -> tuple[tuple[str, str], ...]:
    prefix = theirs + r"\.blocks\.(\d+)\."
    return (
        *(
            (prefix + a.replace(".", r"\.") + r"\.(weight|bias)", rf"{ours}.\1.{b}.\2")
            for a, b in _BLOCK.items()
        ),
        (prefix + r"attn\.qkv\.(weight|bias)", rf"{ours}.\1.attention.in_proj_\2"),
    )


class MGNReader(Reader):
    """MGN (NeurIPS 2022); shapes tell neither the heads nor how segments are assigned."""

    name = "mgn"
    title = "MGN (NeurIPS 2022)"
    takes: ClassVar[tuple[str, ...]] = ("heads", "assignment", "joint_assignment")
    rules = (
        *STEM_RULES,
        (r"audio_token", r"encoder.audio_tokens"),
        (r"visual_token", r"encoder.visual_tokens"),
        *_block_rules("audio_cug", "encoder.audio_blocks"),
        *_block_rules("visual_cug", "encoder.visual_blocks"),
        *_block_rules("av_mcg", "decoder.joint_blocks"),
        *grouping_rules("audio_cug.han_encoder.", "encoder.time_grouping."),
        *grouping_rules("audio_cug.grouping.", "decoder.audio_grouping."),
        *grouping_rules("visual_cug.grouping.", "decoder.visual_grouping."),
        *grouping_rules("av_mcg.grouping.", "decoder.joint_grouping."),
        (r"fc_prob\.(weight|bias)", r"decoder.joint_score.\1"),
        (r"fc_prob_a\.(weight|bias)", r"decoder.audio_score.\1"),
        (r"fc_prob_v\.(weight|bias)", r"decoder.visual_score.\1"),
        (r"fc_cls\.(weight|bias)", r"decoder.token_classes.\1"),
    )

    def build(self, tensors: Mapping[str, Tensor], labels: Labels) -> nn.Module:
        """Build MGN with its own decoder; its time grouping fixes the length of the clips."""
        self.check_classes(tensors, "fc_cls.weight", labels)
        soft = "as in its read-me; shapes do not tell it"
        assignment = self.by_default("assignment", "soft", soft)
        joint = self.by_default("joint_assignment", "soft", soft)
        heads = self.by_default("heads", 8, "shapes do not tell it")
        hidden = need(tensors, "audio_cug.blocks.0.mlp.fc1.weight").shape[0]
        time, segments = need(tensors, "audio_cug.han_encoder.mlp_inter.fc1.weight").shape
        return self.model(
            labels,
            features=stem_features(tensors),
            segments=segments,
            encoder=MGNConfig(
                width=need(tensors, "fc_a.weight").shape[0],
                heads=heads,
                hidden=hidden,
                layers=count_below(tensors, "audio_cug.blocks."),
                audio_segments="grouped",
                time_assignment="hard" if assignment == "soft" else "soft",
                token_hidden=time,
            ),
            decoder=GroupingDecoderConfig(
                tokens="encoder",
                assignment=assignment,
                joint_assignment=joint,
                heads=heads,
                hidden=hidden,
                token_hidden=need(tensors, "av_mcg.grouping.mlp_inter.fc1.weight").shape[0],
                layers=count_below(tensors, "av_mcg.blocks."),
            ),
            reference_order=True,
        )
