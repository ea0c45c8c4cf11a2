"""Simulation of LLP: features, and pseudo-labels with errors, from audio and visual event maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.data.adapters.llp.annotations import SEGMENTS, read_annotations
from avplatform.data.adapters.llp.classes import CLASSES, LABEL_TEXTS
from avplatform.data.adapters.world import (
    World,
    WorldSimulation,
    clip_generator,
    jitter,
    mask_out,
    smear,
    spread_out,
)

OUTPUTS = {
    "audio": ("audio", 128, "vggish"),
    "visual": ("visual", 2048, "softplus"),
    "motion": ("visual", 512, "softplus"),
}
MODALITIES = ("audio", "visual")
CALIBRATION_CLIPS = 600


@dataclass(kw_only=True, frozen=True)
class LLPSimulation(WorldSimulation):
    """Constants of `sim-llp-1`; pairs are (audio, visual)."""

    name: str = "sim-llp-1"
    seed: int = 1
    amplitude: tuple[float, float] = (0.98, 0.90)
    trace: tuple[float, float] = (0.25, 0.35)
    trace_gain: float = 0.6
    miss: tuple[float, float] = (0.15, 0.17)
    segment_miss: tuple[float, float] = (0.05, 0.06)
    false_alarm: tuple[float, float] = (0.85, 0.55)
    segment_false_alarm: tuple[float, float] = (0.15, 0.08)
    pseudo_jitter: float = 0.30


@dataclass
class LLPClips:
    """Clips to draw: keys [N], weak labels [N, 25], event maps [N, 10, 25] per modality."""

    keys: list[str]
    rows: np.ndarray
    weak: np.ndarray
    audio: np.ndarray
    visual: np.ndarray
    splits: dict[str, np.ndarray] = field(default_factory=dict)
    sorted_by_class: bool = False


_Drawn = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]  # latents, pseudo-labels


class LLPSimulator:
    """Draws clips' features and pseudo-labels, each from the constants, the seed and its key alone.

    Args:
        constants: the preset.
        calibration: all clips; a fixed selection of them fixes each channel's mean and spread.
    """

    def __init__(self, constants: LLPSimulation, calibration: LLPClips) -> None:
        self.constants = constants
        self.world = World(constants, LABEL_TEXTS, OUTPUTS)
        drawn = [
            self._draw(clip_generator(constants.seed, calibration.keys[i]), calibration, i)
            for i in spread_out(len(calibration.keys), CALIBRATION_CLIPS)
        ]
        self.world.calibrate(
            {m: np.concatenate([latent[m] for latent, _ in drawn]) for m in MODALITIES}
        )

    def columns(self, clips: LLPClips, indices: Sequence[int]) -> dict[str, Any]:
        """Return the columns of a store for the clips at `indices`."""
        generators = [clip_generator(self.constants.seed, clips.keys[i]) for i in indices]
        drawn = [self._draw(rng, clips, i) for rng, i in zip(generators, indices, strict=True)]
        columns: dict[str, Any] = {
            "row": clips.rows[list(indices)],
            "clip_id": [clips.keys[i] for i in indices],
        }
        for name, (modality, width, _) in OUTPUTS.items():
            latent = np.stack([found[modality] for found, _ in drawn])  # (n, T, K)
            noise = np.stack(
                [rng.standard_normal((SEGMENTS, width), dtype=np.float32) for rng in generators]
            )
            columns[name] = self.world.observations[name](latent, noise, self.constants.pixel_noise)
        columns["weak"] = clips.weak[list(indices)]
        for modality in MODALITIES:
            pseudo = np.stack([found[modality] for _, found in drawn])
            columns[f"pseudo_{modality}"] = pseudo.astype(np.uint8)
            columns[f"dense_{modality}"] = getattr(clips, modality)[list(indices)]
        return columns

    def _draw(self, rng: np.random.Generator, clips: LLPClips, index: int) -> _Drawn:
        c = self.constants
        # (C, T) per modality
        maps: dict[str, Any] = {m: getattr(clips, m)[index].T.astype(bool) for m in MODALITIES}
        weak = clips.weak[index].astype(bool)
        latent, pseudo = {}, {}
        for number, modality in enumerate(MODALITIES):
            own, other = maps[modality], maps[MODALITIES[1 - number]]
            present, elsewhere = np.asarray(own.any(axis=1)), np.asarray(other.any(axis=1))
            gain = np.exp(c.gain_spread * rng.standard_normal(len(CLASSES)))
            traced = ~present & elsewhere & (rng.random(len(CLASSES)) < c.trace[number])
            drive = gain[:, None] * jitter(rng, own, c.label_jitter)
            drive = drive + c.trace_gain * (gain * traced)[:, None] * other
            drive = smear(drive) * np.exp(c.segment_gain_spread * rng.standard_normal(SEGMENTS))
            drive = c.amplitude[number] * mask_out(drive)
            z = self.world.ground(rng, modality, SEGMENTS)
            for label in np.flatnonzero(drive.any(axis=1)):
                z += drive[label][:, None].astype(np.float32) * self.world.instance(
                    rng, modality, int(label)
                )
            latent[modality] = z
            pseudo[modality] = self._pseudo(rng, number, weak, own, other, gain, traced)
        return latent, pseudo

    def _pseudo(
        self,
        rng: np.random.Generator,
        number: int,
        weak: np.ndarray,
        own: np.ndarray,
        other: np.ndarray,
        gain: np.ndarray,
        traced: np.ndarray,
    ) -> np.ndarray:
        """Draw a teacher's labels within the weak label, wrong where the signal is weak, [T, C]."""
        c = self.constants
        labels, segments = own.shape
        u, at = rng.random((2, labels)), rng.random((2, labels, segments))
        missed = u[0] < c.miss[number] * np.clip(1.6 - gain, 0.3, 2.5)
        alarm = u[1] < c.false_alarm[number] * np.where(traced, 2.2, 0.6)
        span = np.where(np.any(other, axis=1, keepdims=True), other, True) & (at[0] < 0.8)
        found: Any = jitter(rng, own, c.pseudo_jitter)
        found = (found & (at[0] >= c.segment_miss[number])) | (
            ~found & (at[1] < c.segment_false_alarm[number])
        )
        rows = np.where(
            np.any(own, axis=1, keepdims=True), found & ~missed[:, None], span & alarm[:, None]
        )
        return (rows & weak[:, None]).T


def official_clips(folder: str | Path, *, seed: int) -> LLPClips:
    """Return LLP's clips; training clips, which have weak labels only, borrow validation events."""
    data = read_annotations(folder)
    audio, visual = data.dense_audio.copy(), data.dense_visual.copy()
    train = data.splits["train"]
    audio[train], visual[train] = hot_deck(
        data.weak[train],
        data.splits["validation"],
        data.dense_audio,
        data.dense_visual,
        data.weak,
        keys=[data.filenames[i] for i in train],
        seed=seed,
    )
    rows = np.arange(len(data.filenames))
    return LLPClips(data.filenames, rows, data.weak, audio, visual, data.splits)


def hot_deck(
    weak: np.ndarray,
    donors: np.ndarray,
    audio: np.ndarray,
    visual: np.ndarray,
    donor_weak: np.ndarray,
    *,
    keys: list[str],
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return event maps for weakly labelled clips, borrowed from densely annotated donors.

    With probability 0.7, the whole maps of a donor with the same weak labels are taken, if there is
    one. Otherwise each class borrows its audio and visual rows from one donor of that class,
    preferably one that has several classes if the clip has, and a single one if not. Time is
    reversed with probability 0.5.

    Shape: weak [N, C]; donors: positions in audio and visual [M, T, C] and donor_weak [M, C];
        returns an audio and a visual map [N, T, C].
    """
    signature: dict[bytes, list[int]] = {}
    for d in donors:
        signature.setdefault(donor_weak[d].tobytes(), []).append(d)
    events = np.maximum(audio.max(axis=1), visual.max(axis=1)) > 0  # (M, C)
    holders = [donors[events[donors, c]] for c in range(weak.shape[1])]
    several = donor_weak.sum(axis=1) > 1
    out_a = np.zeros((len(weak), *audio.shape[1:]), dtype=np.uint8)
    out_v = np.zeros_like(out_a)
    for n, labels in enumerate(weak):
        rng = clip_generator(seed, f"labels:{keys[n]}")
        same = signature.get(labels.tobytes(), [])
        if same and rng.random() < 0.7:
            d = same[rng.integers(len(same))]
            a, v = audio[d], visual[d]
        else:
            a, v = np.zeros_like(audio[0]), np.zeros_like(visual[0])
            for c in np.flatnonzero(labels):
                if not len(holders[c]):
                    continue
                weight = np.where(several[holders[c]] == (labels.sum() > 1), 1.0, 0.15)
                d = rng.choice(holders[c], p=weight / weight.sum())
                a[:, c], v[:, c] = audio[d, :, c], visual[d, :, c]
        step = -1 if rng.random() < 0.5 else 1
        out_a[n], out_v[n] = a[::step], v[::step]
    return out_a, out_v
