"""Label refinement by exchanged tracks: is a class still found when one track is replaced?"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

Both = Literal["allow", "keep_one"]


class Exchanged(NamedTuple):
    """Video probabilities of clips with their own tracks, and with one track of another clip.

    `audio_other_visual` is the audio probability of a clip whose visual track was replaced, and so
    on.

    Shape: each [N, C].
    """

    audio: Tensor
    visual: Tensor
    audio_other_visual: Tensor
    visual_other_visual: Tensor
    audio_other_audio: Tensor
    visual_other_audio: Tensor


def partners(
    clip_ids: Sequence[str], weak: np.ndarray, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the clip that each clip exchanges tracks with, and whether there is one.

    The partner is drawn uniformly from the clips that share no class with it.

    Source: MA (CVPR 2021), released code. Departs: each draw depends on the seed and the clip's id
    alone, so that neither the order of the clips nor the number of readers matters.

    Shape: weak [N, C] -> int64 [N] (the clip itself where there is no partner), bool [N].
    """
    order = np.argsort(np.asarray(clip_ids))
    labels = np.asarray(weak).astype(bool)[order]
    found, known = np.arange(len(order)), np.zeros(len(order), dtype=bool)
    for n, clip_id in enumerate(clip_ids):
        apart = np.flatnonzero(~(labels & np.asarray(weak[n]).astype(bool)).any(axis=1))
        apart = apart[order[apart] != n]
        if len(apart):
            digest = hashlib.sha256(clip_id.encode()).digest()
            draw = np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
            found[n], known[n] = order[apart[draw.integers(len(apart))]], True
    return found, known


def errors(probability: Tensor, weak: Tensor) -> Tensor:
    """Return the share of clips in which each class is decided wrongly at 0.5, [N, C] -> [C]."""
    return 1 - ((probability > 0.5) == weak.bool()).to(probability.dtype).mean(dim=0)


def divisors(probability: Tensor, weak: Tensor) -> Tensor:
    """Return the errors of all classes, divided by the largest: [N, C] -> [C] in [0, 1].

    If there is no error at all, every divisor is NaN, and nothing is dropped.
    """
    wrong = errors(probability, weak)
    return wrong / wrong.max()


def dropped_labels(
    found: Exchanged,
    weak: Tensor,
    scale: tuple[Tensor, Tensor],
    *,
    both: Both = "allow",
) -> tuple[Tensor, Tensor]:
    """Return which labels do not hold in audio and in visual.

    A class is dropped from the visual labels of a clip if neither stream shows it when the audio
    track is another clip's, and from the audio labels if neither shows it when the visual track is.
    A probability counts as low below 0.5 times the divisor of the modality under test: a class with
    few errors is dropped at very low probabilities only, and one without errors never.

    Source: MA (CVPR 2021), released code, which divides the probabilities. Departs: with `both`
    "keep_one", a class that would lose both modalities keeps the one with the larger probability.

    Args:
        found: probabilities with exchanged tracks.
        weak: the video labels [N, C].
        scale: the divisors of audio and visual, each [C].
        both: whether a class may lose both modalities.

    Shape: two bool tensors [N, C].
    """
    audio_scale, visual_scale = scale
    has = weak.bool()
    seen = has & (found.visual_other_audio / visual_scale < 0.5)
    visual = seen & (found.audio_other_audio / visual_scale < 0.5)
    heard = has & (found.audio_other_visual / audio_scale < 0.5)
    audio = heard & (found.visual_other_visual / audio_scale < 0.5)
    if both == "keep_one":
        lost = audio & visual
        audio = audio & ~(lost & (found.audio >= found.visual))
        visual = visual & ~(lost & (found.audio < found.visual))
    return audio, visual
