"""Simulation of AVE: audio vectors and 7x7 visual maps from one event per clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.data.adapters.ave.annotations import SEGMENTS, read_annotations
from avplatform.data.adapters.ave.classes import BACKGROUND, EVENTS
from avplatform.data.adapters.world import (
    World,
    WorldSimulation,
    clip_generator,
    jitter,
    smear,
    spread_out,
)

SIDE = 7
OUTPUTS = {"audio": ("audio", 128, "vggish"), "visual": ("visual", 512, "relu")}
CALIBRATION_CLIPS = 200


@dataclass(kw_only=True, frozen=True)
class AVESimulation(WorldSimulation):
    """Constants of `sim-ave-1`; pairs are (audio, visual)."""

    name: str = "sim-ave-1"
    seed: int = 1
    amplitude: tuple[float, float] = (0.96, 0.96)
    seen_outside: float = 0.45
    heard_outside: float = 0.30
    outside_gain: tuple[float, float] = (0.5, 1.0)
    distractor: tuple[float, float] = (0.30, 0.50)
    distractor_gain: tuple[float, float] = (0.4, 0.9)
    bump_width: tuple[float, float] = (0.9, 1.6)
    walk: float = 0.3
    texture: float = 0.7


@dataclass
class AVEClips:
    """Clips to draw: keys, rows, video labels [N] and segment labels [N, 10] (28: background)."""

    keys: list[str]
    rows: np.ndarray
    segment: np.ndarray
    video: np.ndarray
    splits: dict[str, np.ndarray] = field(default_factory=dict)
    sorted_by_class: bool = True


class AVESimulator:
    """Draws the features of clips, each from the constants, the seed and its key alone."""

    def __init__(self, constants: AVESimulation, calibration: AVEClips) -> None:
        self.constants = constants
        self.world = World(constants, EVENTS, OUTPUTS)
        y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
        self._grid = np.stack([y.ravel(), x.ravel()], axis=1)  # (P, 2)
        drawn = [
            self._draw(clip_generator(constants.seed, calibration.keys[i]), calibration, i)
            for i in spread_out(len(calibration.keys), CALIBRATION_CLIPS)
        ]
        latent = constants.latent
        self.world.calibrate(
            {
                "audio": np.concatenate([d[0] for d in drawn]),
                "visual": np.concatenate([d[1].reshape(-1, latent)[::7] for d in drawn]),
            }
        )

    def columns(self, clips: AVEClips, indices: Sequence[int]) -> dict[str, Any]:
        """Return the columns of a store for the clips at `indices`."""
        c, audio = self.constants, []
        # Maps are cast into their places: stacking a list of them would copy all once more.
        visual = np.empty((len(indices), SEGMENTS, SIDE, SIDE, 512), np.float16)
        for i, place in zip(indices, visual, strict=True):
            rng = clip_generator(c.seed, clips.keys[i])
            a, v = self._draw(rng, clips, i)
            noise_a = rng.standard_normal((SEGMENTS, 128), dtype=np.float32)
            noise_v = rng.standard_normal((SEGMENTS, SIDE * SIDE, 512), dtype=np.float32)
            audio.append(self.world.observations["audio"](a, noise_a, c.pixel_noise))
            seen = self.world.observations["visual"](v, noise_v, c.pixel_noise)
            place[...] = seen.reshape(place.shape)
        chosen = list(indices)
        return {
            "row": clips.rows[chosen],
            "clip_id": [clips.keys[i].split(":", 1)[1] for i in indices],
            "audio": np.stack(audio),
            "visual": visual,
            "segment": clips.segment[chosen],
            "video": clips.video[chosen],
        }

    def _draw(
        self, rng: np.random.Generator, clips: AVEClips, index: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return latent audio [T, K] and latent map [T, P, K]."""
        c, unit = self.constants, np.float32(1 / np.sqrt(self.constants.latent))
        label, inside = int(clips.video[index]), clips.segment[index] != BACKGROUND
        audio = self.world.ground(rng, "audio", SEGMENTS)
        visual = np.repeat(self.world.ground(rng, "visual", SEGMENTS)[:, None], SIDE * SIDE, axis=1)
        visual += c.texture * unit * rng.standard_normal((SIDE * SIDE, c.latent), dtype=np.float32)
        visual += c.noise * unit * rng.standard_normal(visual.shape, dtype=np.float32)
        outside = rng.random()
        drives = {m: jitter(rng, inside, c.label_jitter).astype(float) for m in OUTPUTS}
        leaks = {
            "visual": outside < c.seen_outside,
            "audio": c.seen_outside <= outside < c.seen_outside + c.heard_outside,
        }
        for number, m in enumerate(("audio", "visual")):
            if leaks[m]:
                drives[m] = np.where(drives[m] > 0, drives[m], rng.uniform(*c.outside_gain))
            drive = np.exp(c.gain_spread * rng.standard_normal()) * smear(drives[m])
            spread = np.exp(c.segment_gain_spread * rng.standard_normal(SEGMENTS))
            drive = c.amplitude[number] * drive * spread
            if label != BACKGROUND:
                self._add(rng, m, label, drive, audio, visual)
            if rng.random() < c.distractor[number]:
                other = int(rng.integers(len(EVENTS)))
                drive = np.full(SEGMENTS, rng.uniform(*c.distractor_gain))
                self._add(rng, m, other, drive, audio, visual)
        return audio, visual

    def _add(
        self,
        rng: np.random.Generator,
        modality: str,
        label: int,
        drive: np.ndarray,
        audio: np.ndarray,
        visual: np.ndarray,
    ) -> None:
        """Add an event to one latent stream; on the map as a bump with a slowly moving centre."""
        q, drive = self.world.instance(rng, modality, label), drive.astype(np.float32)
        if modality == "audio":
            audio += drive[:, None] * q
            return
        c = self.constants
        start = rng.uniform(1, SIDE - 2, 2)
        centre = start + np.cumsum(c.walk * rng.standard_normal((SEGMENTS, 2)), axis=0)
        away = self._grid[None] - centre[:, None].astype(np.float32)  # (T, P, 2)
        distance = (away**2).sum(axis=-1)  # (T, P)
        bump = np.exp(-distance / (2 * rng.uniform(*c.bump_width) ** 2)).astype(np.float32)
        visual += (drive[:, None] * bump)[..., None] * q


def official_clips(folder: str | Path) -> AVEClips:
    """Return AVE's clips, followed by the background clips of weak training as a further split."""
    data = read_annotations(folder)
    count, extra = len(data.clip_ids), data.background_count
    keys = [f"{row}:{clip}" for row, clip in enumerate(data.clip_ids)]
    keys += [f"{count + i}:background_{i:03d}" for i in range(extra)]
    segment = np.concatenate([data.segment, np.full((extra, data.segment.shape[1]), BACKGROUND)])
    video = np.concatenate([data.class_index, np.full(extra, BACKGROUND)])
    splits = {**data.splits, "background": np.arange(count, count + extra)}
    return AVEClips(keys, np.arange(count + extra), segment, video, splits)
