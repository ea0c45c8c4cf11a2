"""Simulation of OV-AVEBench: vectors per segment, of a joint model or of two networks apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avplatform.data.adapters.ovave.annotations import SEGMENTS, read_annotations
from avplatform.data.adapters.ovave.classes import BACKGROUND, EVENTS, TEXTS
from avplatform.data.adapters.world import (
    World,
    WorldSimulation,
    clip_generator,
    jitter,
    smear,
    spread_out,
    unit,
)
from avplatform.models.texts.files import LabelEmbeddings

STREAMS = ("audio", "visual")
JOINT_DIM = 1024
WIDTHS = {"audio": 128, "visual": 512}
OUTPUTS = {"audio": ("audio", 128, "vggish"), "visual": ("visual", 512, "relu")}
CALIBRATION_CLIPS = 200
TEXT_SEED = 11
"""Added to the seed of the world for the texts, so that they have a stream of their own."""


@dataclass(kw_only=True, frozen=True)
class OVAVESimulation(WorldSimulation):
    """Constants of `sim-ovavel-1`; pairs are (audio, visual).

    `joint` says which features are drawn: those of one model of sound, picture and text (1,024 per
    stream, with text vectors), or those of two networks (128 and 512). `rho` is the share of a
    class's prototype that its text tells.
    """

    name: str = "sim-ovavel-1"
    seed: int = 1
    joint: bool = False
    latent: int = 96
    text_share: float = 0.5
    amplitude: tuple[float, float] = (1.05, 1.05)
    segment_gain_spread: float = 0.6
    seen_outside: float = 0.35
    heard_outside: float = 0.30
    both_outside: float = 0.35
    outside_gain: tuple[float, float] = (0.5, 1.0)
    distractor: tuple[float, float] = (0.30, 0.50)
    distractor_gain: tuple[float, float] = (0.4, 0.9)
    common: float = 0.3
    common_text: float = 1.0


PRESETS: tuple[OVAVESimulation, ...] = (
    OVAVESimulation(),
    OVAVESimulation(name="sim-ovavel-1-joint", joint=True, rho=0.8, amplitude=(0.72, 0.72)),
    OVAVESimulation(name="sim-ovavel-1-joint-rho04", joint=True),
)


@dataclass
class OVAVEClips:
    """Clips to draw: keys, rows, the class of collection [N] and which segments have it [N, 10]."""

    keys: list[str]
    rows: np.ndarray
    category: np.ndarray
    event: np.ndarray
    splits: dict[str, np.ndarray] = field(default_factory=dict)
    sorted_by_class: bool = True

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """The labels of a store: segment [N, 10], video [N] and category [N]."""
        has = self.event == 1
        return {
            "segment": np.where(has, self.category[:, None], BACKGROUND),
            "video": np.where(has.any(axis=1), self.category, BACKGROUND),
            "category": self.category,
        }


class OVAVEWorld(World):
    """A world whose prototypes share a direction with the text of their class, in both streams."""

    def told_by_texts(self, rng: np.random.Generator) -> np.ndarray:
        """Return the text vectors of the classes, the same for both streams."""
        return np.sqrt(self.constants.rho) * self.texts()[:-1]

    def texts(self) -> np.ndarray:
        """Return the vectors of all texts in the latent space, `other` last: [C + 1, K]."""
        semantics = self.semantics
        c = self.constants
        rng = np.random.default_rng([c.world_seed, TEXT_SEED])
        classes, k = len(semantics), c.latent
        isometry = np.linalg.qr(rng.standard_normal((k, semantics.shape[1])))[0]  # (K, S)
        own = unit(rng.standard_normal((classes + 1, k)))
        share = c.text_share  # type: ignore[attr-defined]
        told = np.sqrt(share) * semantics @ isometry.T + np.sqrt(1 - share) * own[:classes]
        return np.concatenate([unit(told), own[classes:]])


class OVAVESimulator:
    """Draws the features of clips, each from the constants, the seed and its key alone.

    Source: ours, after sim-ave-1, with vectors in place of maps; see docs/simulation.md.
    """

    def __init__(self, constants: OVAVESimulation, calibration: OVAVEClips) -> None:
        self.constants = constants
        self.world = OVAVEWorld(constants, TEXTS["other"][:BACKGROUND], OUTPUTS)
        self._space = joint_space(constants) if constants.joint else None
        if constants.joint:
            return
        drawn = [
            self._draw(clip_generator(constants.seed, calibration.keys[i]), calibration, i)
            for i in spread_out(len(calibration.keys), CALIBRATION_CLIPS)
        ]
        self.world.calibrate({m: np.concatenate([d[m] for d in drawn]) for m in STREAMS})

    def columns(self, clips: OVAVEClips, indices: Sequence[int]) -> dict[str, Any]:
        """Return the columns of a store for the clips at `indices`."""
        found: dict[str, list[np.ndarray]] = {m: [] for m in STREAMS}
        for i in indices:
            rng = clip_generator(self.constants.seed, clips.keys[i])
            latent = self._draw(rng, clips, i)
            for m in STREAMS:
                found[m].append(self._observe(rng, m, latent[m]))
        chosen = list(indices)
        return {
            "row": clips.rows[chosen],
            "clip_id": [clips.keys[i] for i in indices],
            **{m: np.stack(values) for m, values in found.items()},
            **{name: values[chosen] for name, values in clips.labels.items()},
        }

    def _observe(self, rng: np.random.Generator, modality: str, z: np.ndarray) -> np.ndarray:
        """Return the features [T, D] of latent vectors [T, K]."""
        c = self.constants
        if self._space is not None:
            common, isometry = self._space
            return (unit(unit(z) + c.common * common) @ isometry).astype(np.float32)
        noise = rng.standard_normal((SEGMENTS, WIDTHS[modality]), dtype=np.float32)
        return self.world.observations[modality](z, noise, c.pixel_noise)

    def _draw(
        self, rng: np.random.Generator, clips: OVAVEClips, index: int
    ) -> dict[str, np.ndarray]:
        """Return the latent vectors [T, K] of both streams."""
        c, label = self.constants, int(clips.category[index])
        latent = {m: self.world.ground(rng, m, SEGMENTS) for m in STREAMS}
        draw = rng.random()
        seen = draw < c.seen_outside
        heard = c.seen_outside <= draw < c.seen_outside + c.heard_outside
        both = c.seen_outside + c.heard_outside <= draw
        both &= draw < c.seen_outside + c.heard_outside + c.both_outside
        leaks = {"visual": seen or both, "audio": heard or both}
        inside = clips.event[index] == 1
        for number, m in enumerate(STREAMS):
            drive = jitter(rng, inside, c.label_jitter).astype(float)
            if leaks[m]:
                drive = np.where(drive > 0, drive, rng.uniform(*c.outside_gain))
            drive = np.exp(c.gain_spread * rng.standard_normal()) * smear(drive)
            drive = drive * np.exp(c.segment_gain_spread * rng.standard_normal(SEGMENTS))
            event = self.world.instance(rng, m, label)
            latent[m] += (c.amplitude[number] * drive).astype(np.float32)[:, None] * event
            if rng.random() < c.distractor[number]:
                other = self.world.instance(rng, m, int(rng.integers(len(EVENTS))))
                latent[m] += np.float32(rng.uniform(*c.distractor_gain)) * other
        return latent

    def label_vectors(self) -> LabelEmbeddings | None:
        """Return the vectors of all texts in the joint space; None where there is no such space."""
        c = self.constants
        if self._space is None:
            return None
        common, isometry = self._space
        latent = self.world.texts()
        values = unit(latent + c.common_text * common) @ isometry
        source = {"kind": "simulation", "name": c.name, "synthetic": True}
        tensor = torch.from_numpy(values.astype(np.float32))
        return LabelEmbeddings(
            tensor, list(TEXTS["other"]), source, classes=[*EVENTS, "background"]
        )


def joint_space(constants: OVAVESimulation) -> tuple[np.ndarray, np.ndarray]:
    """Return the direction that all joint vectors share, [K], and the isometry [K, 1024]."""
    rng = np.random.default_rng([constants.world_seed, TEXT_SEED + 1])
    common = unit(rng.standard_normal(constants.latent))
    isometry = np.linalg.qr(rng.standard_normal((JOINT_DIM, constants.latent)))[0].T
    return common.astype(np.float32), isometry.astype(np.float32)


def official_clips(folder: str | Path, *, ratio: str = "1") -> OVAVEClips:
    """Return the clips of the annotation files, with a ratio of the training clips."""
    data = read_annotations(folder, ratio=ratio)
    rows = np.arange(len(data.clip_ids))
    return OVAVEClips(data.clip_ids, rows, data.category, data.event, data.splits)
