"""AVE's adapter: what the platform asks of the dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avplatform.data.adapters.ave import demo, official_layout
from avplatform.data.adapters.ave.annotations import (
    SEGMENTS,
    SPLIT_FILES,
    beside,
    locate,
    read_annotations,
)
from avplatform.data.adapters.ave.classes import CLASSES, TASK, TEXTS
from avplatform.data.adapters.ave.importing import AVEPlan
from avplatform.data.adapters.ave.options import AVEOptions
from avplatform.data.adapters.ave.simulation import (
    AVEClips,
    AVESimulation,
    AVESimulator,
    official_clips,
)
from avplatform.data.adapters.contracts import DatasetAdapter, OfficialFiles
from avplatform.data.adapters.official_files import Annotations
from avplatform.data.adapters.plan import Plan
from avplatform.data.store.schema import DataSpec
from avplatform.models.contracts import FeatureSpec


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
        if audio_file is not None:
            super().read(folder, audio_file=audio_file)  # raises the UsageError
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
        return AVEPlan(self, options)

    def preset(self) -> AVESimulation:
        """Return the constants of sim-ave-1."""
        return AVESimulation()

    def clips(self, folder: str | Path, *, seed: int) -> AVEClips:
        """Return the clips, with the background clips of weak training as a further split."""
        return official_clips(folder)

    def demo_clips(self, sizes: Mapping[str, int] | None = None) -> AVEClips:
        """Return clips whose classes and spans are distributed as in AVE.

        With given `sizes`, which are small, there are only four background clips.
        """
        return demo.demo_clips(sizes or demo.SIZES, demo.BACKGROUND_CLIPS if sizes is None else 4)

    def simulator(self, constants: Any, clips: Any) -> AVESimulator:
        """Return the simulator of audio vectors and visual maps."""
        return AVESimulator(constants, clips)

    def simulated_spec(
        self, constants: Any, *, name: str | None = None, provenance: dict[str, Any] | None = None
    ) -> DataSpec:
        """Return the specification of a simulated store."""
        return self.store_spec(
            name or constants.name,
            {"segment": [SEGMENTS], "video": []},
            label_dtypes={"segment": "int64", "video": "int64"},
            synthetic=True,
            provenance=provenance or {},
        )

    def copy_annotations(
        self, source: str | Path, out: Path, rows: Sequence[int] | None = None
    ) -> None:
        """Copy Annotations.txt, order and label files, cut to the clips that are kept."""
        official_layout.copy_annotations(source, out, rows)

    def write_official(self, files: OfficialFiles, split: str, columns: dict[str, Any]) -> None:
        """Write rows of the h5 files."""
        official_layout.write_official(files, split, columns)
