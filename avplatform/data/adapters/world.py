"""The latent world of synthetic features: class prototypes, backgrounds, and how they are observed.

All of it depends on the world seed alone, except the calibration of `Observation`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avplatform.models.texts.glove import glove_embedder

LABEL_SEED = 20241
"""Seed of the labels of demo data."""


@dataclass(kw_only=True, frozen=True)
class WorldSimulation:
    """Constants that all simulations share; docs/simulation.md explains each of them."""

    world_seed: int = 20240701
    latent: int = 48
    rho: float = 0.4
    sub_prototypes: int = 3
    prototype_spread: float = 0.5
    instance_spread: float = 0.5
    backgrounds: int = 24
    background_mix: float = 0.7
    background_spread: float = 0.7
    ar_scale: float = 0.6
    ar_memory: float = 0.8
    noise: float = 1.0
    gain_spread: float = 0.45
    segment_gain_spread: float = 0.3
    pixel_noise: float = 0.35
    label_jitter: float = 0.15
    spectrum: float = 0.5


@dataclass
class Observation:
    """How one feature type sees a latent vector: linear map, standardisation, nonlinearity."""

    weight: np.ndarray  # (K, D), standardised
    offset: np.ndarray  # (D,), standardised
    beta: np.ndarray  # (D,)
    kind: str

    def __call__(self, latent: np.ndarray, noise: np.ndarray, pixel_noise: float) -> np.ndarray:
        """Observe latent vectors [..., K] with standard normal noise [..., D], which is changed."""
        y = latent @ self.weight
        y += self.offset
        noise *= np.float32(pixel_noise)
        y += noise
        y *= np.float32(1 / np.sqrt(1 + pixel_noise**2))
        y += self.beta
        if self.kind == "vggish":
            np.maximum(y, 0, out=y)
            return np.float32(0.34) * y ** np.float32(1.35)
        if self.kind == "relu":
            return np.maximum(y, 0, out=y)
        return np.float32(0.225) * np.logaddexp(np.float32(0), 2 * y)


class World:
    """Prototypes of every class and modality, backgrounds, and the observation maps.

    Args:
        constants: the world's constants.
        texts: class texts; similar GloVe vectors make similar prototypes.
        outputs: name -> (modality, width, kind) of each feature type.
    """

    def __init__(
        self,
        constants: WorldSimulation,
        texts: Sequence[str],
        outputs: dict[str, tuple[str, int, str]],
    ) -> None:
        self.constants, self.outputs = constants, outputs
        rng = np.random.default_rng(constants.world_seed)
        k, classes = constants.latent, len(texts)
        self.semantics = _semantic_coordinates(list(texts))
        self.prototypes: dict[str, np.ndarray] = {}
        self.backgrounds: dict[str, np.ndarray] = {}
        for modality in ("audio", "visual"):
            told = self.told_by_texts(rng)
            own = unit(rng.standard_normal((classes, k)))
            centre = told + np.sqrt(1 - constants.rho) * own
            around = unit(rng.standard_normal((classes, constants.sub_prototypes, k)))
            self.prototypes[modality] = (
                centre[:, None] + constants.prototype_spread * around
            ).astype(np.float32)
            self.backgrounds[modality] = unit(
                rng.standard_normal((constants.backgrounds, k))
            ).astype(np.float32)
        scale = np.arange(1, k + 1)[:, None] ** -constants.spectrum
        self._maps = {
            name: rng.standard_normal((k, width)) * scale for name, (_, width, _) in outputs.items()
        }
        self._betas = {name: _betas(rng, width, kind) for name, (_, width, kind) in outputs.items()}
        self.observations: dict[str, Observation] = {}

    def told_by_texts(self, rng: np.random.Generator) -> np.ndarray:
        """Return the part of each class's prototype that its text tells, of length sqrt(rho).

        It is drawn once per stream. Shape: [C, K].
        """
        c, semantics = self.constants, self.semantics
        isometry = np.linalg.qr(rng.standard_normal((c.latent, semantics.shape[1])))[0]  # (K, S)
        return np.sqrt(c.rho) * semantics @ isometry.T

    def calibrate(self, latents: dict[str, np.ndarray]) -> None:
        """Fix each channel's standardisation from a sample of latents [n, K] per modality."""
        for name, (modality, _, kind) in self.outputs.items():
            z, w = latents[modality].astype(np.float64), self._maps[name]
            spread = np.sqrt(np.einsum("kd,kl,ld->d", w, np.cov(z.T), w))
            self.observations[name] = Observation(
                weight=(w / spread).astype(np.float32),
                offset=(-(z.mean(axis=0) @ w) / spread).astype(np.float32),
                beta=self._betas[name],
                kind=kind,
            )

    def instance(self, rng: np.random.Generator, modality: str, label: int) -> np.ndarray:
        """Draw one clip's own variant of a class prototype, [K]."""
        c = self.constants
        q = self.prototypes[modality][label, rng.integers(c.sub_prototypes)]
        return q + c.instance_spread * rng.standard_normal(c.latent, dtype=np.float32) / np.sqrt(
            np.float32(c.latent)
        )

    def ground(self, rng: np.random.Generator, modality: str, segments: int) -> np.ndarray:
        """Draw a background: a mix of two scenes, an offset, slow drift and noise, [T, K]."""
        c, unit = self.constants, np.float32(1 / np.sqrt(self.constants.latent))
        two = self.backgrounds[modality][rng.choice(c.backgrounds, 2, replace=False)]
        share = np.float32(rng.random())
        z = c.background_mix * (share * two[0] + (1 - share) * two[1])
        z = z + c.background_spread * unit * rng.standard_normal(c.latent, dtype=np.float32)
        drift = rng.standard_normal((segments, c.latent), dtype=np.float32)
        for t in range(1, segments):
            drift[t] = c.ar_memory * drift[t - 1] + np.sqrt(1 - c.ar_memory**2) * drift[t]
        noise = rng.standard_normal((segments, c.latent), dtype=np.float32)
        return (z + unit * (c.ar_scale * drift + c.noise * noise)).astype(np.float32)


def clip_generator(seed: int, key: str) -> np.random.Generator:
    """Return a clip's own generator, the same for any subset and order of the clips."""
    return np.random.default_rng([seed, zlib.crc32(key.encode()), len(key)])


def spread_out(count: int, wanted: int) -> list[int]:
    """Return at most `wanted` evenly spaced positions out of `count`: files are sorted by class."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int)).tolist()


def jitter(rng: np.random.Generator, rows: np.ndarray, amount: float) -> np.ndarray:
    """Move each end of each run by one segment, with probability amount/2 in either direction.

    Shape: bool [..., T] -> bool [..., T].
    """
    change = rows[..., 1:] != rows[..., :-1]
    draw = rng.random(change.shape)
    out = rows.copy()
    left, right = change & (draw < amount / 2), change & (draw > 1 - amount / 2)
    out[..., :-1] = np.where(left, rows[..., 1:], out[..., :-1])
    out[..., 1:] = np.where(right, rows[..., :-1], out[..., 1:])
    return out


def smear(h: np.ndarray) -> np.ndarray:
    """Mix each segment with its two neighbours, along the last axis."""
    padded = np.concatenate([h[..., :1], h, h[..., -1:]], axis=-1)
    return 0.7 * h + 0.15 * padded[..., :-2] + 0.15 * padded[..., 2:]


def mask_out(h: np.ndarray) -> np.ndarray:
    """Weaken events that occur at the same time, along the first axis (classes)."""
    total = np.sqrt((h**2).sum(axis=0, keepdims=True))
    return h * np.divide(np.abs(h), total, out=np.zeros_like(h), where=total > 0)


def _semantic_coordinates(texts: list[str]) -> np.ndarray:
    """Return the centred GloVe rows of the class texts, rotated and of unit norm, [C, S]."""
    rows = glove_embedder()(texts).numpy().astype(np.float64)
    rows = rows - rows.mean(axis=0)
    u, s, _ = np.linalg.svd(rows, full_matrices=False)
    return unit(u * s)


def _betas(rng: np.random.Generator, width: int, kind: str) -> np.ndarray:
    from statistics import NormalDist

    a, b = (2.0, 2.0) if kind == "softplus" else (0.8, 1.5)
    share = np.clip(rng.beta(a, b, width), 1e-4, 1 - 1e-4)
    return np.array([NormalDist().inv_cdf(p) for p in share], dtype=np.float32)


def unit(x: np.ndarray) -> np.ndarray:
    """Return vectors along the last axis with their length divided away."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)
