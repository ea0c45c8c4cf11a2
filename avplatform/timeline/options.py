"""Options of the way from a video to its timeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from avplatform.labels.assumed import Assumed
from avplatform.models.checks import at_least, check_choices
from avplatform.models.config import AVModelConfig
from avplatform.models.errors import UsageError

if TYPE_CHECKING:
    from avplatform.features.container import Limits


@dataclass(kw_only=True)
class PipelineConfig:
    """How a video of any length is parsed."""

    window: int | None = None
    """seconds that the model sees at once; default: the length of the clips of its training"""
    hop: int | None = None
    """seconds from one window to the next; smaller is smoother and slower; default: half a clip"""
    batch_size: int = 16
    """windows that are parsed at a time"""
    threshold: float | None = None
    """probability from which a class is decided (avvp); default: the model's own"""
    unseen: Assumed | None = None
    """labels never trained on: as rare as others (training, default), present, plain (no bank)"""
    cpu: bool = False
    """stay on the CPU"""
    runtime: Literal["torch", "onnx"] = "torch"
    """what runs the network: torch, or onnxruntime on the CPU; a FILE.onnx always runs there"""
    max_seconds: float = 3600.0
    """refuse longer files"""
    max_pixels: int = 7680 * 4320
    """refuse larger frames"""
    max_gigapixels: float = 1000.0
    """refuse files with more pixels than this in all frames together, in billions"""

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("window", "hop", "batch_size"):
            if getattr(self, name) is not None:
                at_least(self, name, 1)
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise UsageError(f"threshold is {self.threshold}; it must be between 0 and 1")
        _ = self.limits

    def windows(self, model: AVModelConfig) -> tuple[int, int]:
        """Return the window and the hop in segments of a model.

        Raises:
            UsageError: the windows would leave gaps.
        """
        each = model.segment_seconds
        window = model.segments if self.window is None else max(1, round(self.window / each))
        hop = max(1, model.segments // 2) if self.hop is None else max(1, round(self.hop / each))
        if hop > window:
            raise UsageError(
                f"hop is {hop * each:g} and window {window * each:g}; a hop beyond the window "
                "leaves gaps"
            )
        return window, hop

    @property
    def limits(self) -> Limits:
        """The limits for a file."""
        from avplatform.features.container import Limits

        return Limits(
            max_seconds=self.max_seconds,
            max_pixels=self.max_pixels,
            max_gigapixels=self.max_gigapixels,
        )


def device_of(config: PipelineConfig) -> torch.device:
    """Return the device of the model: the accelerator if there is one and `cpu` is not set."""
    found = None
    if torch.accelerator.is_available() and not config.cpu:
        found = torch.accelerator.current_accelerator()
    return found or torch.device("cpu")
