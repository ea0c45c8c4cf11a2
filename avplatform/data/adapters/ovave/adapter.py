"""OV-AVEBench's adapter: what the platform asks of the dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.base.npy import BadFeature, read_npy
from avplatform.data.adapters.contracts import DatasetAdapter, OfficialFiles
from avplatform.data.adapters.npy_folder import NpyFolder
from avplatform.data.adapters.official_files import Annotations
from avplatform.data.adapters.ovave import demo, official_layout
from avplatform.data.adapters.ovave.annotations import (
    CLASS_FILES,
    COUNTS,
    LABEL_FILE,
    META_FILE,
    SEGMENTS,
    locate,
    ratio_file,
    read_annotations,
)
from avplatform.data.adapters.ovave.classes import CLASSES, TASK, TEXTS, UNSEEN
from avplatform.data.adapters.ovave.options import RATIOS, OVAVEOptions
from avplatform.data.adapters.ovave.simulation import (
    JOINT_DIM,
    PRESETS,
    WIDTHS,
    OVAVEClips,
    OVAVESimulation,
    OVAVESimulator,
    official_clips,
)
from avplatform.data.adapters.plan import ClipPlan, Plan, in_no_split
from avplatform.data.adapters.source import Source
from avplatform.data.store.schema import DataSpec
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import DataError

LABELS: dict[str, list[int]] = {"segment": [SEGMENTS], "video": [], "category": []}


class OVAVEAdapter(DatasetAdapter):
    """OV-AVEBench: 24,800 clips of ten seconds; 21 of its 67 classes have no training clip.

    Source: Zhou et al. (CVPR 2025).

    Departs: the authors published no features. An import reads one .npy per clip and stream, a
    layout of ours.
    """

    name = "ovave"
    title = "OV-AVEBench"
    task = TASK
    classes = CLASSES
    texts = TEXTS
    unseen = UNSEEN
    features = FeatureSpec(audio_dim=JOINT_DIM, visual_dim=JOINT_DIM)
    segments = SEGMENTS
    counts = COUNTS
    ratios = RATIOS
    demo = "demo-ovavel-1"
    simulated_labels = "OV-AVEBench annotations"
    Options = OVAVEOptions

    def read(
        self, folder: str | Path, *, audio_file: str | Path | None = None, thorough: bool = False
    ) -> Annotations:
        """Read the list of clips, their labels and the lists of classes."""
        if audio_file is not None:
            super().read(folder, audio_file=audio_file)  # raises the UsageError
        return self._read(folder, "1")

    def _read(self, folder: str | Path, ratio: str) -> Annotations:
        folder = locate(folder)
        data = read_annotations(folder, ratio=ratio)
        labels = {"segment": data.segment, "video": data.video, "category": data.category}
        names = [META_FILE, LABEL_FILE, *CLASS_FILES]
        names += [ratio_file(ratio)] if ratio != "1" else []
        return Annotations(
            folder=folder,
            files={name: folder / name for name in names},
            clip_ids=data.clip_ids,
            splits=data.splits,
            labels=labels,
            label_dtypes=dict.fromkeys(labels, "int64"),
            defects=data.defects,
        )

    def plan(self, options: Any) -> Plan:
        """Open the annotation files and the folders of vectors."""
        source = Source(options.source)
        found = self._read(options.annotations or source.folder, options.ratio)
        folders = {}
        for name, place in official_layout.FOLDERS.items():
            flag = f"--{name}-vectors"
            path = source.find([place], getattr(options, f"{name}_vectors"))
            if path is None:
                raise source.missing(f"{place}/", f"give the folder of vectors with {flag}")
            folders[name] = NpyFolder(path, f"it must hold one .npy per clip ({flag})")
        dims = {name: _width(folder, found.clip_ids) for name, folder in folders.items()}
        spec = self.store_spec(
            options.name,
            LABELS,
            label_dtypes=found.label_dtypes,
            synthetic=source.is_synthetic([found.folder, *(f.folder for f in folders.values())]),
            features=FeatureSpec(audio_dim=dims["audio"], visual_dim=dims["visual"]),
        )

        def load(clip_id: str) -> dict[str, np.ndarray]:
            out = {}
            for name, folder in folders.items():
                try:
                    out[name] = folder.read(clip_id, (SEGMENTS, dims[name]))
                except BadFeature as error:
                    raise BadFeature(f"{folder.place}/{clip_id}.npy {error}") from None
            return out

        plan = ClipPlan(spec, source.folder, found, load)
        plan.left_out += in_no_split(found.defects, found.folder, META_FILE)
        plan.fingerprint += [folder.fingerprint for folder in folders.values()]
        return plan

    def preset(self) -> OVAVESimulation:
        """Return the constants of sim-ovavel-1, which draws the features of two networks."""
        return PRESETS[0]

    def presets(self) -> tuple[Any, ...]:
        """Return all presets; `-joint` draws the features and text vectors of one joint model."""
        return PRESETS

    def clips(self, folder: str | Path, *, seed: int, ratio: str = "1") -> OVAVEClips:
        """Return the clips, perhaps with a ratio of the training clips."""
        return official_clips(folder, ratio=ratio)

    def demo_clips(self, sizes: Mapping[str, int] | None = None) -> OVAVEClips:
        """Return clips whose events are distributed as in OV-AVEBench."""
        return demo.demo_clips(sizes or demo.SIZES)

    def simulator(self, constants: Any, clips: Any) -> OVAVESimulator:
        """Return the simulator of vectors."""
        return OVAVESimulator(constants, clips)

    def simulated_spec(
        self, constants: Any, *, name: str | None = None, provenance: dict[str, Any] | None = None
    ) -> DataSpec:
        """Return the specification of a simulated store."""
        dims = dict.fromkeys(WIDTHS, JOINT_DIM) if constants.joint else WIDTHS
        return self.store_spec(
            name or constants.name,
            LABELS,
            label_dtypes=dict.fromkeys(LABELS, "int64"),
            synthetic=True,
            features=FeatureSpec(audio_dim=dims["audio"], visual_dim=dims["visual"]),
            provenance=provenance or {},
        )

    def copy_annotations(
        self, source: str | Path, out: Path, rows: Sequence[int] | None = None
    ) -> None:
        """Copy the annotation files, cut to the clips that are kept."""
        official_layout.copy_annotations(source, out, rows)

    def write_official(self, files: OfficialFiles, split: str, columns: dict[str, Any]) -> None:
        """Write one .npy per clip and stream."""
        official_layout.write_official(files, columns)

    def video_of(self, clip_id: str) -> str | None:
        """Return the clip's id, which is that of its video."""
        return clip_id


def _width(folder: NpyFolder, clip_ids: Sequence[str]) -> int:
    """Return the number of values per segment in a folder's first readable file.

    Raises:
        DataError: no file holds vectors of ten segments.
    """
    reason = f"it has no file of a clip of {META_FILE}"
    for clip_id in clip_ids:
        if clip_id in folder.sizes:
            try:
                return read_npy(folder.file(clip_id), (SEGMENTS, None)).shape[1]
            except BadFeature as error:
                reason = f"{clip_id}.npy {error}"
    raise DataError(
        f"{folder.folder} holds no vectors [{SEGMENTS}, D]: {reason}; each .npy must be named by "
        "the id of its clip"
    )
