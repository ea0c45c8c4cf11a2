"""`avplatform convert`: turn a published checkpoint into a model folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from avplatform.base.console import Console
from avplatform.commands.flags import parse_flags
from avplatform.models.checks import at_least

HEADS = "valor, mmpyr, leap and mgn 8; cmbs 4; the others 1"


@dataclass(kw_only=True)
class ConvertOptions:
    """Turn a checkpoint of a paper's authors into a model folder; no code in the file is run."""

    file: Annotated[str, tyro.conf.Positional]
    """the checkpoint: a file of torch.save (any version since 0.2) or .safetensors"""
    from_: Annotated[str, tyro.conf.arg(name="from", metavar="MODEL")]
    """the published model, such as han or leap; docs/convert.md lists all"""
    out: str
    """folder to write; it must not exist yet, or be empty"""
    weak: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """ave: the weakly supervised model, not the full one; files of psp and cmbs tell which it is"""
    label_embeddings: str | None = None
    """leap, ovavel (required): label embeddings (.npy, .safetensors, .pt), or a GloVe text file"""
    norm: Annotated[
        Literal["post", "pre"] | None, tyro.conf.arg(help_behavior_hint="(default: post)")
    ] = None
    """valor: position of the layer norms"""
    heads: Annotated[int | None, tyro.conf.arg(help_behavior_hint=f"(default: {HEADS})")] = None
    """number of attention heads"""
    blocks: int | None = None
    """leap: number of projection blocks, which is checked against the file"""
    assignment: Annotated[
        Literal["soft", "hard"] | None, tyro.conf.arg(help_behavior_hint="(default: soft)")
    ] = None
    """mgn: how segments were assigned to classes (its option unimodal_assign)"""
    joint_assignment: Annotated[
        Literal["soft", "hard"] | None, tyro.conf.arg(help_behavior_hint="(default: soft)")
    ] = None
    """mgn: how audio groups were assigned to visual ones (its option crossmodal_assign)"""
    adjacency: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """ovavel: trained with its option use_adj_in_attn"""
    window: int | None = None
    """ovavel: its win_size, if trained with its option use_mask_in_attn"""
    power_norm: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """ovavel: trained with its option norm_flag"""
    dtype: Literal["float32", "float64"] = "float32"
    """stored precision"""


def run(args: list[str], prog: str) -> int:
    """Convert, and print what was read, assumed and written."""
    options = parse_flags(ConvertOptions, args, prog)
    for name in ("heads", "blocks", "window"):
        if getattr(options, name) is not None:
            at_least(options, name, 1)
    from avplatform.hub.convert import convert

    done = convert(
        options.file,
        options.from_,
        options.out,
        dtype=options.dtype,
        label_embeddings=options.label_embeddings,
        weak=options.weak or None,
        norm=options.norm,
        heads=options.heads,
        blocks=options.blocks,
        assignment=options.assignment,
        joint_assignment=options.joint_assignment,
        adjacency=options.adjacency or None,
        window=options.window,
        power_norm=options.power_norm or None,
    )
    console = Console()
    for line in done.lines:
        console.note(line)
    return 0
