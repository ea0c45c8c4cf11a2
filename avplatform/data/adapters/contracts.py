"""What a dataset tells the platform: its classes and texts, its official files, and what can be simulated of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from avplatform.data.adapters.official_files import Defect
from avplatform.data.adapters.options import ImportOptions
from avplatform.data.adapters.plan import ClipPlan, Plan, is_synthetic
from avplatform.data.store.schema import DataSpec
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import UsageError
from avplatform.models.files import expanded

Modality = Literal["visual", "audio"]
Spelling = Literal["official", "corrected"]


@dataclass(kw_only=True)
class Annotations:
    """The official annotation files of a dataset, read; clip n is row n of every array.

    `splits` holds the rows of each split. `files` names what was or could have been read, as a store's provenance does.
    `label_dtypes` may be left out: 0 and 1 ("uint8") for labels that are boolean or of one byte, else positions of classes
    ("int64"). `label_splits` names the splits of labels that are not known in all of them. `counts` are further lines of a
    report.

    Shape: labels, by name, [N, ...] as a store holds them.
    """

    folder: Path
    clip_ids: list[str]
    splits: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    files: dict[str, Path] = field(default_factory=dict)
    label_dtypes: dict[str, str] = field(default_factory=dict)
    label_splits: dict[str, list[str]] = field(default_factory=dict)
    defects: list[Defect] = field(default_factory=list)
    counts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in self.labels.items():
            one_byte = values.dtype in (np.bool_, np.uint8)
            self.label_dtypes.setdefault(name, "uint8" if one_byte else "int64")


class Clips(Protocol):
    """Clips whose features are to be drawn."""

    keys: list[str]
    rows: np.ndarray
    splits: dict[str, np.ndarray]
    sorted_by_class: bool


class Simulator(Protocol):
    """Draws the columns of clips."""

    def columns(self, clips: Any, indices: Sequence[int]) -> dict[str, Any]:
        """Return a store's columns for some clips."""
        ...


class OfficialFiles(Protocol):
    """A folder in the authors' layout while it is written."""

    def npy(self, name: str, values: np.ndarray) -> None:
        """Write one array into a file of its own."""
        ...

    def h5(
        self, name: str, key: str, values: np.ndarray, rows: np.ndarray, *, background: bool
    ) -> None:
        """Write rows of the array `key` of a file, which holds one row per clip; background clips are numbered behind the others."""
        ...


class DatasetAdapter:
    """A dataset, under its own name; `register_dataset` makes it available.

    The class attributes are facts, of which `task`, `classes` and `features` have no default; the methods read and make files.
    `read` and `load` are all that an import takes. A dataset without official files, or that nobody simulates, leaves the
    methods as they are: they say so to the user.
    """

    name: ClassVar[str]
    """set by `register_dataset`"""
    title: ClassVar[str] = ""
    """as papers write it; default: the name"""
    task: ClassVar[str]
    """name of the task that it was made for"""
    classes: ClassVar[tuple[str, ...]]
    """in the order of the labels, background (if there is one) last"""
    texts: ClassVar[dict[str, tuple[str, ...]]] = {}
    """label texts of the classes by spelling; see the task's option label_texts"""
    features: ClassVar[FeatureSpec]
    """what the published features hold per segment"""
    recipe: ClassVar[dict[str, Any]] = {}
    """fields of the recipe that extracts such features, see `avplatform.features.recipe`; it has the dataset's name"""
    segments: ClassVar[int] = 10
    segment_seconds: ClassVar[float] = 1.0
    counts: ClassVar[dict[str, int]] = {}
    """clips of the official splits"""
    unique_ids: ClassVar[bool] = True
    """whether a clip id names one clip; else rows do"""
    audio_annotations: ClassVar[str | None] = None
    """name of the file of audio annotations that may be exchanged for another one"""
    prompted: ClassVar[bool] = False
    """whether there are `prompts` and `thresholds`"""
    demo: ClassVar[str] = ""
    """name of its demo data; none: it has no demo"""
    simulated_labels: ClassVar[str] = ""
    """where the labels of a simulation of official annotations come from"""
    Options: ClassVar[type] = object
    """a dataclass of the options of an import that only this dataset has"""

    def read(
        self, folder: str | Path, *, audio_file: str | Path | None = None, thorough: bool = False
    ) -> Annotations:
        """Read the official annotation files.

        Args:
            folder: where they are, or their `data/`.
            audio_file: another file of dense audio annotations; only some datasets have one.
            thorough: also list defects that take more than reading, and `counts`.

        Raises:
            DataError: files that are missing or malformed.
            UsageError: the dataset has none, or no such file.
        """
        if audio_file is not None:
            raise UsageError(
                f"--audio-annotations replaces a file that {self.title} does not have; leave it out"
            )
        raise UsageError(f"{self.title} has no official annotation files that are read here")

    def load(self, folder: Path, clip_id: str) -> dict[str, np.ndarray]:
        """Return the features of one clip: "audio", "visual" and, where there is one, "motion".

        An error (`OSError`, `KeyError`, `ValueError`), a NaN or another shape than that of `features` leaves the clip out of
        an import, whose report says why.

        Args:
            folder: that the import was given.
            clip_id: as `read` returned it.

        Shape: audio [T, Da], visual [T, Dv] or [T, H, W, Dv], motion [T, Dm].
        """
        raise self._lacks("load", "imported")

    def plan(self, options: ImportOptions) -> Plan:
        """Return an import of the official files, ready to be read: by default, of what `read` and `load` return.

        Raises:
            DataError: files that are missing or malformed.
        """
        if type(self).load is DatasetAdapter.load:
            raise self._lacks("load", "imported")
        source = expanded(options.source)
        found = self.read(options.annotations or source)
        synthetic = is_synthetic(source, [found.folder])
        spec = DataSpec(
            name=options.name or self.name + ("-synthetic" if synthetic else ""),
            task=self.task,
            classes=list(self.classes),
            features=self.features,
            labels={name: list(values.shape[1:]) for name, values in found.labels.items()},
            label_dtypes=found.label_dtypes,
            label_splits=found.label_splits,
            segments=self.segments,
            segment_seconds=self.segment_seconds,
            texts={spelling: list(texts) for spelling, texts in self.texts.items()},
            synthetic=synthetic,
        )
        return ClipPlan(
            spec,
            source=source,
            clip_ids=found.clip_ids,
            splits=found.splits,
            labels=found.labels,
            load=partial(self.load, source),
            files=found.files,
            defects=found.defects,
        )

    def check_options(self, options: ImportOptions) -> None:
        """Raise UsageError where options of an import contradict each other."""

    def preset(self) -> Any:
        """Return the constants of its simulation: a dataclass with `name` and `seed`, versioned like the data drawn by it.

        Raises:
            UsageError: nobody has said how to simulate it.
        """
        raise UsageError(
            f"{self.title} is not simulated; give data that were imported or extracted"
        )

    def clips(self, folder: str | Path, *, seed: int) -> Any:
        """Return the clips of official annotation files, see `Clips`."""
        raise self._lacks("clips", "simulated")

    def demo_clips(self, sizes: Mapping[str, int] | None = None) -> Any:
        """Return clips with drawn labels, for users without annotation files; `sizes`, by split, makes fewer."""
        raise self._lacks("demo_clips", "simulated")

    def simulator(self, constants: Any, clips: Any) -> Simulator:
        """Return what draws features, calibrated on all clips."""
        raise self._lacks("simulator", "simulated")

    def simulated_spec(
        self, constants: Any, *, name: str | None = None, provenance: dict[str, Any] | None = None
    ) -> DataSpec:
        """Return the specification of a simulated store."""
        raise self._lacks("simulated_spec", "simulated")

    def copy_annotations(
        self, source: str | Path, out: Path, rows: Sequence[int] | None = None
    ) -> None:
        """Copy the official annotation files of a folder, or of its `data/`, into another; features are not copied.

        Args:
            source: folder of the official files.
            out: an existing folder.
            rows: clips that stay, as `read` numbers them; the files are cut to them, so that they name no other.

        Raises:
            DataError: annotation files that are missing or malformed.
        """
        raise self._lacks("copy_annotations", "simulated")

    def write_official(self, files: OfficialFiles, split: str, columns: dict[str, Any]) -> None:
        """Write some simulated clips of a split in the authors' layout."""
        raise self._lacks("write_official", "simulated")

    def video_of(self, clip_id: str) -> str | None:
        """Return the video that a clip is a part of, if its id tells."""
        return None

    def file_name(self, name: str) -> str:
        """Return what else a media file of a clip of this name may be called, without suffix."""
        return name

    def check_provenance(
        self, provenance: dict[str, Any]
    ) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
        """Return what is to be said of the files that a store was made of: counts, and warnings (kind, text, file)."""
        return {}, []

    def prompts(self, modality: Modality, spelling: Spelling = "official") -> tuple[str, ...]:
        """Return the prompts that stand for the classes when a teacher makes pseudo-labels.

        Raises:
            UsageError: an unknown modality or spelling, or a dataset without prompts.
        """
        raise UsageError(f"{self.title} has no prompts for pseudo-labels")

    def thresholds(self, modality: Modality) -> np.ndarray:
        """Return the logits above which the teacher's classes are on, [C]."""
        raise UsageError(f"{self.title} has no thresholds for pseudo-labels")

    def _lacks(self, name: str, done: str) -> UsageError:
        """Return what to say of a method that is not written."""
        return UsageError(
            f"{self.title} cannot be {done}: {type(self).__name__} does not define `{name}`"
        )
