"""`avplatform convert`: a published checkpoint becomes a model folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from avplatform.console import Console
from models.config import at_least


@dataclass(kw_only=True)
class ConvertOptions:
    """Turn a checkpoint that a paper's authors published into a model folder; nothing of the file is run."""

    file: Annotated[str, tyro.conf.Positional]
    """the checkpoint: a file of torch.save (any version since 0.2) or .safetensors"""
    from_: Annotated[Literal["han", "mmpyr", "leap", "ave", "dmrn", "psp", "cmbs", "valor"], tyro.conf.arg(name="from")]
    """the published model that it is of"""
    out: str
    """folder to write; it must not exist yet, or be empty"""
    weak: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """ave: the weakly supervised model (default: the full one); psp and cmbs tell it themselves"""
    label_embeddings: str | None = None
    """leap, needed: the label embeddings it was trained with (.npy, .safetensors, .pt), or a GloVe text file"""
    norm: Literal["post", "pre"] | None = None
    """valor: where the layer norms stand (default: post)"""
    heads: int | None = None
    """attention heads (default: han 1, valor, mmpyr and leap 8, cmbs 4)"""
    blocks: int | None = None
    """leap: projection blocks, held against the file"""
    dtype: Literal["float32", "float64"] = "float32"
    """stored precision"""


def run(args: list[str], prog: str) -> int:
    """Convert and say what was read, assumed and written."""
    options = tyro.cli(ConvertOptions, args=args, prog=prog)
    for name in ("heads", "blocks"):
        if getattr(options, name) is not None:
            at_least(options, name, 1)
    from avplatform.convert import convert

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
    )
    console = Console()
    for line in done.lines:
        console.note(line)
    return 0
