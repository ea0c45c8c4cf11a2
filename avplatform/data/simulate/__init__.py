"""Synthetic features for real annotations; docs/simulation.md tells how far to trust them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from avplatform.base.machine import available_cores
from avplatform.base.read_ahead import read_ahead
from avplatform.data.adapters.registry import adapter_of_task
from avplatform.data.adapters.world import spread_out
from avplatform.data.simulate.official_layout import OfficialWriter
from avplatform.data.store.schema import LABEL_FILE, Manifest
from avplatform.data.store.writer import StoreWriter
from avplatform.models.errors import UsageError, unknown_name
from avplatform.models.paths import expanded
from avplatform.models.texts.files import LabelEmbeddings, write_label_file

BLOCK = 32
"""Clips that are drawn at once; a clip is the same in any block."""
MOST_THREADS = 4
"""Threads that draw at most; what writes the clips cannot keep up with more."""


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
    ratio: str | None = None,
    progress: Callable[[float], None] | None = None,
    card: Callable[[Manifest], str] | None = None,
) -> Manifest | None:
    """Draw features for the clips of official annotation files and write them as a store.

    Where the simulation has a space that texts share with the features, the vectors of the label
    texts are written too, to LABEL_FILE in the same folder.

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
        ratio: share of the training clips, by a list of the authors; None: all of them.
        progress: called with the finished share.
        card: makes README.md from the manifest.

    Raises:
        UsageError: the task, preset, layout or ratio is unknown, or the folder is not empty.
        DataError: annotation files are missing or malformed.
    """
    adapter = adapter_of_task(task)
    if layout not in ("store", "official"):
        raise unknown_name("layout", layout, ("store", "official"))
    presets = {constants.name: constants for constants in adapter.presets()}
    if preset is not None and preset not in presets:
        raise unknown_name("simulation", preset, presets)
    constants = adapter.preset() if preset is None else presets[preset]
    if ratio is not None and ratio not in adapter.ratios:
        known = ", ".join(adapter.ratios)
        raise UsageError(
            f"ratio is {ratio}; {adapter.title} has "
            + (f"lists for {known}" if known else "no lists of parts of the training clips")
        )
    if seed is not None:
        constants = dataclasses.replace(constants, seed=seed)
    part = {} if ratio is None else {"ratio": ratio}
    clips = adapter.clips(annotations, seed=constants.seed, **part)
    simulator = adapter.simulator(constants, clips)
    provenance = {
        "generator": constants.name,
        "constants": dataclasses.asdict(constants),
        "labels": adapter.simulated_labels,
        **part,
    }
    spec = adapter.simulated_spec(constants, provenance=provenance)
    if layout == "official":
        # Clips in no split count too: the rows are the lines of the annotation file.
        events = len(clips.rows) - len(clips.splits.get("background", ()))
        kept = choose(clips, subset).values()
        rows = [int(clips.rows[i]) for indices in kept for i in indices] if subset or part else None
        with OfficialWriter(out, adapter, spec, annotations, events, rows) as official:
            draw(official, simulator, clips, subset=subset, progress=progress)
            if (texts := label_vectors(simulator)) is not None:
                official.labels(texts)
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
    if (texts := label_vectors(simulator)) is not None:
        write_label_file(expanded(out) / LABEL_FILE, texts)
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
    """Draw the clips of all splits, one block at a time, and pass them to a writer.

    Threads draw the next blocks while one is written: each clip has its own generator, so they
    change nothing. Meanwhile numpy multiplies on one thread in the whole process.
    """
    chosen = choose(clips, subset)
    blocks = [
        (split, indices[start : start + BLOCK].tolist())
        for split, indices in chosen.items()
        for start in range(0, len(indices), BLOCK)
    ]
    jobs = (partial(simulator.columns, clips, block) for _, block in blocks)
    threads = min(available_cores(), MOST_THREADS)
    total, done = sum(map(len, chosen.values())), 0
    drawn = read_ahead(jobs, threads, ahead=threads + 1)
    # With several threads per product of numpy, the threads that draw would wait for each other.
    with threadpool_limits(1, user_api="blas"):
        for (split, block), columns in zip(blocks, drawn, strict=True):
            writer.add(split, columns)
            done += len(block)
            if progress is not None:
                progress(done / total)


def label_vectors(simulator: Any) -> LabelEmbeddings | None:
    """Return the vectors of label texts in the space of the features, if the simulator has one."""
    make = getattr(simulator, "label_vectors", None)
    return None if make is None else make()


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
