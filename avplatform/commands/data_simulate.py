"""`avplatform data simulate`: features drawn from official annotation files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from avplatform.base.console import Console
from avplatform.commands.choices import DatasetTask
from avplatform.commands.flags import parse_flags
from avplatform.models.errors import UsageError


@dataclass(kw_only=True)
class SimulateOptions:
    """Draw synthetic features from the real annotation files of a dataset; labels stay real, features are made up."""

    task: DatasetTask
    """task of the dataset whose annotation files are read"""
    annotations: str
    """folder of the official annotation files"""
    out: str
    """folder to write; it must not exist yet"""
    seed: int | None = None
    """seed of the clips; default: the preset's own, so that everybody gets the same data"""
    dtype: Literal["float16", "float32"] = "float16"
    """stored precision"""
    layout: Literal["store", "official"] = "store"
    """store (parquet shards), or the authors' file layout"""
    limit: int | None = None
    """at most this many training clips (spread over classes where files are sorted by them); --layout official then cuts the annotation files too"""


def run(args: list[str], prog: str) -> int:
    """Simulate by the given flags."""
    options = parse_flags(SimulateOptions, args, prog)
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit is {options.limit}; it must be at least 1")
    from avplatform.data.simulate import simulate
    from avplatform.data.store.card import render_dataset_card

    console = Console()
    with console.bar("simulate", total=100) as bar:
        manifest = simulate(
            options.task,
            Path(options.annotations),
            Path(options.out),
            dtype=options.dtype,
            layout=options.layout,
            seed=options.seed,
            subset=None if options.limit is None else {"train": options.limit},
            progress=bar.fraction,
            card=render_dataset_card,
        )
    if manifest is None:
        console.note(f"wrote {options.out} in the authors' file layout: synthetic features")
        return 0
    counts = ", ".join(f"{name} {split.rows}" for name, split in manifest.splits.items())
    console.note(f"wrote {options.out}: synthetic features, {counts}; checksum {manifest.checksum}")
    return 0
