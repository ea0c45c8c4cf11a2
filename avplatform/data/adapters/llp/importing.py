"""Import of LLP: csv files, one .npy per video and kind of feature, VALOR's pseudo-labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avplatform.base.npy import BadFeature
from avplatform.data.adapters.llp.annotations import (
    DENSE_FILES,
    SEGMENTS,
    SPLIT_FILES,
    locate,
    read_annotations,
)
from avplatform.data.adapters.llp.checks import FULL_FILE, audio_variant, check_files
from avplatform.data.adapters.llp.classes import CLASSES, TASK, spec_texts
from avplatform.data.adapters.npy_folder import NpyFolder
from avplatform.data.adapters.official_files import Defect
from avplatform.data.adapters.options import NONE
from avplatform.data.adapters.plan import (
    LeftOut,
    Part,
    cast,
    in_no_split,
    is_repeated,
    whole_numbers,
)
from avplatform.data.adapters.source import Source
from avplatform.data.store.schema import DataSpec
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import counted
from avplatform.models.files import expanded, file_sha256
from avplatform.models.stem import pool_clap

FRAMES = 80
BLOCK = 32


@dataclass
class Feature:
    """A feature column of the store: where its files lie, their shape, and how they are reduced."""

    column: str
    option: str
    places: tuple[str, ...]
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
        "vggish": Feature("audio", "vggish", ("feats/vggish",), (SEGMENTS, 128), same),
        "clap": Feature("audio", "clap_features", ("CLAP/features",), (64, 768), pool_tokens),
        "res152": Feature(
            "visual",
            "res152",
            ("feats/res152",),
            (FRAMES, 2048),
            average_frames if options.frames == 10 else same,
        ),
        "clip": Feature("visual", "clip_features", ("CLIP/features",), (SEGMENTS, 768), same),
    }
    motion = Feature(
        "motion", "r2plus1d", ("feats/r2plus1d_18",), (SEGMENTS, 512), same, optional=True
    )
    return [features[options.audio], features[options.visual], motion]


class LLPPlan:
    """The plan of an import of LLP.

    Raises:
        DataError: annotations are missing or malformed, or a feature folder is missing or empty.
    """

    block = BLOCK
    parallel = True

    def __init__(self, options: Any) -> None:
        source = Source(options.source)
        annotations = locate(options.annotations or source.folder)
        audio_file = expanded(options.audio_annotations or annotations / DENSE_FILES["audio"])
        self.data = read_annotations(annotations, audio_file=audio_file)
        self.splits, self.videos = self.data.splits, self.data.video_ids
        self.defects = self.data.defects + check_files(annotations, self.data)
        self.left_out = in_no_split(self.defects, annotations, "no split file")
        self.remarks: list[str] = []
        self._folders: dict[str, NpyFolder] = {}
        self._features = [
            f
            for f in features_of(options)
            if self._open(f.column, options, source, f.option, f.places, f.optional)
        ]
        self._pseudo = {}
        for modality, model in (("audio", "CLAP"), ("visual", "CLIP")):
            column, places = f"pseudo_{modality}", (f"{model}/segment_pseudo_labels",)
            if self._open(column, options, source, column, places, True):
                known = self._known_splits(column)
                if known:
                    self._pseudo[column] = known
                else:
                    folder = self._folders.pop(column).folder
                    self.remarks.append(
                        f"{folder} has usable labels for no split: stored without {column}"
                    )
        self._strangers()
        files = [
            *(annotations / name for name in SPLIT_FILES.values()),
            audio_file,
            annotations / DENSE_FILES["visual"],
        ]
        files += [annotations / FULL_FILE] if (annotations / FULL_FILE).is_file() else []
        self.sources: dict[str, Any] = {
            "annotations": {
                file.name: {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
                for file in files
            },
            "dense_audio_annotations": audio_variant(audio_file),
            "features": {
                column: {
                    "folder": folder.place,
                    "files": len(folder.sizes),
                    "bytes": sum(folder.sizes.values()),
                }
                for column, folder in self._folders.items()
            },
        }
        if self.sources["dense_audio_annotations"] != "uncorrupted":
            text = self.sources["dense_audio_annotations"]
            self.defects.append(
                Defect("dense audio annotations of another version", audio_file.name, 0, text)
            )
        self.fingerprint = [self.sources, [folder.fingerprint for folder in self._folders.values()]]
        self.synthetic = source.is_synthetic(
            [annotations, *(f.folder for f in self._folders.values())]
        )
        self.spec = self._spec(options)

    def _open(
        self,
        column: str,
        options: Any,
        source: Source,
        option: str,
        places: Sequence[str],
        optional: bool,
    ) -> bool:
        given = getattr(options, option)
        flag = f"--{option.replace('_', '-')}"
        if given == NONE and optional:
            self.remarks.append(f"{column} is left out ({flag} none)")
            return False
        inside = [f"feats/{place}" for place in places if not place.startswith("feats/")]
        folder = source.find([*places, *inside], given)
        if folder is None:
            if not optional:
                raise source.missing(places[0], f"give its folder with {flag}")
            self.remarks.append(
                f"no {places[0]}: stored without {column} (give a folder with {flag})"
            )
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
                file, text = (
                    f"{folder.place}/{self.videos[row]}.npy",
                    f"{self.data.filenames[row]}: {error}",
                )
                self.defects.append(Defect("damaged pseudo-label file", file, 0, text))
                count += 1
        return count

    def _strangers(self) -> None:
        videos = set(self.videos)
        for folder in self._folders.values():
            for name in sorted(set(folder.sizes) - videos):
                self.defects.append(
                    Defect("feature file of no clip", folder.place, 0, f"{name}.npy")
                )

    def _spec(self, options: Any) -> DataSpec:
        maps = [SEGMENTS, len(CLASSES)]
        labels = {
            "weak": [len(CLASSES)],
            **dict.fromkeys([*self._pseudo, "dense_audio", "dense_visual"], maps),
        }
        label_splits = {name: ["validation", "test"] for name in ("dense_audio", "dense_visual")}
        label_splits |= {
            name: known for name, known in self._pseudo.items() if len(known) < len(self.splits)
        }
        widths = {feature.column: feature.shape[-1] for feature in self._features}
        return DataSpec(
            name=options.name or ("llp-synthetic" if self.synthetic else "llp"),
            task=TASK,
            classes=list(CLASSES),
            features=FeatureSpec(
                audio_dim=widths["audio"],
                visual_dim=widths["visual"],
                motion_dim=widths.get("motion"),
            ),
            labels=labels,
            label_dtypes=dict.fromkeys(labels, "uint8"),
            label_splits=label_splits,
            segments=SEGMENTS,
            texts=spec_texts(),
            frames_per_segment=options.frames // SEGMENTS,
            synthetic=self.synthetic,
        )

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
                (position, LeftOut(self.data.filenames[row], str(file), text)) for file, text in bad
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
        data, video = self.data, self.videos[row]
        clip: dict[str, Any] = {"row": row, "clip_id": data.filenames[row], "weak": data.weak[row]}
        clip |= {"dense_audio": data.dense_audio[row], "dense_visual": data.dense_visual[row]}
        bad, notes = [], []
        for feature in self._features:
            folder = self._folders[feature.column]
            try:
                values = folder.read(video, feature.shape)
                clip[feature.column] = cast(feature.reduce(values), dtype)
                note = whole_numbers(
                    values.dtype, f"{folder.place}/{video}.npy", data.filenames[row]
                )
                notes += [note] if note is not None else []
            except BadFeature as error:
                bad.append((folder.file(video), str(error)))
        for column, known in self._pseudo.items():
            folder = self._folders[column]
            try:
                clip[column] = (
                    self._pseudo_labels(folder, row)
                    if split in known
                    else np.zeros_like(data.dense_audio[row])
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
            outside = np.flatnonzero(clip[column].any(axis=0) & (self.data.weak[row] == 0))
            if len(outside):
                names = ", ".join(CLASSES[i] for i in outside)
                file = f"{self._folders[column].place}/{self.videos[row]}.npy"
                defects.append(
                    Defect(
                        "pseudo-label outside the weak label",
                        file,
                        0,
                        f"{self.data.filenames[row]}: {names}",
                    )
                )
        return defects

    def bytes_of(self, rows: set[int]) -> int:
        """Return the size in bytes of some clips' feature files, without pseudo-labels."""
        folders = [self._folders[feature.column].sizes for feature in self._features]
        return sum(sizes[self.videos[row]] for row in rows for sizes in folders)
