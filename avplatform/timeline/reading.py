"""Reading the features of a file that a model needs, as its config names them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from avplatform.models.av_model import AVModel
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import DataError, UsageError
from avplatform.timeline.windows import Features

if TYPE_CHECKING:
    from avplatform.features.container import Limits, MediaInfo

CHUNK = 60
"""Seconds, in whole segments, whose features are extracted at a time: memory stays flat."""


class ClipFeatures(Protocol):
    """Segment features of a stretch of video; those of an absent stream are zeros.

    Shape: audio [T, Da], visual [T, Dv] or [T, H, W, Dv], motion [T, Dm] or None.
    """

    audio: Any
    visual: Any
    motion: Any
    has_audio: bool
    has_video: bool


class Extractor(Protocol):
    """Turns a stretch of a media file into features, one vector or map per segment.

    If it has a true attribute `takes_info`, its `clip` also gets `info`, the result of `probe`.
    Segments last one second, unless an attribute `segment_seconds` says otherwise.
    """

    def clip(
        self, path: str | Path, start: float = 0.0, seconds: float | None = None
    ) -> ClipFeatures:
        """Return the features from `start`, for `seconds` or to the end."""
        ...


def extractor_of_model(
    model: AVModel,
    *,
    recipe: str | None = None,
    weights: Mapping[str, str | Path] | None = None,
    device: torch.device | None = None,
    limits: Limits | None = None,
) -> Extractor:
    """Return the extractor of a model's features, by the recipe in its config or by `recipe`.

    Raises:
        UsageError: the config has no recipe, the recipe makes features of another size, or weights
            are given that none of its backbones reads.
        DataError: weights are missing.
    """
    from avplatform.features.extractor import Extractor as MediaExtractor
    from avplatform.features.recipe import RECIPES

    spec = model.config.features
    if recipe is None and not spec.extractors:
        *names, last = RECIPES
        raise UsageError(
            "the model does not say how its features were extracted (it was trained on synthetic "
            "or imported ones); if you know that they were made as here, name the recipe: --recipe "
            f"{', '.join(names)} or {last}"
        )
    made = MediaExtractor(
        recipe or spec.extractors,
        dict(weights or {}),
        device or torch.device("cpu"),
        limits=limits,
        segment_seconds=model.config.segment_seconds,
    )
    if made.features != spec:
        raise UsageError(
            f"the model reads {widths(spec)}, but the recipe {made.recipe.name} makes "
            f"{widths(made.features)}; give the --recipe of the features that it was trained on"
        )
    return made


def widths(spec: FeatureSpec) -> str:
    """Return the sizes of the features in words.

    Examples:
        >>> widths(FeatureSpec(audio_dim=128, visual_dim=512, map_size=(7, 7)))
        'audio 128, visual 7x7x512, no motion'
    """
    maps = "".join(f"{n}x" for n in spec.map_size or ())
    motion = "no motion" if spec.motion_dim is None else f"motion {spec.motion_dim}"
    return f"audio {spec.audio_dim}, visual {maps}{spec.visual_dim}, {motion}"


def read_features(
    extractor: Extractor,
    video: str | Path,
    *,
    duration: float,
    info: MediaInfo | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> tuple[Features, dict[str, bool]]:
    """Return the features of a whole file, extracted a minute at a time, and which streams it has.

    A remainder of less than a minute is extracted with the last whole minute. `info` is the result
    of `probe`, for extractors that accept it.

    Raises:
        DataError: the file cannot be read.
    """
    each = segment_seconds(extractor)
    chunk = max(1, round(CHUNK / each)) * each
    chunks = max(1, math.floor(duration / chunk + 1e-6))
    told = {"info": info} if getattr(extractor, "takes_info", False) else {}
    most = math.ceil(duration / each) + 2 * round(chunk / each)
    present = {"audio": False, "visual": False}
    streams: dict[str, _Growing] = {}
    for number in range(chunks):
        last = number == chunks - 1
        seconds = None if last else float(chunk)
        part = extractor.clip(video, start=float(number * chunk), seconds=seconds, **told)
        present["audio"] |= bool(part.has_audio)
        present["visual"] |= bool(part.has_video)
        for name in ("audio", "visual", "motion"):
            if (values := getattr(part, name)) is not None:
                streams.setdefault(name, _Growing(most)).add(np.asarray(values, np.float32))
        if on_progress is not None:
            on_progress((number + 1) / chunks)
    joined = {name: stream.values for name, stream in streams.items()}
    if not len(joined["audio"]):
        raise DataError(f"{video} is too short for one segment; give a longer file")
    if not any(present.values()):
        raise DataError(f"{video} has neither sound nor pictures; give a video or a sound file")
    for name, there in present.items():
        if not there:
            joined[name] = np.zeros_like(joined[name])
    return Features(**joined), present


class _Growing:
    """An array that parts are added to, without all of them and their joint copy in memory."""

    def __init__(self, expected: int) -> None:
        self.expected, self.filled = expected, 0
        self.room = np.empty(0, np.float32)

    def add(self, part: np.ndarray) -> None:
        """Add rows; more than the expected ones need a copy."""
        end = self.filled + len(part)
        if end > len(self.room):
            room = np.empty((max(end, self.expected), *part.shape[1:]), np.float32)
            room[: self.filled] = self.values if self.filled else room[:0]
            self.room = room
        self.room[self.filled : end] = part
        self.filled = end

    @property
    def values(self) -> np.ndarray:
        """The rows that were added."""
        return self.room[: self.filled]


def segment_seconds(extractor: Extractor) -> float:
    """Return the length of an extractor's segments."""
    return float(getattr(extractor, "segment_seconds", 1.0))


def check_segments(model: AVModel, extractor: Extractor) -> None:
    """Raise UsageError unless the extractor's segments last as long as those of the model."""
    wanted, made = model.config.segment_seconds, segment_seconds(extractor)
    if made != wanted:
        raise UsageError(
            f"the model's segments last {wanted:g} s, but the extractor makes segments of "
            f"{made:g} s; make it with segment_seconds={wanted:g}, or extract the features "
            "yourself and give them to `parse`"
        )


def check_fits(model: AVModel, features: Features) -> None:
    """Raise UsageError unless the features have the sizes that the model reads."""
    spec = model.config.features
    *maps, visual = features.visual.shape[1:]
    got = FeatureSpec(
        audio_dim=features.audio.shape[-1],
        visual_dim=visual,
        motion_dim=None if features.motion is None else features.motion.shape[-1],
        map_size=(maps[0], maps[1]) if len(maps) == 2 else None,
    )
    if got != spec:
        raise UsageError(
            f"the model reads {widths(spec)} per segment, but the features are {widths(got)}"
        )
