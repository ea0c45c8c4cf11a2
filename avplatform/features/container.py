"""Opens media files from sources that are not trusted.

Only the file itself is read, and only as much of it as the limits allow.

For a time base or a rate that a file lacks, PyAV returns None; from version 19 on, it returns a
rational number that is falsy.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avplatform.features.pyav import (
    any_metadata,
    attached_picture,
    beginning,
    import_av,
    no_timestamps,
    reason,
    stream_seconds,
)
from avplatform.models.checks import at_least
from avplatform.models.errors import AVError, DataError, counted
from avplatform.models.paths import expanded

REFUSED_FORMATS = {
    "hls", "concat", "concatf", "dash", "sdp", "rtsp", "imf", "image2", "tty",
    "webvtt_dash_manifest", "vapoursynth",
}  # fmt: skip
"""Formats that are refused: lists of other files, still pictures and text.

For a "video" of such a format, FFmpeg would do other things than decode.
"""
GUESSED_LENGTH = {
    "aac", "ac3", "ac4", "amr", "amrnb", "amrwb", "dts", "dtshd", "eac3", "loas", "mp3",
}  # fmt: skip
"""Raw audio streams: FFmpeg guesses their length from the bit rate at their beginning.

For some, it reads the length from a header, which may be missing.
"""
BEGIN_ANEW = {"mpegts", "mpeg", "ogg", "flac", "matroska", "nut"}
"""Formats in which a file of joined recordings can be read on: their time stamps begin anew.

The declared length is then that of the last recording.
"""
COUNTED_FROM_THE_START = {"mpegts", "mpeg", "mov"}
"""Formats whose declared length counts from their first time stamp.

In other formats, it may count from time stamp 0.
"""
RESTART = 1.0  # seconds by which the time stamps of a stream go back where a recording begins
JOINED = (
    "{path} holds recordings that were joined as bytes: its time stamps begin anew after {end:.1f} "
    "s; give them as files of their own, or join them with ffmpeg's concat demuxer"
)
LATE = 0.5  # seconds between time stamp 0 and the first one, above which that matters
NEAR = 0.2  # seconds by which the packets, with their padding, may exceed their content
PASSES = 4  # decoding may cost this many times the pixels of a file: a part starts at a key frame
# Share of the packets that may be broken: a file cut without re-encoding often begins with some.
BAD_SHARE = 0.1
MOST_PACKETS = 1_000_000
PACKETS_A_SECOND = 300  # of all streams; mp3 has 42, two streams of a video together about 100
READ_BUFFER = 2**18


@dataclass(kw_only=True, frozen=True)
class Limits:
    """Limits of a file; a file beyond a limit is refused before memory is allocated for it.

    Raises:
        UsageError: a limit is so low that no file could meet it.
    """

    max_seconds: float = 3600.0
    """longest file (and longest waveform in memory)"""
    max_pixels: int = 7680 * 4320
    """largest picture: width times height"""
    max_fps: float = 250.0
    """most decoded pictures per second"""
    max_audio_rate: int = 384_000
    """highest sampling rate in Hz"""
    max_channels: int = 64
    """most audio channels"""
    max_gigapixels: float = 1000.0
    """most pixels of all pictures together, in gigapixels: an hour of 4K video at 30 Hz has 900"""

    @property
    def max_packets(self) -> int:
        """Most packets of a file, which grow with the seconds that it may have."""
        return max(MOST_PACKETS, int(PACKETS_A_SECOND * self.max_seconds))

    def __post_init__(self) -> None:
        at_least(
            self, ("max_seconds", "max_pixels", "max_fps", "max_audio_rate", "max_channels"), 1
        )
        at_least(self, "max_gigapixels", 0.001)


@dataclass(kw_only=True)
class Spent:
    """Cost of decoding a file so far, summed over all passes through it."""

    pixels: int = 0


@dataclass(kw_only=True, frozen=True)
class MediaInfo:
    """Properties that a file declares.

    The duration is in seconds, `fps` in frames per second, the rotation in degrees and the audio
    rate in Hz. Width and height are those of the picture as it is shown, after rotation.
    """

    path: str
    duration: float
    fps: float | None
    width: int | None
    height: int | None
    rotation: int
    has_audio: bool
    has_video: bool
    audio_rate: int | None
    container: str
    video_codec: str | None
    audio_codec: str | None


class Opened:
    """An open file: its first real video stream, its first audio stream, and its zero of time.

    Zero is where the file's first stream begins, so that sound and picture stay aligned.
    """

    def __init__(
        self, container: Any, path: Path, limits: Limits, spent: Spent | None = None
    ) -> None:
        self.container, self.path, self.limits = container, path, limits
        self.spent, covers = spent or Spent(), attached_picture()
        videos = (s for s in container.streams.video if not s.disposition & covers)
        sounds = container.streams.audio
        self.video: Any = next((s for s in videos if s.codec_context is not None), None)
        self.audio: Any = next((s for s in sounds if s.codec_context is not None), None)
        self.zero = beginning(container, self.video, self.audio)
        names = set(container.format.name.split(","))
        late = abs(self.zero) > LATE and not names & COUNTED_FROM_THE_START
        # Raw video streams have no time stamps.
        self.stamped = not container.format.flags & no_timestamps()
        self.may_begin_anew = bool(names & BEGIN_ANEW)
        self.trusted = self.stamped and not late and not names & GUESSED_LENGTH
        self._check()
        for stream in (self.video, self.audio):
            if stream is not None:
                stream.codec_context.options = {
                    "max_pixels": str(limits.max_pixels),
                    "max_samples": "1048576",
                }
                stream.thread_count = 1 if stream is self.audio else min(4, os.cpu_count() or 1)

    def _check(self) -> None:
        limits = self.limits
        if self.video is None and self.audio is None:
            raise DataError(f"{self.path} has neither video nor audio; give a video")
        declared = self.duration
        if declared > limits.max_seconds:
            raise DataError(
                f"{self.path} says that it lasts {declared:,.0f} s; "
                f"the limit is {limits.max_seconds:,.0f} s (--max-seconds)"
            )
        if self.video is not None:
            context = self.video.codec_context
            if context.width * context.height > limits.max_pixels:
                size = f"{context.width} x {context.height}"
                raise DataError(
                    f"{self.path} has pictures of {size}; "
                    f"the limit is {limits.max_pixels:,} pixels (--max-pixels)"
                )
            rate = float(self.video.average_rate or 0)
            count = self.video.frames or (declared * rate if rate <= limits.max_fps else 0)
            if (gigapixels := count * context.width * context.height / 1e9) > limits.max_gigapixels:
                raise DataError(
                    f"{self.path} has {count:,.0f} pictures of {context.width} x {context.height}, "
                    f"together {gigapixels:,.3g} gigapixels; "
                    f"the limit is {limits.max_gigapixels:,g} (--max-gigapixels)"
                )
        if self.audio is not None:
            context = self.audio.codec_context
            if not 0 < context.sample_rate <= limits.max_audio_rate:
                raise DataError(
                    f"{self.path} has sound at {context.sample_rate} Hz; "
                    f"the limit is {limits.max_audio_rate} Hz"
                )
            if not 0 < context.channels <= limits.max_channels:
                raise DataError(f"{self.path} has sound of {counted(context.channels, 'channel')}")

    @property
    def duration(self) -> float:
        """Seconds that the container or its streams declare, where that can be trusted.

        It is 0.0 where they declare none, or where it may not count from the beginning.
        """
        return self.declared if self.trusted else 0.0

    @property
    def declared(self) -> float:
        """Seconds that the container or its streams declare, right or wrong."""
        lengths = [stream_seconds(s) or 0.0 for s in (self.video, self.audio) if s is not None]
        whole = (self.container.duration or 0) / 1_000_000
        return max([max(whole, 0.0), *lengths])

    def frames(self, stream: Any) -> Iterator[Any]:
        """Decode a stream; broken packets are skipped, up to a share of all packets.

        Raises:
            DataError: there are more broken packets, or more pictures than the limits allow.
        """
        import av

        rate = self.limits.max_fps if stream.type == "video" else 1000
        most = int(self.limits.max_seconds * rate) + 1000
        packets = broken = frames = 0
        heard = 0.0  # seconds of decoded sound, whatever the time stamps say
        first: str = ""
        with reading(self.path):
            for packet in self.container.demux(stream):
                packets += 1
                if packets > self.limits.max_packets:
                    raise too_many_packets(self.path, self.limits)
                if stream.type == "video":
                    self._spend(stream)
                try:
                    decoded = packet.decode()
                except (av.error.FFmpegError, ValueError) as error:
                    if isinstance(error, MemoryError):
                        raise
                    broken, first = broken + 1, first or reason(error)
                    if broken > 20 and broken > BAD_SHARE * packets:
                        break
                    continue
                for number, frame in enumerate(decoded):
                    frames += 1
                    if stream.type == "audio":
                        heard += frame.samples / max(1, frame.sample_rate)
                    elif number:
                        self._spend(stream)
                    if heard > 2 * self.limits.max_seconds + 60:
                        raise DataError(
                            f"{self.path} has sound of more than {heard:,.0f} s, "
                            "which its time stamps deny"
                        )
                    if frames > most:
                        raise DataError(
                            f"{self.path} has more than {most:,} frames; "
                            "raise the limits if that is meant"
                        )
                    yield frame
        if broken > BAD_SHARE * packets or (broken and not frames):
            what = "picture" if stream.type == "video" else "sound"
            raise DataError(
                f"{self.path} is damaged: {broken} of {packets} packets of its {what} "
                f"cannot be decoded ({first})"
            )

    def _spend(self, stream: Any) -> None:
        """Count a picture, including one that is decoded but not shown."""
        self.spent.pixels += stream.codec_context.width * stream.codec_context.height
        if self.spent.pixels > PASSES * self.limits.max_gigapixels * 1e9:
            raise DataError(
                f"{self.path} took {self.spent.pixels / 1e9:,.3g} gigapixels of decoding so far, "
                f"over {PASSES} times the limit of {self.limits.max_gigapixels:,g} "
                "(--max-gigapixels)"
            )

    def seconds(self, frame: Any) -> float | None:
        """Return when a frame begins, from the file's zero; None where the file does not say."""
        if frame.pts is None or not frame.time_base:
            return None
        return float(frame.pts * frame.time_base - self.zero)


@contextlib.contextmanager
def opened(
    path: str | Path, limits: Limits | None = None, spent: Spent | None = None
) -> Iterator[Opened]:
    """Open a media file; the cost of decoding it is added to `spent`.

    Raises:
        DataError: the file is missing, unreadable, empty, not a media file, or beyond a limit; the
            message names it.
        UsageError: PyAV is not installed.
    """
    av = import_av()
    file = expanded(path)
    _check_file(file)
    with reading(file), file.open("rb") as raw:
        # Given a Python file object, FFmpeg can open nothing else: a file that refers to others,
        # such as a playlist, is refused.
        container = av.open(
            raw, mode="r", buffer_size=READ_BUFFER, io_open=_refuse_other_files, **any_metadata()
        )
        with container:
            names = set(container.format.name.split(","))
            if names & REFUSED_FORMATS or any(name.endswith("_pipe") for name in names):
                raise DataError(
                    f"{file} is no video or sound "
                    f"({container.format.long_name or container.format.name})"
                )
            yield Opened(container, file, limits or Limits(), spent)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the errors of FFmpeg and the file system into one that names the file."""
    import av

    try:
        yield
    except AVError:
        raise
    except MemoryError:  # of FFmpeg too
        raise DataError(f"{path} needs more memory than there is") from None
    except (av.error.FFmpegError, OSError, EOFError, ValueError, OverflowError) as error:
        raise DataError(
            f"cannot read {path}: {reason(error)}; give a whole video or sound file"
        ) from None


def length_of(file: Opened) -> float:
    """Return the length of a file in seconds.

    It is the declared length, unless that cannot be trusted and the packets say otherwise.

    Raises:
        DataError: see `measured_seconds`.
    """
    if file.duration and not file.may_begin_anew:
        return file.duration
    measured = measured_seconds(file.path, file.limits)
    if file.duration:  # it was only measured to find joined recordings
        return file.duration
    return file.declared if abs(measured - file.declared) < NEAR else measured


def too_many_packets(path: str | Path, limits: Limits) -> DataError:
    """Return the error for a file of more packets than its limits allow."""
    return DataError(
        f"{path} has more than {limits.max_packets:,} packets, the most for "
        f"{limits.max_seconds:,.0f} s (--max-seconds)"
    )


def measured_seconds(path: str | Path, limits: Limits) -> float:
    """Return the length in seconds of a file that declares none: the end of its last packet.

    Recordings made by a browser are such files.

    Raises:
        DataError: the file cannot be read, is beyond a limit, or holds joined recordings.
    """
    end = 0.0
    counted_on: dict[int, float] = {}
    sent: dict[int, float] = {}
    with opened(path, limits) as file, reading(file.path):
        streams = [stream for stream in (file.video, file.audio) if stream is not None]
        for number, packet in enumerate(file.container.demux(streams)):
            if number > limits.max_packets:
                raise too_many_packets(path, limits)
            if not packet.size or not packet.time_base:
                continue
            if packet.dts is not None:
                now, index = float(packet.dts * packet.time_base), packet.stream.index
                if now < sent.get(index, now) - RESTART:
                    raise DataError(JOINED.format(path=path, end=sent[index]))
                sent[index] = now
            length = float((packet.duration or 0) * packet.time_base)
            began = counted_on.get(packet.stream.index, 0.0)  # raw streams have no time stamps
            if packet.pts is not None:
                began = float(packet.pts * packet.time_base - file.zero)
            counted_on[packet.stream.index] = began + length
            end = max(end, began + length)
    if end > limits.max_seconds:
        raise DataError(
            f"{path} lasts {end:,.0f} s; the limit is {limits.max_seconds:,.0f} s (--max-seconds)"
        )
    return end


def _check_file(file: Path) -> None:
    try:
        if not file.exists():
            raise DataError(f"no file {file}")
        if not file.is_file():  # a pipe or a device would never end
            raise DataError(f"{file} is no file; give a video file")
        if not file.stat().st_size:
            raise DataError(f"{file} is empty (0 bytes)")
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {file}: {reason(error)}") from None


def _refuse_other_files(url: str, flags: int, options: dict[str, Any]) -> Any:
    raise PermissionError(f"it asks for another file ({url[:80]})")
