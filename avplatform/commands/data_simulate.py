"""`avplatform data simulate`: draw synthetic features from official annotation files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avplatform.base.console import Console
from avplatform.commands.choices import DatasetTask
from avplatform.commands.flags import parse_flags
from avplatform.models.errors import UsageError
from avplatform.models.paths import expanded


@dataclass(kw_only=True)
class SimulateOptions:
    """Draw synthetic features from the real annotation files of a dataset; the labels stay real."""

    task: DatasetTask
    """task of the dataset whose annotation files are read"""
    annotations: str
    """folder of the official annotation files"""
    out: str
    """folder to write; it must not exist yet"""
    preset: str | None = None
    """simulation; ovavel: sim-ovavel-1 (default), sim-ovavel-1-joint, sim-ovavel-1-joint-rho04"""
    ratio: Literal["0.25", "0.5", "0.75"] | None = None
    """share of the training clips, by the authors' lists (ovavel); default: all"""
    seed: int | None = None
    """seed of the clips; default: the preset's own, so that everyone gets the same data"""
    dtype: Literal["float16", "float32"] = "float16"
    """stored precision"""
    layout: Literal["store", "official"] = "store"
    """store (parquet shards), or the authors' file layout"""
    limit: int | None = None
    """largest number of training clips, over all classes; official annotations are cut as well"""


def run(args: list[str], prog: str) -> int:
    """Simulate features as the flags say."""
    options = parse_flags(SimulateOptions, args, prog)
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit is {options.limit}; it must be at least 1")
    from avplatform.data.simulate import simulate
    from avplatform.data.store.card import render_dataset_card

    console = Console()
    with console.bar("simulate", total=100) as bar:
        manifest = simulate(
            options.task,
            expanded(options.annotations),
            expanded(options.out),
            dtype=options.dtype,
            layout=options.layout,
            preset=options.preset,
            ratio=options.ratio,
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
