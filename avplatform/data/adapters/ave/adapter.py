"""AVE's adapter: what the platform asks of the dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avplatform.data.adapters.ave.classes import CLASSES, TASK, TEXTS
from avplatform.data.adapters.ave.options import AVEOptions
from avplatform.data.adapters.contracts import Annotations, DatasetAdapter, OfficialFiles
from avplatform.data.adapters.plan import Plan
from avplatform.models.contracts import FeatureSpec

if TYPE_CHECKING:
    from avplatform.data.adapters.ave.simulation import AVEClips, AVESimulation, AVESimulator
    from avplatform.data.store.schema import DataSpec


class AVEAdapter(DatasetAdapter):
    """Audio-Visual Events: 4,143 clips of ten seconds with one event each; some video ids repeat.

    Source: AVE (ECCV 2018).
    """

    name = "ave"
    title = "AVE"
    task = TASK
    classes = CLASSES
    texts = TEXTS
    features = FeatureSpec(audio_dim=128, visual_dim=512, map_size=(7, 7))
    recipe = {"audio": "vggish", "visual": "vgg19-pool5", "fps": 16, "frames_per_segment": 16}
    counts = {"train": 3339, "validation": 402, "test": 402}
    unique_ids = False
    demo = "demo-avel-1"
    simulated_labels = "AVE annotations"
    Options = AVEOptions

    def read(
        self, folder: str | Path, *, audio_file: str | Path | None = None, thorough: bool = False
    ) -> Annotations:
        """Read Annotations.txt and the order files of the splits."""
        from avplatform.data.adapters.ave.annotations import (
            SPLIT_FILES,
            beside,
            locate,
            read_annotations,
        )

        if audio_file is not None:
            super().read(folder, audio_file=audio_file)
        folder = locate(folder)
        data = read_annotations(folder)
        labels = {"segment": data.segment, "video": data.class_index}
        names = ("Annotations.txt", *SPLIT_FILES.values(), "labels_noisy.h5")
        return Annotations(
            folder=folder,
            files={name: beside(folder, name) for name in names},
            clip_ids=data.clip_ids,
            splits=data.splits,
            labels=labels,
            label_dtypes=dict.fromkeys(labels, "int64"),
            defects=data.defects,
        )

    def plan(self, options: Any) -> Plan:
        """Open the annotations and the h5 files."""
        from avplatform.data.adapters.ave.importing import AVEPlan

        return AVEPlan(options)

    def preset(self) -> AVESimulation:
        """Return the constants of sim-ave-1."""
        from avplatform.data.adapters.ave.simulation import AVESimulation

        return AVESimulation()

    def clips(self, folder: str | Path, *, seed: int) -> AVEClips:
        """Return the clips, with the background clips of weak training as a further split."""
        from avplatform.data.adapters.ave.simulation import official_clips

        return official_clips(folder)

    def demo_clips(self, sizes: Mapping[str, int] | None = None) -> AVEClips:
        """Return clips whose classes and spans are distributed as in AVE."""
        from avplatform.data.adapters.ave.demo import BACKGROUND_CLIPS, SIZES, demo_clips

        return demo_clips(sizes or SIZES, BACKGROUND_CLIPS if sizes is None else 4)

    def simulator(self, constants: Any, clips: Any) -> AVESimulator:
        """Return the simulator of audio vectors and visual maps."""
        from avplatform.data.adapters.ave.simulation import AVESimulator

        return AVESimulator(constants, clips)

    def simulated_spec(
        self, constants: Any, *, name: str | None = None, provenance: dict[str, Any] | None = None
    ) -> DataSpec:
        """Return the specification of a simulated store."""
        from avplatform.data.adapters.ave.simulation import spec

        return spec(constants, name=name, provenance=provenance)

    def copy_annotations(
        self, source: str | Path, out: Path, rows: Sequence[int] | None = None
    ) -> None:
        """Copy Annotations.txt, order and label files, cut to the clips that are kept."""
        from avplatform.data.adapters.ave.official_layout import copy_annotations

        copy_annotations(source, out, rows)

    def write_official(self, files: OfficialFiles, split: str, columns: dict[str, Any]) -> None:
        """Write rows of the h5 files."""
        from avplatform.data.adapters.ave.official_layout import write_official

        write_official(files, split, columns)
