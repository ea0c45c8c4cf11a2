"""Synthetic features for the real annotations of LLP and AVE; docs/simulation.md says how and how far to trust them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.data.adapters.ave import simulation as ave
from avplatform.data.adapters.ave.annotations import read_annotations as read_ave
from avplatform.data.adapters.ave.classes import BACKGROUND
from avplatform.data.adapters.llp import simulation as llp
from avplatform.data.adapters.llp.annotations import read_annotations as read_llp
from avplatform.data.adapters.world import spread_out
from avplatform.data.simulate.official_layout import OfficialWriter
from avplatform.data.store.schema import Manifest
from avplatform.data.store.writer import StoreWriter
from avplatform.models.errors import unknown_name

PRESETS: dict[str, Any] = {"sim-llp-1": llp.LLPSimulation(), "sim-ave-1": ave.AVESimulation()}
"""Simulations by name: versioned, with fixed seeds, so that everybody draws the same data."""

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
        task: "avvp" (LLP) or "avel" (AVE).
        annotations: folder of the official files.
        out: folder to write.
        preset: default: the task's own.
        seed: of the clips; default: the preset's.
        subset: how many clips of a split to keep: the first ones of LLP, evenly spaced ones of AVE, whose files are
            sorted by class; a clip stays the same in any subset.
        dtype: stored precision of a store.
        layout: "store", or "official" for the authors' file layout (which has no manifest; None is returned). With a subset
            its annotation files are cut to the clips that are written.
        progress: told the share that is done.
        card: makes README.md from the manifest.

    Raises:
        UsageError: unknown task, preset or layout, or a folder that is not empty.
        DataError: annotation files that are missing or malformed.
    """
    if task not in ("avvp", "avel"):
        raise unknown_name("task", task, ("avvp", "avel"))
    if layout not in ("store", "official"):
        raise unknown_name("layout", layout, ("store", "official"))
    constants = preset_constants(preset or {"avvp": "sim-llp-1", "avel": "sim-ave-1"}[task])
    if seed is not None:
        constants = dataclasses.replace(constants, seed=seed)
    provenance = {"generator": constants.name, "constants": dataclasses.asdict(constants)}
    if task == "avvp":
        clips: Any = llp_clips(annotations, seed=constants.seed)
        simulator: Any = llp.LLPSimulator(constants, clips)
        spec = llp.spec(
            constants,
            provenance={
                **provenance,
                "labels": "LLP annotations; train events from validation donors",
            },
        )
    else:
        clips = ave_clips(annotations)
        simulator = ave.AVESimulator(constants, clips)
        spec = ave.spec(constants, provenance={**provenance, "labels": "AVE annotations"})
    if layout == "official":
        events = len(clips.rows) - len(
            clips.splits.get("background", ())
        )  # also of clips in no split: rows are lines
        rows = None
        if subset:
            rows = [
                int(clips.rows[i]) for indices in choose(clips, subset).values() for i in indices
            ]
        with OfficialWriter(out, spec, annotations, events, rows) as official:
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
    """Draw all splits of `clips`, a block at a time, into a store."""
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
    """Draw the clips of all splits, a block at a time, and hand them to a writer."""
    chosen = choose(clips, subset)
    total, done = sum(map(len, chosen.values())), 0
    for split, indices in chosen.items():
        for block in llp.blocks(len(indices), BLOCK):
            writer.add(split, simulator.columns(clips, [int(indices[i]) for i in block]))
            done += len(block)
            if progress is not None:
                progress(done / total)


def choose(clips: Any, subset: dict[str, int] | None) -> dict[str, np.ndarray]:
    """Return the indices of the clips that are drawn, by split."""
    chosen = {}
    for split, indices in clips.splits.items():
        wanted = (subset or {}).get(split, len(indices))
        if len(indices):
            chosen[split] = (
                indices[spread_out(len(indices), wanted)]
                if clips.sorted_by_class
                else indices[:wanted]
            )
    return chosen


def preset_constants(name: str) -> Any:
    """Return the constants of a named simulation."""
    if name not in PRESETS:
        raise unknown_name("simulation", name, PRESETS)
    return PRESETS[name]


def llp_clips(folder: str | Path, *, seed: int) -> llp.LLPClips:
    """Return LLP's clips; training clips, which have weak labels only, borrow events from validation clips."""
    data = read_llp(folder)
    audio, visual = data.dense_audio.copy(), data.dense_visual.copy()
    train = data.splits["train"]
    audio[train], visual[train] = llp.hot_deck(
        data.weak[train],
        data.splits["validation"],
        data.dense_audio,
        data.dense_visual,
        data.weak,
        keys=[data.filenames[i] for i in train],
        seed=seed,
    )
    rows = np.arange(len(data.filenames))
    return llp.LLPClips(data.filenames, rows, data.weak, audio, visual, data.splits)


def ave_clips(folder: str | Path) -> ave.AVEClips:
    """Return AVE's clips, and after them the background clips of weak training as a split of their own."""
    data = read_ave(folder)
    count, extra = len(data.clip_ids), data.background_count
    keys = [f"{row}:{clip}" for row, clip in enumerate(data.clip_ids)]
    keys += [f"{count + i}:background_{i:03d}" for i in range(extra)]
    segment = np.concatenate([data.segment, np.full((extra, data.segment.shape[1]), BACKGROUND)])
    video = np.concatenate([data.class_index, np.full(extra, BACKGROUND)])
    splits = {**data.splits, "background": np.arange(count, count + extra)}
    return ave.AVEClips(keys, np.arange(count + extra), segment, video, splits)


__all__ = ["PRESETS", "simulate", "write"]
