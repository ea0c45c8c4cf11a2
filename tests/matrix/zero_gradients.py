"""Which parameters get no gradient, in which cells, and why: an exact list."""

from __future__ import annotations

import re
from typing import NamedTuple

from torch import Tensor, nn


class Zero(NamedTuple):
    """Parameters with an identically zero gradient in the cells that match.

    A cell is `task-encoder-decoder-supervision`.
    """

    cells: str
    parameters: str
    reason: str


ZEROS = (
    Zero(
        ".*-han-.*|.*-cmbs-.*|.*-mgn-.*|.*-dhhn-.*",
        r"encoder\..*\.in_proj_bias\[key\]",
        "q.(k_t + b) = q.k_t + q.b: the bias adds the same to the scores of all keys, "
        "and a softmax over keys drops it",
    ),
    Zero(
        ".*-cvcms-.*",
        r"decoder\.layer\..*\.in_proj_bias\[key\]",
        "as above, in the attention among classes",
    ),
    Zero(
        ".*-mmpyr-.*",
        r"encoder\..*\.attention\.key\.bias",
        "as above; the window's mask leaves keys out and changes nothing among those that stay",
    ),
    Zero(
        ".*-temporal-.*",
        r"encoder\..*_layers\..*\.key\.bias",
        "as for HAN: the bias adds the same to the scores of all keys",
    ),
    Zero(
        "avel-cmbs-.*",
        r"encoder\.attention\.key\.bias",
        "as above, in the self attention over map positions",
    ),
    Zero(
        "(ov)?avel-.*-leap-.*|avvp-.*-leap-pseudo",  # weak: texts score without attending
        r"decoder\.(audio|visual)_blocks\.0\.attention\.key\.bias",
        "as above; the last block's scores are predictions themselves, so its bias does count",
    ),
    Zero(
        ".*-(mmil|cvcms)-.*",
        r"decoder\.segment_attention\.bias",
        "the same for all segments of a class, and the softmax is over segments",
    ),
    Zero(
        ".*-(mmil|cvcms)-.*",
        r"decoder\.modality_attention\.bias",
        "the same for both modalities of a class, and the softmax is over modalities",
    ),
    Zero(
        ".*-cmpae-.*",
        r"decoder\.attention\.bias",
        "the same for all segments of a class, and the softmax is over segments",
    ),
    Zero(
        ".*-group-.*",
        r"decoder\.joint_blocks\..*\.in_proj_bias\[key\]",
        "as for HAN: the bias adds the same to the scores of all keys",
    ),
    Zero(
        ".*-group-.*",
        r"(encoder|decoder)\..*grouping\.attention\.key\.bias",
        "as above, in the attention of tokens to segments",
    ),
    Zero(
        ".*-group-.*",
        r"(encoder|decoder)\..*grouping\.query\.bias",
        "it adds the same to the scores of all tokens, and the softmax is over tokens",
    ),
    Zero(
        ".*-group-.*",
        r"(encoder|decoder)\..*grouping\.mix\.outer\.bias",
        "it adds one number to all channels of a token, and the norm that follows removes it",
    ),
    Zero(
        ".*-mgn-group-.*",
        r"decoder\.token_classes\.(weight|bias)",
        "in the first step: the encoder's class tokens start at 0, so every class scores the same",
    ),
    Zero(
        "(avvp|ovavel)-cmbs-.*",
        r"encoder\.attention\.(query|key|self_mean|self_position|self_score|spatial_visual|spatial_audio|spatial_score)"
        r"\.(weight|bias)",
        "vectors are a map of one position, "
        "and a softmax over one position is 1 whatever its score",
    ),
)


def expected_zeros(cell: str, names: list[str]) -> set[str]:
    """Return which of a cell's parameters are listed."""
    patterns = [zero.parameters for zero in ZEROS if re.fullmatch(zero.cells, cell)]
    return {name for name in names if any(re.fullmatch(p, name) for p in patterns)}


def pieces(model: nn.Module, *, gradients: bool) -> dict[str, Tensor]:
    """Return copies of all trainable parameters, or of the gradients that exist.

    Packed maps are returned as their three parts.
    """
    found = {}
    for name, parameter in model.named_parameters():
        value = parameter.grad if gradients else parameter
        if not parameter.requires_grad or value is None:
            continue
        value = value.detach().clone()
        if ".in_proj_" in name:
            found.update(
                {
                    f"{name}[{part}]": x
                    for part, x in zip(("query", "key", "value"), value.chunk(3), strict=True)
                }
            )
        else:
            found[name] = value
    return found
