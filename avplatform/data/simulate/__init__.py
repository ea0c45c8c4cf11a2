"""Synthetic features for real annotations; docs/simulation.md tells how far to trust them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.data.adapters.registry import adapter_of_task
from avplatform.data.adapters.world import spread_out
from avplatform.data.simulate.official_layout import OfficialWriter
from avplatform.data.store.schema import Manifest
from avplatform.data.store.writer import StoreWriter
from avplatform.models.errors import unknown_name

BLOCK = 64


def simulate(
    task: str,
    annotations: str | Path,
    out: str | Path,
    *,
    preset: str | None = None,
    seed: int | None = None,
    subset: dict[str, int] | None = None,
    dtype: str = "float16",
    layout: str = "store",
    progress: Callable[[float], None] | None = None,
    card: Callable[[Manifest], str] | None = None,
) -> Manifest | None:
    """Draw features for the clips of official annotation files and write them as a store.

    Args:
        task: task whose dataset is simulated.
        annotations: folder of the official annotation files.
        out: folder to write.
        preset: name of the simulation; default: the dataset's own.
        seed: seed of the clips; default: the preset's.
        subset: number of clips to keep per split: the first ones, or evenly spaced ones if the
            files are sorted by class; a clip is the same in any subset.
        dtype: precision of the features in a store.
        layout: "store", or "official" for the authors' file layout. The latter has no manifest
            (None is returned); with a subset, its annotation files are cut to the written clips.
        progress: called with the finished share.
        card: makes README.md from the manifest.

    Raises:
        UsageError: the task, preset or layout is unknown, or the folder is not empty.
        DataError: annotation files are missing or malformed.
    """
    adapter = adapter_of_task(task)
    if layout not in ("store", "official"):
        raise unknown_name("layout", layout, ("store", "official"))
    constants = adapter.preset()
    if preset is not None and preset != constants.name:
        raise unknown_name("simulation", preset, [constants.name])
    if seed is not None:
        constants = dataclasses.replace(constants, seed=seed)
    clips = adapter.clips(annotations, seed=constants.seed)
    simulator = adapter.simulator(constants, clips)
    provenance = {
        "generator": constants.name,
        "constants": dataclasses.asdict(constants),
        "labels": adapter.simulated_labels,
    }
    spec = adapter.simulated_spec(constants, provenance=provenance)
    if layout == "official":
        # Clips in no split count too: the rows are the lines of the annotation file.
        events = len(clips.rows) - len(clips.splits.get("background", ()))
        kept = choose(clips, subset).values() if subset else ()
        rows = [int(clips.rows[i]) for indices in kept for i in indices] if subset else None
        with OfficialWriter(out, adapter, spec, annotations, events, rows) as official:
            draw(official, simulator, clips, subset=subset, progress=progress)
        return None
    return write(
        out, spec, simulator, clips, dtype=dtype, subset=subset, progress=progress, card=card
    )


def write(
    out: str | Path,
    spec: Any,
    simulator: Any,
    clips: Any,
    *,
    dtype: str = "float16",
    subset: dict[str, int] | None = None,
    progress: Callable[[float], None] | None = None,
    card: Callable[[Manifest], str] | None = None,
) -> Manifest:
    """Draw all splits of `clips`, one block at a time, into a store."""
    with StoreWriter(out, spec, dtype=dtype, card=card) as writer:
        draw(writer, simulator, clips, subset=subset, progress=progress)
    assert writer.manifest is not None
    return writer.manifest


def draw(
    writer: StoreWriter | OfficialWriter,
    simulator: Any,
    clips: Any,
    *,
    subset: dict[str, int] | None = None,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Draw the clips of all splits, one block at a time, and pass them to a writer."""
    chosen = choose(clips, subset)
    total, done = sum(map(len, chosen.values())), 0
    for split, indices in chosen.items():
        for start in range(0, len(indices), BLOCK):
            block = range(start, min(len(indices), start + BLOCK))
            writer.add(split, simulator.columns(clips, [int(indices[i]) for i in block]))
            done += len(block)
            if progress is not None:
                progress(done / total)


def choose(clips: Any, subset: dict[str, int] | None) -> dict[str, np.ndarray]:
    """Return the indices of the clips to draw, by split."""
    chosen = {}
    for split, indices in clips.splits.items():
        wanted = (subset or {}).get(split, len(indices))
        if len(indices):
            places = spread_out(len(indices), wanted) if clips.sorted_by_class else slice(wanted)
            chosen[split] = indices[places]
    return chosen


__all__ = ["simulate", "write"]
