"""Hides the differences between PyAV 14 and 19 from the code that reads media."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from avplatform.models.errors import UsageError, one_line


def import_av() -> Any:
    """Return PyAV.

    Raises:
        UsageError: PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise UsageError('reading media needs PyAV: pip install "avplatform[media]"') from None
    return av


def stream_seconds(stream: Any) -> float | None:
    """Return the declared length of a stream, or None; Matroska declares it in a tag."""
    if stream.duration is None or not stream.time_base or stream.duration < 0:
        declared = str(stream.metadata.get("DURATION", ""))
        tag = re.fullmatch(r"(\d{1,4}):(\d\d):(\d\d(?:\.\d+)?)", declared)
        return 3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3]) if tag else None
    return float(stream.duration * stream.time_base)


def pixel_aspect(stream: Any) -> float:
    """Return the ratio of the width of a stream's pixels to their height; 1.0 if undeclared."""
    declared = stream.sample_aspect_ratio
    return float(declared) if declared and declared > 0 else 1.0


def reason(error: BaseException) -> str:
    """Return in a few words what an error of FFmpeg says."""
    return one_line(getattr(error, "strerror", None) or error, 160)


def beginning(container: Any, video: Any, audio: Any) -> Fraction:
    """Return the time at which a file begins.

    With FFmpeg before 8.1 (PyAV before 17), a Matroska file begins with the samples that the audio
    decoder discards.
    """
    zero = Fraction(container.start_time or 0, 1_000_000)
    context = audio.codec_context if audio is not None else None
    if zero >= 0 or context is None:
        return zero
    if -zero > context.delay / max(1, context.sample_rate) + 0.001:  # time stamps are rounded
        return zero
    dated = video is not None and video.start_time is not None and video.time_base
    return max(zero, min(Fraction(0), video.start_time * video.time_base)) if dated else Fraction(0)


def any_metadata() -> dict[str, Any]:
    """Return the argument that lets PyAV open files whose metadata is not UTF-8.

    From version 19 on, PyAV always opens them and takes no such argument.
    """
    from av.container import InputContainer

    return {"metadata_errors": "replace"} if hasattr(InputContainer, "metadata_errors") else {}


def attached_picture() -> Any:
    """Return the disposition of a stream that holds a cover picture."""
    from av.stream import Disposition

    return Disposition.attached_pic


def no_timestamps() -> int:
    """Return the flag of formats without time stamps, such as raw video streams."""
    from av.format import Flags

    flag: Any = Flags.no_timestamps
    return int(flag.value)
