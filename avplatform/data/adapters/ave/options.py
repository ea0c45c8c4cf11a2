"""Import options of AVE."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class AVEOptions:
    """Import options that only AVE has."""

    visual_file: str | None = None
    """ave: file of visual features; default: visual_feature.h5"""
    audio_file: str | None = None
    """ave: file of audio features; default: audio_feature.h5"""
    noisy_visual_file: str | None = None
    """ave: visual file of background clips, or none; default: visual_feature_noisy.h5, if there"""
    noisy_audio_file: str | None = None
    """ave: audio file of background clips, or none; default: audio_feature_noisy.h5, if there"""
