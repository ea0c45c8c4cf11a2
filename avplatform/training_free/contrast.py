"""Scores of label texts against texts and inputs in which there is nothing, per label and second.

A label's margin is the logit of its text above the mean of the background texts' logits. Its
threshold is the highest margin of inputs without content (grey pictures, silence, noise), at least
0, plus `SAFETY`: what noise scores is never an event, and a label whose text is near to everything
needs more than one whose text is not.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avplatform.features.sampling import SAMPLE_RATE
from avplatform.features.teachers import Teacher

SAFETY = 1.0
"""Logits by which a label must exceed all that has no content."""
ALONE = 4.0
"""Weight of a segment against the weight 1 of each neighbour, in smoothing."""


class Texts(NamedTuple):
    """How labels become prompts of a stream, and what says that there is nothing."""

    prompts: tuple[str, ...]
    background: tuple[str, ...]


SEEN = Texts(
    ("a photo of {}.", "a video frame of {}.", "{}."),
    (
        "nothing in particular",
        "an empty room",
        "a plain wall",
        "a blurred scene",
        "a black screen",
    ),
)
HEARD = Texts(
    ("the sound of {}.", "This is a sound of {}", "{}."),
    ("silence", "background noise", "room tone", "hiss", "hum"),
)


class Contrast(nn.Module):
    """The probabilities of labels in the segments of one stream.

    Args:
        labels: vectors of the labels, of length 1: [C, D].
        background: vectors of the background texts, of length 1: [K, D].
        scale: the factor of the cosine in the logits.
        empty: features of inputs without content: [N, D].
    """

    def __init__(
        self, labels: np.ndarray, background: np.ndarray, *, scale: float, empty: np.ndarray
    ) -> None:
        super().__init__()
        self.scale = scale
        self.labels, self.background = _fixed(labels), _fixed(background)
        highest = self.margins(torch.from_numpy(np.asarray(empty, np.float32))).amax(dim=0)
        self.thresholds = _fixed(highest.clamp(min=0) + SAFETY)

    def margins(self, features: Tensor) -> Tensor:
        """Return how far the labels' logits exceed the background's: [..., D] -> [..., C]."""
        unit = F.normalize(features, dim=-1)
        background = self.scale * unit @ self.background.T
        level = background.logsumexp(dim=-1, keepdim=True) - math.log(background.shape[-1])
        return self.scale * unit @ self.labels.T - level

    def forward(self, features: Tensor) -> Tensor:
        """Return smoothed probabilities, 0 where a feature is all zeros: [B, T, D] -> [B, T, C]."""
        found = (self.margins(features) - self.thresholds).sigmoid()
        return smoothed(found * features.any(dim=-1, keepdim=True))


def smoothed(probabilities: Tensor) -> Tensor:
    """Return the weighted mean of each segment and its neighbours: [B, T, C] -> [B, T, C].

    A segment alone needs a probability of 0.75 to stay above 0.5; a gap between two sure ones
    closes from 0.25.
    """
    total, weight = ALONE * probabilities, torch.full_like(probabilities, ALONE)
    for ours, theirs in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
        total[:, ours] += probabilities[:, theirs]
        weight[:, ours] += 1
    return total / weight


def contrast(teacher: Teacher, labels: list[str], texts: Texts) -> Contrast:
    """Return the contrast of labels in the stream of a teacher, with calibrated thresholds."""
    vectors = [_embedded(teacher, text, texts.prompts) for text in labels]
    background = [_embedded(teacher, text, texts.prompts) for text in texts.background]
    empty = empty_pictures(teacher.input_size) if teacher.input_size else empty_sounds()
    return Contrast(
        np.stack(vectors),
        np.stack(background),
        scale=teacher.scale,
        empty=teacher.segment_features(empty),
    )


def empty_pictures(size: int) -> np.ndarray:
    """Return pictures without content: black, grey, white, a gradient, fine and coarse noise.

    Shape: float32 [N, 3, S, S].
    """
    random = np.random.default_rng(0)
    plain = [np.full((3, size, size), value, np.float32) for value in (0.0, 0.5, 1.0)]
    gradient = np.broadcast_to(np.linspace(0, 1, size, dtype=np.float32), (3, size, size))
    fine = random.random((3, size, size), dtype=np.float32)
    blocks, index = random.random((3, 8, 8), dtype=np.float32), np.arange(size) * 8 // size
    return np.stack([*plain, gradient, fine, blocks[:, index][:, :, index]])


def empty_sounds() -> np.ndarray:
    """Return seconds of sound without content: silence, white, pink and brown noise, mains hum.

    Shape: float32 [N, samples].
    """
    random = np.random.default_rng(0)
    white = random.standard_normal(SAMPLE_RATE)
    spectrum, steps = np.fft.rfft(white), np.arange(SAMPLE_RATE // 2 + 1).clip(min=1)
    noises = [np.fft.irfft(spectrum / steps**power, SAMPLE_RATE) for power in (0.0, 0.5, 1.0)]
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    hum = np.sin(2 * np.pi * 50 * time) + 0.5 * np.sin(2 * np.pi * 100 * time)
    loud = [0.3 * sound / np.abs(sound).max() for sound in (*noises, hum)]
    return np.stack([np.zeros(SAMPLE_RATE), *loud]).astype(np.float32)


def _embedded(teacher: Teacher, text: str, prompts: tuple[str, ...]) -> np.ndarray:
    """Return the mean direction of a text in all prompts: [D]."""
    vectors = teacher.text_features([prompt.format(text) for prompt in prompts]).vectors
    mean = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).mean(axis=0)
    return mean / np.linalg.norm(mean)


def _fixed(values: np.ndarray | Tensor) -> nn.Parameter:
    tensor = torch.as_tensor(values, dtype=torch.float32)
    return nn.Parameter(tensor, requires_grad=False)
