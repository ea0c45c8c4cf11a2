"""Extraction of features by a recipe: decoding, sampling, and batches across clips."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from avplatform.features.backbones import (
    MOTION_FRAMES,
    Backbone,
    Where,
    audio_backbone,
    motion_backbone,
    visual_backbone,
)
from avplatform.features.fetch import also_missing, ensure_weights
from avplatform.features.media import Limits, MediaInfo, Spent, iter_frames, probe, read_waveform
from avplatform.features.recipe import FeatureRecipe, get_recipe
from avplatform.features.sampling import count_segments, frame_times
from avplatform.features.weights import Weights, check_names
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import DataError, UsageError

AUDIO_BLOCK = 600  # segments of sound that are held at once
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(kw_only=True, frozen=True)
class Request:
    """A request for the features of a file, from `start` for `seconds` (default: to its end)."""

    path: str | Path
    start: float = 0.0
    seconds: float | None = None
    segments: int | None = None
    """number of segments; default: as many as the length holds, rounded"""
    info: MediaInfo | None = None
    """the result of `probe`, if the file was probed already"""


@dataclass(kw_only=True)
class ClipFeatures:
    """Features of a clip, one per segment.

    The features of a stream that the file lacks are zeros; see `has_audio` and `has_video`.

    Shape: audio [T, Da]; visual [T, Dv], or [T, H, W, Dv] where the recipe makes maps; motion
    [T, Dm] or None; float32.
    """

    audio: np.ndarray
    visual: np.ndarray
    motion: np.ndarray | None
    seconds: float
    start: float
    has_audio: bool
    has_video: bool
    info: MediaInfo
    pending: int = 0
    """number of items that are decoded, but whose features are not added yet"""


class Extractor:
    """Turns media files into segment features.

    Args:
        recipe: a recipe, its name, or its JSON value.
        weights: files by the name of a backbone or stream; "folder" is a folder of them. Other
            weights are looked for in the default folder of weights and on the Hub; with the key
            "auto", all that are missing are fetched.
        device: where the networks run.
        dtype: the precision of the networks.
        batch: images or seconds of sound in a batch; a batch of motion clips is a quarter of it.
        limits: the limits of a file's duration, size and rates.
        segment_seconds: the length of a segment.

    Raises:
        UsageError: an unknown recipe, a model that timm does not have, or weights that no backbone
            reads.
        DataError: the weights are missing (the message says where they are published) or wrong.
    """

    def __init__(
        self,
        recipe: str | dict[str, Any] | FeatureRecipe,
        weights: Weights | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | str = torch.float32,
        *,
        batch: int = 32,
        limits: Limits | None = None,
        segment_seconds: float = 1.0,
    ) -> None:
        if batch < 1:
            raise UsageError(f"batch is {batch}; it must be at least 1")
        self.segment_seconds = segment_seconds
        self.recipe, self.limits, self.batch = get_recipe(recipe), limits or Limits(), batch
        self._reading, self._spent = Request(path="", start=0.0), Spent()
        self.device = torch.device(device)
        self.dtype = DTYPES[dtype] if isinstance(dtype, str) else dtype
        weights = dict(weights or {})
        check_names(weights, weight_names(self.recipe))
        ensure_weights(self.recipe, weights)
        where = Where(device=self.device, dtype=self.dtype, weights=weights)
        try:
            self.audio = audio_backbone(self.recipe.audio, where)
            self.visual = visual_backbone(self.recipe.visual, where)
            motion = self.recipe.motion
            self.motion = motion_backbone(motion, where) if motion else None
        except DataError as error:
            raise DataError(f"{error}{also_missing(self.recipe, weights, str(error))}") from None

    @property
    def features(self) -> FeatureSpec:
        """The widths of the features, with the description of how they were made."""
        return FeatureSpec(
            audio_dim=self.audio.width,
            visual_dim=self.visual.width,
            motion_dim=self.motion.width if self.motion else None,
            map_size=self.visual.map_size,
            extractors=self.describe(),
        )

    def describe(self) -> dict[str, Any]:
        """Return the recipe, the frame sizes, and the weights with checksums, as JSON values."""
        streams = {"audio": self.audio, "visual": self.visual, "motion": self.motion}
        return {
            "recipe": self.recipe.to_dict(),
            "precision": str(self.dtype).removeprefix("torch."),
            "weights": {name: b.source for name, b in streams.items() if b is not None},
            "resize": {
                name: asdict(b.size)
                for name, b in streams.items()
                if b is not None and b.size is not None
            },
            "audio_rate": self.audio.rate,
        }

    def spent_on(self, request: Request) -> Spent:
        """Return the pixels spent on a file so far.

        The parts of one file share a count while they are requested in order; an earlier part or
        another file starts a new one.
        """
        before, self._reading = self._reading, request
        if str(request.path) != str(before.path) or request.start <= before.start:
            self._spent = Spent()
        return self._spent

    takes_info: ClassVar[bool] = True
    """`clip` accepts the result of `probe` as `info`."""

    def clip(
        self,
        path: str | Path,
        start: float = 0.0,
        seconds: float | None = None,
        *,
        info: MediaInfo | None = None,
    ) -> ClipFeatures:
        """Return the features of a file or of a part of it; the arguments are those of `Request`.

        Raises:
            DataError: the file is not media, damaged, cut off, or beyond a limit.
        """
        return self.clips([Request(path=path, start=start, seconds=seconds, info=info)])[0]

    def clips(self, paths: Iterable[str | Path | Request]) -> list[ClipFeatures]:
        """Return the features of several files, in batches across the files.

        Raises:
            DataError: a file is bad; the error of the first such file.
        """
        found = []
        for _, result in self.stream(paths):
            if isinstance(result, DataError):
                raise result
            found.append(result)
        return found

    def stream(
        self, paths: Iterable[str | Path | Request]
    ) -> Iterator[tuple[Request, ClipFeatures | DataError]]:
        """Yield each request, in order, with its features or the error of its file."""
        batchers = _Batchers(self)
        waiting: list[tuple[Request, ClipFeatures | DataError]] = []
        for path in paths:
            request = path if isinstance(path, Request) else Request(path=path)
            try:
                clip: ClipFeatures | DataError = batchers.read(request)
            except DataError as error:
                clip = error
            waiting.append((request, clip))
            while waiting and (isinstance(waiting[0][1], DataError) or not waiting[0][1].pending):
                yield waiting.pop(0)
        batchers.flush()
        yield from waiting


def weight_names(recipe: FeatureRecipe) -> set[str]:
    """Return the names under which weights may be given for a recipe."""
    names = {"audio", "visual"} | ({"motion", str(recipe.motion)} if recipe.motion else set())
    names.add(recipe.audio.partition(":")[0])
    if recipe.audio == "vggish-pca":
        names.add("vggish")
    kind, _, inner = recipe.visual.partition(":")
    return names | {kind, inner, inner.split(".")[0]} - {"", "timm"}


class _Batcher:
    """Collects items for one backbone into batches, and adds each feature to its clip's segment."""

    def __init__(self, backbone: Backbone, size: int, device: torch.device) -> None:
        self.backbone, self.size, self.device = backbone, size, device
        self.items: list[np.ndarray] = []
        self.targets: list[tuple[ClipFeatures, np.ndarray, int, float]] = []

    def add(
        self, item: np.ndarray, clip: ClipFeatures, out: np.ndarray, segment: int, share: float
    ) -> None:
        if self.items and self.items[0].shape != item.shape:
            self.flush()
        self.items.append(item)
        self.targets.append((clip, out, segment, share))
        clip.pending += 1
        if len(self.items) >= self.size:
            self.flush()

    @torch.inference_mode()
    def flush(self) -> None:
        if not self.items:
            return
        batch = torch.from_numpy(np.stack(self.items)).to(self.device, non_blocking=True)
        features = self.backbone.run(batch).cpu().numpy()
        for (clip, out, segment, share), feature in zip(self.targets, features, strict=True):
            out[segment] += feature * np.float32(share)
            clip.pending -= 1
        self.items, self.targets = [], []


class _Batchers:
    """The batchers of a recipe's backbones; decodes files and gives them their items."""

    def __init__(self, extractor: Extractor) -> None:
        self.extractor = extractor
        size, device = extractor.batch, extractor.device
        self.audio = _Batcher(extractor.audio, size, device)
        self.visual = _Batcher(extractor.visual, size, device)
        motion = extractor.motion
        self.motion = _Batcher(motion, max(1, size // 4), device) if motion else None

    def flush(self) -> None:
        for batcher in (self.audio, self.visual, self.motion):
            if batcher is not None:
                batcher.flush()

    def read(self, request: Request) -> ClipFeatures:
        """Decode a request, and give its frames and sound to the batchers."""
        extractor, limits = self.extractor, self.extractor.limits
        info = request.info or probe(request.path, limits=limits)
        left = info.duration - request.start
        seconds = left if request.seconds is None else min(left, request.seconds)
        if request.start < 0 or seconds <= 0:
            raise DataError(
                f"{request.path} lasts {info.duration:.2f} s; there is nothing from "
                f"{request.start:.2f} s on"
            )
        each = extractor.segment_seconds
        segments = request.segments or count_segments(seconds, each)
        motion = extractor.motion
        clip = ClipFeatures(
            audio=np.zeros((segments, *extractor.audio.shape), np.float32),
            visual=np.zeros((segments, *extractor.visual.shape), np.float32),
            motion=np.zeros((segments, *motion.shape), np.float32) if motion else None,
            seconds=seconds,
            start=request.start,
            has_audio=info.has_audio,
            has_video=info.has_video,
            info=info,
        )
        # The segments after the end of a short clip stay zeros.
        covered = min(segments, count_segments(seconds, each))
        if info.has_video:
            self._video(request, clip, min(seconds, (covered + 0.5) * each), covered)
        if info.has_audio:
            self._audio(request, clip, covered)
        return clip

    def _video(self, request: Request, clip: ClipFeatures, seconds: float, segments: int) -> None:
        extractor, recipe = self.extractor, self.extractor.recipe
        count = recipe.frames_per_segment
        # The times of still frames and of motion frames, merged in order, each with its index.
        numbers = [count, MOTION_FRAMES] if extractor.motion else [count]
        wanted: list[tuple[float, int, int]] = []
        for moving, number in enumerate(numbers):
            times = frame_times(seconds, segments, fps=recipe.fps, per_segment=number)
            wanted += [(time, index, moving) for index, time in enumerate(times)]
        wanted.sort(key=lambda entry: entry[0])
        backbones = (extractor.visual, extractor.motion)
        frames = iter_frames(
            request.path,
            np.array([time for time, _, _ in wanted]) + request.start,
            [part.size for part in backbones if part is not None and part.size is not None],
            limits=extractor.limits,
            spent=extractor.spent_on(request),
        )
        held: list[np.ndarray] = []
        for pictures, (_, index, moving) in zip(frames, wanted, strict=True):
            if not moving:
                self.visual.add(pictures[0], clip, clip.visual, index // count, 1.0 / count)
            elif self.motion is not None and clip.motion is not None:
                held.append(pictures[1])
                if len(held) == MOTION_FRAMES:
                    self.motion.add(np.stack(held), clip, clip.motion, index // MOTION_FRAMES, 1.0)
                    held = []

    def _audio(self, request: Request, clip: ClipFeatures, segments: int) -> None:
        backbone = self.extractor.audio
        assert backbone.items is not None
        if self.extractor.segment_seconds != 1:
            self._audio_of_segments(request, clip, segments)
            return
        for first in range(0, segments, AUDIO_BLOCK):
            count = min(AUDIO_BLOCK, segments - first)
            # A part of a file ends at its length. A whole file is read to its last sample, which
            # may come after its last frame.
            to_the_end = request.seconds is None and first + count == segments
            left = max(0.0, min(clip.seconds - first, float(count)))
            samples = read_waveform(
                request.path,
                backbone.rate,
                start=request.start + first,
                seconds=count + 0.5 if to_the_end else left,
                limits=self.extractor.limits,
            )
            for offset, item in enumerate(backbone.items(samples, count)):
                self.audio.add(item, clip, clip.audio, first + offset, 1.0)

    def _audio_of_segments(self, request: Request, clip: ClipFeatures, segments: int) -> None:
        """Give the sound of segments that do not last one second, as the networks' inputs do.

        A shorter segment is heard with the sound around it, one second in all; a longer one in
        evenly spaced seconds, whose features are averaged.
        """
        backbone, each = self.extractor.audio, self.extractor.segment_seconds
        count, rate = max(1, int(np.ceil(each))), backbone.rate
        offsets = np.linspace(min(0.0, (each - 1) / 2), max(each - 1, (each - 1) / 2), count)
        assert backbone.items is not None
        block = max(1, int(AUDIO_BLOCK / max(each, 1)))
        for first in range(0, segments, block):
            number = min(block, segments - first)
            starts = ((first + np.arange(number))[:, None] * each + offsets).reshape(-1)
            last = clip.seconds + (0.5 if request.seconds is None else 0)  # see `_audio`
            begin, end = max(0.0, float(starts[0])), min(float(starts[-1]) + 1, last)
            samples = read_waveform(
                request.path,
                rate,
                start=request.start + begin,
                seconds=max(0.0, end - begin),
                limits=self.extractor.limits,
            )
            parts = np.zeros((len(starts), rate), np.float32)
            for part, start in zip(parts, starts, strict=True):
                at = round((start - begin) * rate)
                sound = samples[max(0, at) : max(0, at + rate)]
                part[max(0, -at) : max(0, -at) + len(sound)] = sound
            for index, item in enumerate(backbone.items(parts.reshape(-1), len(starts))):
                self.audio.add(item, clip, clip.audio, first + index // count, 1.0 / count)
