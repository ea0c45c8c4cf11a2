"""Import options of LLP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avplatform.models.errors import UsageError


@dataclass(kw_only=True)
class LLPOptions:
    """Import options that only LLP has."""

    frames: Literal[10, 80] = 10
    """llp: 80 keeps all frame vectors, 10 averages them per segment (as every stem does first)"""
    visual: Literal["res152", "clip"] = "res152"
    """llp: visual features"""
    audio: Literal["vggish", "clap"] = "vggish"
    """llp: audio features"""
    audio_annotations: str | None = None
    """llp: another file of dense audio annotations than AVVP_eval_audio.csv"""
    vggish: str | None = None
    """llp: folder of VGGish features; default: feats/vggish"""
    res152: str | None = None
    """llp: folder of ResNet-152 features; default: feats/res152"""
    r2plus1d: str | None = None
    """llp: folder of R(2+1)D features, or none; default: feats/r2plus1d_18 if there"""
    clip_features: str | None = None
    """llp: folder of CLIP image features; default: CLIP/features"""
    clap_features: str | None = None
    """llp: folder of CLAP audio features; default: CLAP/features"""
    pseudo_audio: str | None = None
    """llp: folder of audio pseudo-labels, or none; default: CLAP/segment_pseudo_labels if there"""
    pseudo_visual: str | None = None
    """llp: folder of visual pseudo-labels, or none; default: CLIP/segment_pseudo_labels if there"""


def check_options(options: LLPOptions) -> None:
    """Raise UsageError where the folder of one kind of features is given and another is chosen."""
    if options.frames == 80 and options.visual == "clip":
        raise UsageError(
            "--frames 80 does not go with --visual clip, which has one vector per segment; "
            "leave it out"
        )
    for name, feature in (("visual", "clip"), ("audio", "clap")):
        unused = (
            f"{feature}_features"
            if getattr(options, name) != feature
            else {"clip": "res152", "clap": "vggish"}[feature]
        )
        if getattr(options, unused) is not None:
            flag = f"--{unused.replace('_', '-')}"
            raise UsageError(
                f"{flag} does nothing with --{name} {getattr(options, name)}; leave one of them out"
            )
