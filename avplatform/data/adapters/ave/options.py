"""Options of an import of AVE."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class AVEOptions:
    """What only AVE's files have."""

    visual_file: str | None = None
    """ave: default: visual_feature.h5"""
    audio_file: str | None = None
    """ave: default: audio_feature.h5"""
    noisy_visual_file: str | None = None
    """ave: features of background clips for weak training, or none; default: visual_feature_noisy.h5 where it is there"""
    noisy_audio_file: str | None = None
    """ave: the same; default: audio_feature_noisy.h5"""
