"""LLP's adapter: what the platform asks of the dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.data.adapters.contracts import DatasetAdapter, Modality, OfficialFiles, Spelling
from avplatform.data.adapters.llp import demo, official_layout, prompts
from avplatform.data.adapters.llp.annotations import (
    CLIP_NAME,
    COUNTS,
    DENSE_FILES,
    ID_LENGTH,
    SEGMENTS,
    SPLIT_FILES,
    locate,
    read_annotations,
)
from avplatform.data.adapters.llp.checks import (
    FULL_FILE,
    OTHER_VERSION,
    UNCORRUPTED,
    VARIANT,
    audio_variant,
    check_files,
)
from avplatform.data.adapters.llp.classes import CLASSES, TASK, TEXTS
from avplatform.data.adapters.llp.importing import LLPPlan
from avplatform.data.adapters.llp.options import LLPOptions, check_options
from avplatform.data.adapters.llp.simulation import (
    LLPClips,
    LLPSimulation,
    LLPSimulator,
    official_clips,
)
from avplatform.data.adapters.official_files import Annotations
from avplatform.data.adapters.plan import Plan
from avplatform.data.store.schema import DataSpec
from avplatform.models.contracts import FeatureSpec
from avplatform.models.paths import expanded


class LLPAdapter(DatasetAdapter):
    """Look, Listen and Parse: 11,849 clips of ten seconds; training clips have weak labels only.

    Source: HAN (ECCV 2020).
    """

    name = "llp"
    title = "LLP"
    task = TASK
    classes = CLASSES
    texts = TEXTS
    features = FeatureSpec(audio_dim=128, visual_dim=2048, motion_dim=512)
    recipe = {"audio": "vggish", "visual": "timm:resnet152.tv_in1k", "motion": "r2plus1d_18"}
    prompted = True
    segments = SEGMENTS
    counts = COUNTS
    demo = "demo-avvp-1"
    simulated_labels = "LLP annotations; train events from validation donors"
    audio_annotations = DENSE_FILES["audio"]
    Options = LLPOptions

    def read(
        self, folder: str | Path, *, audio_file: str | Path | None = None, thorough: bool = False
    ) -> Annotations:
        """Read the csv files; `audio_file` replaces the file of dense audio annotations."""
        folder = locate(folder)
        audio = expanded(audio_file or folder / DENSE_FILES["audio"])
        data = read_annotations(folder, audio_file=audio)
        lists = {name: folder / name for name in SPLIT_FILES.values()}
        others = {name: folder / name for name in (DENSE_FILES["visual"], FULL_FILE)}
        dense = {"dense_audio": data.dense_audio, "dense_visual": data.dense_visual}
        return Annotations(
            folder=folder,
            files={**lists, audio.name: audio, **others},
            clip_ids=data.filenames,
            splits=data.splits,
            labels={"weak": data.weak, **dense},
            label_dtypes=dict.fromkeys(("weak", *dense), "uint8"),
            label_splits=dict.fromkeys(dense, ["validation", "test"]),
            defects=data.defects + (check_files(folder, data) if thorough else []),
            counts={f"{VARIANT} given": audio_variant(audio)} if thorough else {},
        )

    def plan(self, options: Any) -> Plan:
        """Open the csv files and the folders of .npy files."""
        return LLPPlan(self, options)

    def check_options(self, options: Any) -> None:
        """Raise UsageError where a folder is given for features that are not chosen."""
        check_options(options)

    def preset(self) -> LLPSimulation:
        """Return the constants of sim-llp-1."""
        return LLPSimulation()

    def clips(self, folder: str | Path, *, seed: int) -> LLPClips:
        """Return the clips; training clips borrow events from validation clips."""
        return official_clips(folder, seed=seed)

    def demo_clips(self, sizes: Mapping[str, int] | None = None) -> LLPClips:
        """Return clips whose classes, modalities and spans are distributed as in LLP."""
        return demo.demo_clips(sizes or demo.SIZES)

    def simulator(self, constants: Any, clips: Any) -> LLPSimulator:
        """Return the simulator of features and pseudo-labels."""
        return LLPSimulator(constants, clips)

    def simulated_spec(
        self, constants: Any, *, name: str | None = None, provenance: dict[str, Any] | None = None
    ) -> DataSpec:
        """Return the specification of a simulated store."""
        maps = [SEGMENTS, len(CLASSES)]
        labels = {"weak": [len(CLASSES)], "pseudo_audio": maps, "pseudo_visual": maps}
        labels |= {"dense_audio": maps, "dense_visual": maps}
        return self.store_spec(
            name or constants.name,
            labels,
            label_dtypes=dict.fromkeys(labels, "uint8"),
            synthetic=True,
            provenance=provenance or {},
        )

    def copy_annotations(
        self, source: str | Path, out: Path, rows: Sequence[int] | None = None
    ) -> None:
        """Copy the csv files, without the lines of clips that are not kept."""
        official_layout.copy_annotations(source, out, rows)

    def write_official(self, files: OfficialFiles, split: str, columns: dict[str, Any]) -> None:
        """Write one .npy per video and kind of feature."""
        official_layout.write_official(files, columns)

    def video_of(self, clip_id: str) -> str | None:
        """Return the YouTube id with which a clip's name begins."""
        return clip_id[:ID_LENGTH] if CLIP_NAME.fullmatch(clip_id) else None

    def seconds_of(self, clip_id: str) -> tuple[float, float] | None:
        """Return start and end, with which a clip's name ends."""
        if not CLIP_NAME.fullmatch(clip_id):
            return None
        start, end = clip_id[ID_LENGTH + 1 :].split("_")
        return float(start), float(end)

    def file_name(self, name: str) -> str:
        """Return the YouTube id alone, by which media files may be named."""
        return name[:ID_LENGTH]

    def check_provenance(
        self, provenance: dict[str, Any]
    ) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
        """Say which version of the dense audio annotations was imported."""
        variant = provenance.get("dense_audio_annotations")
        if variant is None:
            return {}, []
        odd = (OTHER_VERSION, str(variant), DENSE_FILES["audio"])
        return {VARIANT: str(variant)}, [] if variant == UNCORRUPTED else [odd]

    def prompts(self, modality: Modality, spelling: Spelling = "official") -> tuple[str, ...]:
        """Return VALOR's prompts."""
        return prompts.prompts(modality, spelling)

    def thresholds(self, modality: Modality) -> np.ndarray:
        """Return VALOR's thresholds."""
        return prompts.thresholds(modality)
