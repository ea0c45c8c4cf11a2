"""Import of LLP: csv files, one .npy per video and kind of feature, VALOR's pseudo-labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avplatform.base.npy import BadFeature
from avplatform.data.adapters.contracts import DatasetAdapter
from avplatform.data.adapters.llp.annotations import DENSE_FILES, ID_LENGTH, SEGMENTS
from avplatform.data.adapters.llp.checks import OTHER_VERSION, UNCORRUPTED, VARIANT
from avplatform.data.adapters.llp.classes import CLASSES
from avplatform.data.adapters.npy_folder import NpyFolder
from avplatform.data.adapters.official_files import Defect
from avplatform.data.adapters.options import NONE
from avplatform.data.adapters.plan import (
    LeftOut,
    Part,
    cast,
    in_no_split,
    is_repeated,
    stamps,
    whole_numbers,
)
from avplatform.data.adapters.source import Source
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import counted
from avplatform.models.paths import expanded
from avplatform.models.stem import pool_clap

FRAMES = 80
BLOCK = 32


@dataclass
class Feature:
    """A feature column of the store: where its files lie, their shape, and how they are reduced."""

    column: str
    option: str
    place: str
    shape: tuple[int, ...]
    reduce: Callable[[np.ndarray], np.ndarray]
    optional: bool = False


def average_frames(frames: np.ndarray) -> np.ndarray:
    """Average 80 frame vectors to 10 segment vectors.

    Shape: [80, D] -> [10, D], float32.
    """
    return frames.reshape(SEGMENTS, -1, frames.shape[-1]).mean(axis=1, dtype=np.float32)


def pool_tokens(tokens: np.ndarray) -> np.ndarray:
    """Average CLAP's 64 tokens to 10 segment vectors.

    Shape: [64, D] -> [10, D], float32.
    """
    return pool_clap(torch.from_numpy(tokens.astype(np.float32))[None], SEGMENTS)[0].numpy()


def features_of(options: Any) -> list[Feature]:
    """Return the feature columns that the options choose."""

    def same(x: np.ndarray) -> np.ndarray:
        return x

    features = {
        "vggish": Feature("audio", "vggish", "feats/vggish", (SEGMENTS, 128), same),
        "clap": Feature("audio", "clap_features", "CLAP/features", (64, 768), pool_tokens),
        "res152": Feature(
            "visual",
            "res152",
            "feats/res152",
            (FRAMES, 2048),
            average_frames if options.frames == 10 else same,
        ),
        "clip": Feature("visual", "clip_features", "CLIP/features", (SEGMENTS, 768), same),
    }
    motion = Feature(
        "motion", "r2plus1d", "feats/r2plus1d_18", (SEGMENTS, 512), same, optional=True
    )
    return [features[options.audio], features[options.visual], motion]


class LLPPlan:
    """The plan of an import of LLP.

    Raises:
        DataError: annotations are missing or malformed, or a feature folder is missing or empty.
    """

    block = BLOCK
    parallel = True

    def __init__(self, adapter: DatasetAdapter, options: Any) -> None:
        self.options, self.source = options, Source(options.source)
        data = adapter.read(
            options.annotations or self.source.folder,
            audio_file=options.audio_annotations,
            thorough=True,
        )
        self.splits, self.labels, self.clip_ids = data.splits, data.labels, data.clip_ids
        self.videos = [name[:ID_LENGTH] for name in data.clip_ids]
        self.defects = data.defects
        self.left_out = in_no_split(self.defects, data.folder, "no split file")
        self.remarks: list[str] = []
        self._folders: dict[str, NpyFolder] = {}
        self._features = [
            f for f in features_of(options) if self._open(f.column, f.option, f.place, f.optional)
        ]
        self._pseudo = {}
        for modality, model in (("audio", "CLAP"), ("visual", "CLIP")):
            column = f"pseudo_{modality}"
            if self._open(column, column, f"{model}/segment_pseudo_labels", True):
                known = self._known_splits(column)
                if known:
                    self._pseudo[column] = known
                else:
                    folder = self._folders.pop(column).folder
                    self.remarks.append(
                        f"{folder} has usable labels for no split: stored without {column}"
                    )
        self._strangers()
        variant = data.counts[f"{VARIANT} given"]
        self.sources: dict[str, Any] = {
            "annotations": stamps(data.files),
            "dense_audio_annotations": variant,
            "features": {
                column: {
                    "folder": folder.place,
                    "files": len(folder.sizes),
                    "bytes": sum(folder.sizes.values()),
                }
                for column, folder in self._folders.items()
            },
        }
        if variant != UNCORRUPTED:
            file = expanded(options.audio_annotations or DENSE_FILES["audio"]).name
            self.defects.append(Defect(OTHER_VERSION, file, 0, variant))
        folders = self._folders.values()
        self.fingerprint = [self.sources, [folder.fingerprint for folder in folders]]
        synthetic = self.source.is_synthetic([data.folder, *(f.folder for f in folders)])
        maps = [SEGMENTS, len(CLASSES)]
        labels = {"weak": [len(CLASSES)]} | dict.fromkeys(
            [*self._pseudo, "dense_audio", "dense_visual"], maps
        )
        unknown = {n: known for n, known in self._pseudo.items() if len(known) < len(self.splits)}
        widths = {feature.column: feature.shape[-1] for feature in self._features}
        self.spec = adapter.store_spec(
            options.name,
            labels,
            label_dtypes=dict.fromkeys(labels, "uint8"),
            label_splits=data.label_splits | unknown,
            features=FeatureSpec(
                audio_dim=widths["audio"],
                visual_dim=widths["visual"],
                motion_dim=widths.get("motion"),
            ),
            frames_per_segment=options.frames // SEGMENTS,
            synthetic=synthetic,
        )

    def _open(self, column: str, option: str, place: str, optional: bool) -> bool:
        """Open the folder of a column; return whether there is one."""
        given = getattr(self.options, option)
        flag = f"--{option.replace('_', '-')}"
        if given == NONE and optional:
            self.remarks.append(f"{column} is left out ({flag} none)")
            return False
        folder = self.source.find([place, f"feats/{place}"], given)
        if folder is None:
            if not optional:
                raise self.source.missing(place, f"give its folder with {flag}")
            self.remarks.append(f"no {place}: stored without {column} (give a folder with {flag})")
            return False
        remedy = f"give {flag} the folder that holds one per video"
        self._folders[column] = NpyFolder(
            folder, f"{remedy}, or {flag} none to leave it out" if optional else remedy
        )
        return True

    def _known_splits(self, column: str) -> list[str]:
        """Return the splits in which pseudo-labels are known.

        Only training needs them: in another split, a missing or damaged file makes them unknown
        for the whole split, and no clip is left out for it.
        """
        known, folder = [], self._folders[column]
        for split, rows in self.splits.items():
            missing = [row for row in rows.tolist() if self.videos[row] not in folder.sizes]
            damaged = (
                0
                if split == "train"
                else self._damaged(folder, sorted(set(rows.tolist()) - set(missing)))
            )
            lack = len(missing) + damaged
            if not lack or (split == "train" and lack < len(rows)):
                known.append(split)
            elif len(missing) < len(rows):
                text = f", and {damaged} have a damaged one" if damaged else ""
                clips = counted(len(rows), "clip")
                self.remarks.append(
                    f"{column} is not known in {split}: "
                    f"{len(missing)} of {clips} have no file{text}"
                )
        return known

    def _damaged(self, folder: NpyFolder, rows: Sequence[int]) -> int:
        """List damaged pseudo-label files of some clips as defects; return their number."""
        count = 0
        for row in rows:
            try:
                self._pseudo_labels(folder, row)
            except BadFeature as error:
                file = f"{folder.place}/{self.videos[row]}.npy"
                text = f"{self.clip_ids[row]}: {error}"
                self.defects.append(Defect("damaged pseudo-label file", file, 0, text))
                count += 1
        return count

    def _strangers(self) -> None:
        videos = set(self.videos)
        for folder in self._folders.values():
            self.defects += [
                Defect("feature file of no clip", folder.place, 0, f"{name}.npy")
                for name in sorted(set(folder.sizes) - videos)
            ]

    def read(self, split: str, positions: Sequence[int], dtype: str) -> Part:
        """Read the clips at some positions of a split; every bad file of a clip is listed."""
        part, seen = Part(None), set[tuple[str, str]]()
        columns: dict[str, list[Any]] = {
            name: [] for name in ("row", "clip_id", *self.spec.shapes())
        }
        for position in positions:
            row = int(self.splits[split][position])
            clip, bad, notes = self._clip(split, row, dtype)
            part.left_out += [
                (position, LeftOut(self.clip_ids[row], str(file), text)) for file, text in bad
            ]
            if not bad:
                found = [*notes, *self._outside(clip, row)]
                part.defects += [
                    (position, defect) for defect in found if not is_repeated(defect, seen)
                ]
                for name, value in clip.items():
                    columns[name].append(value)
        if columns["row"]:
            part.columns = {
                name: value if name == "clip_id" else np.array(value)
                for name, value in columns.items()
            }
        return part

    def _clip(
        self, split: str, row: int, dtype: str
    ) -> tuple[dict[str, Any], list[tuple[Path, str]], list[Defect]]:
        """Return a clip's columns, its bad files with reasons, and defects of its good files."""
        video, clip_id = self.videos[row], self.clip_ids[row]
        clip: dict[str, Any] = {"row": row, "clip_id": clip_id}
        clip |= {name: values[row] for name, values in self.labels.items()}
        bad, notes = [], []
        for feature in self._features:
            folder = self._folders[feature.column]
            try:
                values = folder.read(video, feature.shape)
                clip[feature.column] = cast(feature.reduce(values), dtype)
                note = whole_numbers(values.dtype, f"{folder.place}/{video}.npy", clip_id)
                notes += [note] if note is not None else []
            except BadFeature as error:
                bad.append((folder.file(video), str(error)))
        for column, known in self._pseudo.items():
            folder = self._folders[column]
            try:
                clip[column] = (
                    self._pseudo_labels(folder, row)
                    if split in known
                    else np.zeros_like(clip["dense_audio"])
                )
            except BadFeature as error:
                bad.append((folder.file(video), str(error)))
        return clip, bad, notes

    def _pseudo_labels(self, folder: NpyFolder, row: int) -> np.ndarray:
        labels = folder.read(self.videos[row], (SEGMENTS, len(CLASSES)), labels=True)
        if ((labels != 0) & (labels != 1)).any():
            raise BadFeature("holds labels other than 0 and 1")
        return labels.astype(np.uint8)

    def _outside(self, clip: dict[str, Any], row: int) -> list[Defect]:
        """List pseudo-labels outside the weak label, which VALOR's rule never sets."""
        defects = []
        for column in self._pseudo:
            outside = np.flatnonzero(clip[column].any(axis=0) & (clip["weak"] == 0))
            if len(outside):
                names = ", ".join(CLASSES[i] for i in outside)
                file = f"{self._folders[column].place}/{self.videos[row]}.npy"
                text = f"{self.clip_ids[row]}: {names}"
                defects.append(Defect("pseudo-label outside the weak label", file, 0, text))
        return defects

    def bytes_of(self, rows: set[int]) -> int:
        """Return the size in bytes of some clips' feature files, without pseudo-labels."""
        folders = [self._folders[feature.column].sizes for feature in self._features]
        return sum(sizes[self.videos[row]] for row in rows for sizes in folders)
