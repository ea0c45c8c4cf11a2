"""Parsing videos of any length with a model of short clips, by overlapping windows.

Each segment gets the weighted mean of its scores over all windows that contain it. The weight is
the distance of the segment from the nearer edge of the window, so that windows with more context
count more and there is no jump where a window begins. The scores of whole windows, which gate the
segments or give the class of the clip, are averaged in the same way. Each segment is then decided
like a clip of one segment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avplatform.models.av_model import AVModel, any_tensor
from avplatform.models.contracts import DECIDING_AUX, Parse, Prediction, at_least_single
from avplatform.models.errors import UsageError


@dataclass(kw_only=True)
class Features:
    """Segment features of a whole video.

    Shape: audio [N, Da], visual [N, Dv] or [N, H, W, Dv], motion [N, Dm] or None, for N segments.
    """

    audio: np.ndarray
    visual: np.ndarray
    motion: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.audio)


def features_of(arrays: Features | Mapping[str, np.ndarray]) -> Features:
    """Return the features that a mapping holds.

    Raises:
        UsageError: a name is unknown or missing, or the arrays have no or different segments.
    """
    if isinstance(arrays, Mapping):
        names = [field.name for field in fields(Features)]
        if unknown := [name for name in arrays if name not in names]:
            raise UsageError(f"features have no array '{unknown[0]}' (known: {', '.join(names)})")
        if missing := [name for name in names[:2] if name not in arrays]:
            raise UsageError(f"features need the array '{missing[0]}' [segments, width]")
        arrays = Features(**{name: np.asarray(values) for name, values in arrays.items()})
    given = {name: values for name, values in vars(arrays).items() if values is not None}
    if any(values.ndim < 2 for values in given.values()):
        shapes = ", ".join(f"{name} {list(values.shape)}" for name, values in given.items())
        raise UsageError(f"features are arrays [segments, width], but these are {shapes}")
    if len({len(values) for values in given.values()}) > 1 or not len(arrays):
        counts = ", ".join(f"{name} {len(values)}" for name, values in given.items())
        raise UsageError(
            f"the arrays must have the same number of segments, at least one, but have {counts}"
        )
    return arrays


def parse_windows(model: AVModel, features: Features, **options: Any) -> Parse:
    """Return the merged parse of one video; see `parse_videos`."""
    return parse_videos(model, [features], **options)[0]


@torch.inference_mode()
def parse_videos(
    model: AVModel,
    videos: Sequence[Features],
    *,
    window: int = 10,
    hop: int = 5,
    batch_size: int = 16,
    label_embeddings: Tensor | None = None,
) -> list[Parse]:
    """Return the merged parses of videos: N segments as a batch of N clips of one segment each.

    Windows of the same length are parsed together, whichever videos they belong to. The values of a
    video agree with those of the video alone up to rounding (1e-6 of probabilities).

    Args:
        model: the model, in eval mode.
        videos: the features of each whole video.
        window: segments per window; a shorter video is one window.
        hop: segments from the beginning of one window to that of the next.
        batch_size: windows that are parsed at a time.
        label_embeddings: [C, E], for labels other than the model's own.

    Shape: segment values [N, 1, C], video values [N, C], relevance [N, 1]; attention
    [1, stream, C, N], which sums to 1 over time.

    Raises:
        UsageError: the windows would leave gaps.
    """
    if not 1 <= hop <= window:
        raise UsageError(
            f"hop is {hop} and window {window}; windows leave no gaps if 1 <= hop <= window"
        )
    merged, device = [_Merged(len(video)) for video in videos], any_tensor(model).device
    waiting: dict[int, list[tuple[int, int]]] = {}  # (video, start) of each window, by length
    for number, video in enumerate(videos):
        starts = window_starts(len(video), window=window, hop=hop)
        waiting.setdefault(min(window, len(video)), []).extend((number, at) for at in starts)
    for length, windows in waiting.items():
        weights = edge_weights(length)
        for first in range(0, len(windows), batch_size):
            chosen = windows[first : first + batch_size]
            streams = [
                _stack(
                    [(getattr(videos[number], name), start) for number, start in chosen],
                    length,
                    device,
                )
                for name in ("audio", "visual", "motion")
            ]
            parse = model(*streams, label_embeddings=label_embeddings).parse.for_decisions
            parts = _parts(parse)
            for number in dict.fromkeys(number for number, _ in chosen):
                rows = [row for row, (owner, _) in enumerate(chosen) if owner == number]
                own = {name: values[rows] for name, values in parts.items()}
                merged[number].add(parse, own, [chosen[row][1] for row in rows], weights)
    return [one.parse() for one in merged]


def window_starts(seconds: int, *, window: int, hop: int) -> list[int]:
    """Return where the windows begin; the last one ends where the video ends.

    Examples:
        >>> window_starts(23, window=10, hop=5), window_starts(7, window=10, hop=5)
        ([0, 5, 10, 13], [0])
    """
    if seconds <= window:
        return [0]
    last = seconds - window
    return [*range(0, last, hop), last]


def edge_weights(length: int) -> np.ndarray:
    """Return the weight of each segment of a window: its distance from the nearer edge.

    Examples:
        >>> edge_weights(5).tolist()
        [1.0, 2.0, 3.0, 2.0, 1.0]
    """
    steps = np.arange(1, length + 1, dtype=np.float64)
    return np.minimum(steps, steps[::-1])


class _Merged:
    """Weighted sums over windows of all values that decisions read."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self.sums: dict[str, Tensor] = {}
        self.total = torch.zeros(seconds, dtype=torch.float64)
        self.like: dict[str, Prediction] = {}

    def add(
        self, parse: Parse, parts: dict[str, Tensor], starts: list[int], weights: np.ndarray
    ) -> None:
        """Add some windows of a batch: their values in `parts`, of the kinds in `parse`."""
        weight = torch.from_numpy(weights)
        self.like = parse.predictions
        for name, values in parts.items():
            values = at_least_single(values).double().cpu()
            for start, one in zip(starts, values, strict=True):
                at = slice(start, start + len(weight))
                if not name.startswith(("segment", "attention", "relevance")):
                    one = one.expand(len(weight), -1)
                if name not in self.sums:
                    self.sums[name] = one.new_zeros((self.seconds, *one.shape[1:]))
                self.sums[name][at] += one * weight.reshape(-1, *[1] * (one.ndim - 1))
        for start in starts:
            self.total[start : start + len(weight)] += weight
        self.queried = parse.queried_by_labels

    def parse(self) -> Parse:
        """Return the weighted means."""
        means: dict[str, Tensor] = {}
        for name, sums in self.sums.items():
            means[name] = (sums / self.total.reshape(-1, *[1] * (sums.ndim - 1))).float()
        parse = Parse(queried_by_labels=self.queried)
        for name, like in self.like.items():
            values = means[name] if name.startswith("video") else means[name][:, None]
            parse.add(name, replace(like, values=values))
        parse.aux |= {name: means[name] for name in DECIDING_AUX if name in means}
        if "attention" in means:
            whole = means["attention"]  # (N, stream, C)
            shares = whole / whole.sum(dim=0, keepdim=True)
            parse.attention = shares.permute(1, 2, 0)[None]
        return parse


def _parts(parse: Parse) -> dict[str, Tensor]:
    """Return values by name: [windows, ...], or [windows, T, ...] for those per segment."""
    parts = {name: prediction.values for name, prediction in parse.predictions.items()}
    for name in (n for n in DECIDING_AUX if n in parse.aux):  # [W, C] or [W]
        parts[name] = parse.aux[name].reshape(len(parse.aux[name]), -1)
    if parse.attention is not None:
        parts["attention"] = parse.attention.permute(0, 3, 1, 2)  # (W, T, stream, C)
    return parts


def _stack(
    windows: Sequence[tuple[np.ndarray | None, int]], length: int, device: torch.device
) -> Tensor | None:
    """Return the windows of one stream, each an array and where its window begins."""
    parts = [stream[start : start + length] for stream, start in windows if stream is not None]
    return torch.from_numpy(np.stack(parts)).to(device) if parts else None
