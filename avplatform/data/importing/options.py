"""The options of an import, from which the command line is made too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tyro

from avplatform.models.errors import UsageError

NONE = "none"
LLP_ONLY = (
    "vggish",
    "res152",
    "r2plus1d",
    "clip_features",
    "clap_features",
    "pseudo_audio",
    "pseudo_visual",
    "audio_annotations",
)
AVE_ONLY = ("visual_file", "audio_file", "noisy_visual_file", "noisy_audio_file")


@dataclass(kw_only=True)
class ImportOptions:
    """Turn the files that a dataset's authors published into a store; every clip that is left out is listed.

    Raises:
        UsageError: an option of the other dataset, or a combination that cannot be.
    """

    dataset: tyro.conf.Positional[Literal["llp", "ave"]]
    """llp: csv files and one .npy a video; ave: the h5 files and Annotations.txt"""
    source: tyro.conf.Positional[str]
    """folder of the dataset; parts of it may lie elsewhere, see below"""
    out: str
    """folder to write; it must not exist yet"""
    name: str | None = None
    """name of the dataset in its card and in results; default: llp or ave"""
    dtype: Literal["float16", "float32"] = "float16"
    """stored precision of the features"""
    frames: Literal[10, 80] = 10
    """llp: 10 averages the 80 frame vectors to one a segment (what every stem does first), 80 keeps them"""
    strict: bool = False
    """write nothing if a clip of the splits would be left out"""
    workers: int | None = None
    """threads that read; default: one a core, at most 8"""
    visual: Literal["res152", "clip"] = "res152"
    """llp: visual features"""
    audio: Literal["vggish", "clap"] = "vggish"
    """llp: audio features"""
    annotations: str | None = None
    """folder of the annotation files; default: SOURCE or SOURCE/data"""
    audio_annotations: str | None = None
    """llp: another file of dense audio annotations than AVVP_eval_audio.csv"""
    vggish: str | None = None
    """llp: folder of VGGish features; default: feats/vggish"""
    res152: str | None = None
    """llp: folder of ResNet-152 features; default: feats/res152"""
    r2plus1d: str | None = None
    """llp: folder of R(2+1)D features, or none; default: feats/r2plus1d_18 where it is there"""
    clip_features: str | None = None
    """llp: folder of CLIP image features; default: CLIP/features"""
    clap_features: str | None = None
    """llp: folder of CLAP audio features; default: CLAP/features"""
    pseudo_audio: str | None = None
    """llp: folder of audio pseudo-labels, or none; default: CLAP/segment_pseudo_labels where it is there"""
    pseudo_visual: str | None = None
    """llp: folder of visual pseudo-labels, or none; default: CLIP/segment_pseudo_labels where it is there"""
    visual_file: str | None = None
    """ave: default: visual_feature.h5"""
    audio_file: str | None = None
    """ave: default: audio_feature.h5"""
    noisy_visual_file: str | None = None
    """ave: features of background clips for weak training, or none; default: visual_feature_noisy.h5 where it is there"""
    noisy_audio_file: str | None = None
    """ave: the same; default: audio_feature_noisy.h5"""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers is {self.workers}; it must be at least 1")
        if self.dataset == "ave":
            given = [name for name in LLP_ONLY if getattr(self, name) is not None]
            given += [
                name
                for name, plain in (("frames", 10), ("visual", "res152"), ("audio", "vggish"))
                if self.changed(name, plain)
            ]
        else:
            given = [name for name in AVE_ONLY if getattr(self, name) is not None]
        if given:
            raise UsageError(
                f"--{given[0].replace('_', '-')} does nothing for {self.dataset}; leave it out"
            )
        if self.frames == 80 and self.visual == "clip":
            raise UsageError(
                "--frames 80 does not go with --visual clip, which has one vector a segment; leave it out"
            )
        for name, feature in (("visual", "clip"), ("audio", "clap")):
            unused = (
                f"{feature}_features"
                if getattr(self, name) != feature
                else {"clip": "res152", "clap": "vggish"}[feature]
            )
            if getattr(self, unused) is not None:
                flag = f"--{unused.replace('_', '-')}"
                raise UsageError(
                    f"{flag} does nothing with --{name} {getattr(self, name)}; leave one of them out"
                )

    def changed(self, name: str, plain: object) -> bool:
        """Whether an option is not the plain one."""
        return bool(getattr(self, name) != plain)

    def content(self) -> dict[str, object]:
        """Return the options that decide what is written."""
        return {
            name: value
            for name, value in vars(self).items()
            if name not in ("out", "strict", "workers")
        }
