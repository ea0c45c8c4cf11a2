"""Frames and waveforms of a media file as arrays, in one pass and with bounded memory."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.features.container import (
    NEAR,
    Limits,
    MediaInfo,
    Opened,
    Spent,
    length_of,
    measured_seconds,
    opened,
    reading,
    stream_seconds,
)
from avplatform.features.pyav import pixel_aspect
from avplatform.models.errors import DataError, UsageError

__all__ = [
    "FrameSize",
    "Limits",
    "MediaInfo",
    "Spent",
    "iter_frames",
    "probe",
    "read_frames",
    "read_waveform",
]

# Seconds into a file beyond which seeking to a key frame is faster than decoding up to it.
SEEK_BEYOND = 4.0
# Per frame of sound after resampling, over all channels: a rate of 1 Hz would make gigabytes.
MOST_SAMPLES = 2**26
LONGEST = 16  # ratio of the sides of a frame, beyond which only its middle is scaled
GAP = 0.1  # seconds by which sound may be late before silence is inserted


@dataclass(kw_only=True, frozen=True)
class FrameSize:
    """The size that frames are resized to.

    Without `short_side`, a frame is stretched to (height, width). With it, the shorter side is
    resized to `short_side`, the aspect ratio is kept, and the centre (height, width) is cropped.
    """

    height: int
    width: int
    short_side: int | None = None

    def __post_init__(self) -> None:
        sides = (self.height, self.width)
        if min(sides) < 1 or (self.short_side is not None and self.short_side < max(sides)):
            raise UsageError(
                f"frames of {self.height} x {self.width} cannot be cut from a short side of "
                f"{self.short_side}"
            )


def probe(path: str | Path, *, limits: Limits | None = None) -> MediaInfo:
    """Return what a media file declares about itself; at most one frame is decoded.

    A sound track without any sound in it does not count, nor do pictures beside sound of which
    there is none.

    Raises:
        DataError: the file is missing, unreadable, empty, not media, or beyond a limit.
        UsageError: PyAV is not installed.
    """
    with opened(path, limits) as file:
        video, audio = file.video, file.audio
        if audio is not None and video is not None and not _has_packets(path, limits):
            audio = None  # a recorder with its microphone off declares a sound track
        rotation, rate = 0, None
        size: tuple[Any, Any] = (None, None)
        if video is not None:
            first = next(file.frames(video), None)
            if first is None and audio is not None:
                video = None  # as above, a camera with its lens off
        if video is not None:
            rotation = int(first.rotation) if first is not None else 0
            context, rate = video.codec_context, video.average_rate or video.guessed_rate
            size = (round(context.width * pixel_aspect(video)), context.height)
        width, height = size[::-1] if rotation % 180 else size
        return MediaInfo(
            path=str(path),
            duration=length_of(file),
            fps=float(rate) if rate else None,
            width=width,
            height=height,
            rotation=rotation,
            has_audio=audio is not None,
            has_video=video is not None,
            audio_rate=audio.codec_context.sample_rate if audio is not None else None,
            container=file.container.format.name,
            video_codec=video.codec_context.name if video is not None else None,
            audio_codec=audio.codec_context.name if audio is not None else None,
        )


def read_frames(
    path: str | Path,
    times: Sequence[float] | np.ndarray,
    size: int | tuple[int, int],
    *,
    short_side: int | None = None,
    limits: Limits | None = None,
) -> np.ndarray:
    """Return the frames that are on the screen at the given times.

    Args:
        path: a media file.
        times: seconds from the beginning of the file, in any order. A time before the first frame
            gives the first one, and a time after the last frame gives the last one.
        size: height and width, or one number for both; frames are stretched to it.
        short_side: resize the shorter side to this and crop the centre to `size` instead.
        limits: the limits for the file.

    Shape: N times -> uint8 [N, H, W, 3], RGB, rotated as a player shows it.

    Raises:
        DataError: the file is not media, has no video, is damaged, is cut off before one of the
            times, or is beyond a limit.
    """
    height, width = (size, size) if isinstance(size, int) else size
    wanted = np.asarray(times, dtype=np.float64).reshape(-1)
    out = np.zeros((len(wanted), height, width, 3), np.uint8)
    order = np.argsort(wanted, kind="stable")
    sizes = [FrameSize(height=height, width=width, short_side=short_side)]
    for position, pictures in zip(
        order, iter_frames(path, wanted[order], sizes, limits=limits), strict=True
    ):
        out[position] = pictures[0]
    return out


def iter_frames(
    path: str | Path,
    times: np.ndarray,
    sizes: Sequence[FrameSize],
    *,
    limits: Limits | None = None,
    spent: Spent | None = None,
) -> Iterator[list[np.ndarray]]:
    """Yield, for each of the ascending times, the frame on the screen in each of the sizes.

    The frame of a time is the last one that begins at or before it. The file is read in one pass,
    and at most two frames are in memory. A file that is read in parts needs one `spent` for all.

    Shape: each uint8 [H, W, 3].

    Raises:
        DataError: in the cases of `read_frames`.
        UsageError: the times are not ascending, or not finite.
    """
    times = np.asarray(times, dtype=np.float64)
    if not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise UsageError("the times of frames must be finite numbers in ascending order")
    with opened(path, limits, spent) as file:
        if file.video is None:
            raise DataError(f"{path} has no video; give a file with pictures")
        if len(times):
            aspect = pixel_aspect(file.video)
            yield from _pick(file, times, [_Resizer(size, aspect) for size in sizes])


def read_waveform(
    path: str | Path,
    rate: int,
    *,
    start: float = 0.0,
    seconds: float | None = None,
    limits: Limits | None = None,
) -> np.ndarray:
    """Return the sound of a media file: mono, resampled, and placed by its time stamps.

    Args:
        path: a media file.
        rate: samples per second of the result.
        start: seconds into the file at which to begin.
        seconds: length of the result, which is shorter where the file ends; default: all.
        limits: the limits for the file.

    Shape: float32 [samples], about -1 to 1; the channels are averaged. Of a video whose sound track
        is empty, there are no samples.

    Raises:
        DataError: the file is not media, has no audio, is damaged, or is beyond a limit.

    Departs: published extractors resample with other filters (resampy, sox); we use FFmpeg's
    swresample.
    """
    if rate < 1 or start < 0 or (seconds is not None and seconds < 0):
        raise UsageError(f"rate {rate}, start {start} and seconds {seconds} must not be negative")
    with opened(path, limits) as file:
        if file.audio is None:
            raise DataError(f"{path} has no audio; give a file with sound")
        longest = file.limits.max_seconds
        if seconds is not None:
            longest = min(seconds, longest)
        begin, end = round(start * rate), round((start + longest) * rate)
        _seek(file, file.audio, start)
        parts: list[np.ndarray] = []
        have = begin
        for position, samples in _resampled(file, rate):
            if position > have:  # silence where the sound begins late or pauses
                parts.append(np.zeros(min(position, end) - have, np.float32))
                have = min(position, end)
            samples = samples[max(0, have - position) : max(0, end - position)]
            parts.append(samples)
            have += len(samples)
            if have >= end:
                if seconds is None:
                    raise DataError(
                        f"{path} has more than {file.limits.max_seconds:,.0f} s of sound, which is "
                        "the limit"
                    )
                break
        if not parts and start == 0.0 and file.video is None:
            raise DataError(
                f"{path} has an audio stream without any sound in it; it is empty or cut off"
            )
        if file.video is None:  # in a video, the sound may end early
            _check_whole(file, file.audio, have / rate, wanted=end / rate, what="sound ends")
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _pick(file: Opened, times: np.ndarray, resizers: list[_Resizer]) -> Iterator[list[np.ndarray]]:
    """Yield the last frame at or before each time."""
    _seek(file, file.video, float(times[0]))
    index, count, end = 0, len(times), 0.0
    shown: Any = None
    pictures: list[np.ndarray] | None = None
    step = 1.0 / float(file.video.average_rate or file.video.guessed_rate or 25)
    for frame in file.frames(file.video):
        began = file.seconds(frame)
        began = end if began is None else began
        while shown is not None and index < count and times[index] < began:
            pictures = pictures or [resize(shown) for resize in resizers]
            yield pictures
            index += 1
        if index == count:
            return
        # Where time stamps go back, the frame that is decoded later is the one on the screen.
        shown, pictures, end = frame, None, began + step
    if shown is None:
        raise DataError(
            f"{file.path} has a video stream without any picture in it; it is empty or cut off"
        )
    _check_whole(file, file.video, end, wanted=float(times[-1]), what="pictures end")
    pictures = pictures or [resize(shown) for resize in resizers]
    for _ in range(index, count):
        yield pictures


def _check_whole(file: Opened, stream: Any, end: float, *, wanted: float, what: str) -> None:
    """Raise DataError if a stream ends before the wanted time and before its declared end."""
    own = stream_seconds(stream)
    declared = (own or file.duration) if file.trusted else 0.0
    if declared - end > max(1.0, 0.05 * declared) and wanted > end + 0.5:
        both = file.video is not None and file.audio is not None
        if not own and both and measured_seconds(file.path, file.limits) > declared - NEAR:
            return  # the other stream is as long as the file says
        raise DataError(
            f"{file.path} is cut off: it says {declared:.1f} s, but its {what} after {end:.1f} s"
        )


def _resampled(file: Opened, rate: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield mono samples with their position, in samples from time 0 of the file."""
    import av

    resampler: Any = None
    kind: tuple[Any, ...] = ()
    expected = 0.0  # seconds at which the next frame begins if nothing is missing
    place = 0  # position of the next resampled samples
    for frame in file.frames(file.audio):
        if not 0 < frame.sample_rate <= file.limits.max_audio_rate or frame.samples < 1:
            continue
        if frame.samples / frame.sample_rate * rate * frame.layout.nb_channels > MOST_SAMPLES:
            lasts = frame.samples / frame.sample_rate
            raise DataError(
                f"{file.path} has a frame of sound that lasts {lasts:,.0f} s; give sound of an "
                "ordinary rate"
            )
        stamp = file.seconds(frame)
        began = expected if stamp is None else stamp
        now = (frame.sample_rate, frame.format.name, frame.layout.name)
        if now != kind or abs(began - expected) > GAP:
            for out in _resample(file, resampler, None) if resampler is not None else []:
                yield place, out
                place += len(out)
            # A packed format: PyAV reads past the end of planar frames of eight or more channels.
            resampler = av.AudioResampler(format="flt", layout=frame.layout, rate=rate)
            kind, place = now, round(began * rate)
        expected = began + frame.samples / frame.sample_rate
        frame.pts = None
        begun, lasts = place, frame.samples / frame.sample_rate
        for out in _resample(file, resampler, frame):
            yield place, out
            place += len(out)
        if place == begun and lasts > 1.0:  # FFmpeg does not say so
            raise DataError(f"{file.path} needs more memory than there is to resample its sound")
    for out in _resample(file, resampler, None) if resampler is not None else []:
        yield place, out
        place += len(out)


def _resample(file: Opened, resampler: Any, frame: Any) -> list[np.ndarray]:
    with reading(file.path):
        blocks = [
            block.to_ndarray().reshape(-1, block.layout.nb_channels)
            for block in resampler.resample(frame)
        ]
    means = [block.mean(axis=1, dtype=np.float32) for block in blocks if block.size]
    return [np.nan_to_num(mean, nan=0.0, posinf=1.0, neginf=-1.0) for mean in means]


def _seek(file: Opened, stream: Any, seconds: float) -> None:
    """Seek to the key frame before a time if that saves decoding.

    A file without time stamps is decoded from its beginning.
    """
    if seconds > SEEK_BEYOND and file.stamped and stream.time_base:
        import av

        try:
            target = (seconds - 1.0) + float(file.zero)
            file.container.seek(int(target / stream.time_base), stream=stream, backward=True)
        except (av.error.FFmpegError, OverflowError, ValueError):
            # Not every container can seek; then the file is decoded from its beginning.
            file.container.seek(0)


class _Resizer:
    """Resizes frames to one size as RGB; the scaler is reused while the frames stay alike."""

    def __init__(self, size: FrameSize, aspect: float = 1.0) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self.size, self.aspect, self.scaler = size, aspect, VideoReformatter()
        self.options = {"format": "rgb24", "interpolation": Interpolation.BILINEAR, **_one_thread()}

    def __call__(self, frame: Any) -> np.ndarray:
        return self._resized(frame, self.aspect)

    def _resized(self, frame: Any, aspect: float) -> np.ndarray:
        size, turns = self.size, round(frame.rotation / 90) % 4
        wide = max(1, round(frame.width * aspect))  # as a player shows it
        shown = (wide, frame.height) if turns % 2 else (frame.height, wide)
        if size.short_side is None:
            height, width = size.height, size.width
        else:
            # The longer side is rounded down, as in torchvision's Resize.
            ratio = size.short_side / min(shown)
            height, width = (size.short_side if n == min(shown) else int(n * ratio) for n in shown)
            if max(height, width) > LONGEST * size.short_side:
                return self._resized(_middle_of(frame, turns), 1.0)
        if turns % 2:
            height, width = width, height
        scaled = self.scaler.reformat(frame, width=width, height=height, **self.options)
        picture = scaled.to_ndarray()
        if turns:
            picture = np.rot90(picture, turns)
        if size.short_side is not None:
            top = round((picture.shape[0] - size.height) / 2)
            left = round((picture.shape[1] - size.width) / 2)
            picture = picture[top : top + size.height, left : left + size.width]
        return np.ascontiguousarray(picture)


@functools.cache
def _one_thread() -> dict[str, Any]:
    """Return the arguments that make PyAV scale in one thread.

    PyAV before version 17 always does, and has no such argument.
    """
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter

    try:
        VideoReformatter().reformat(VideoFrame(16, 16, "rgb24"), threads=1)
    except TypeError:
        return {}
    return {"threads": 1}


def _middle_of(frame: Any, turns: int) -> Any:
    """Return the rotated middle of a very long frame, which is too large to be scaled whole."""
    import av

    picture = np.rot90(frame.to_ndarray(format="rgb24"), turns)
    keep = max(1, min(picture.shape[:2]) * LONGEST // 2)
    top, left = (max(0, (n - keep) // 2) for n in picture.shape[:2])
    return av.VideoFrame.from_ndarray(
        np.ascontiguousarray(picture[top : top + keep, left : left + keep]), format="rgb24"
    )


def _has_packets(path: str | Path, limits: Limits | None) -> bool:
    """Return whether there is anything in the sound track that a file declares."""
    with opened(path, limits) as file, reading(file.path):
        return any(packet.size for packet in file.container.demux(file.audio))
