"""`avplatform export`: write a model as one file for other runtimes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from avplatform.base.console import Console
from avplatform.commands.flags import parse_flags


@dataclass(kw_only=True)
class ExportOptions:
    """Write the network of a model to one file that other programs run without avplatform.

    The file reads segment features and, for decoders that query with label texts, label embeddings;
    the numbers of clips, segments and labels are free, but for MGN with grouped sound, which has a
    fixed number of segments, and for labels that were learned. Before it is kept, it is compared
    with the model at several sizes.
    """

    model: Annotated[str, tyro.conf.Positional]
    """run folder, model folder or hub id"""
    to: Literal["onnx", "torch-export"]
    """onnx: for ONNX Runtime and others; torch-export: for torch alone"""
    out: str
    """the file to write, which ends in .onnx or .pt2"""
    replace: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """the file may exist"""


def run(args: list[str], prog: str) -> int:
    """Export, and print what was written and how far it was checked."""
    options = parse_flags(ExportOptions, args, prog)
    from avplatform.exported.write import export

    done = export(options.model, options.out, to=options.to, replace=options.replace)
    console, about = Console(), done.about
    for shape, difference in done.differences.items():
        console.note(f"compared with the model at {shape}: largest difference {difference:.1e}")
    reads = ", ".join(f"{name} {axes}" for name, axes in about["inputs"].items())
    console.note(f"reads {reads.replace(chr(39), '')}; returns {', '.join(about['outputs'])}")
    synthetic = " (trained on SYNTHETIC features)" if about["synthetic"] is True else ""
    megabytes = done.file.stat().st_size / 1e6
    console.note(f"wrote {options.out} ({options.to}, {megabytes:.1f} MB){synthetic}")
    return 0
