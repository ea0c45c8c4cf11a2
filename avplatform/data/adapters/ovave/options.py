"""Import options of OV-AVEBench."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RATIOS = ("0.25", "0.5", "0.75")
"""The shares of the training clips of which the authors publish lists."""


@dataclass(kw_only=True)
class OVAVEOptions:
    """Import options that only OV-AVEBench has."""

    ratio: Literal["1", "0.25", "0.5", "0.75"] = "1"
    """ovave: share of the training clips, by the authors' lists; validation and test are whole"""
    audio_vectors: str | None = None
    """ovave: folder of audio vectors; default: audio"""
    visual_vectors: str | None = None
    """ovave: folder of visual vectors; default: visual"""
