"""What a dataset tells the platform: its classes, texts, official files and simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from avplatform.data.adapters.official_files import Defect
from avplatform.data.adapters.options import ImportOptions
from avplatform.data.adapters.plan import Plan
from avplatform.data.store.schema import DataSpec
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import UsageError

Modality = Literal["visual", "audio"]
Spelling = Literal["official", "corrected"]


@dataclass(kw_only=True)
class Annotations:
    """The contents of a dataset's official annotation files; clip n is row n of every array.

    `files` are the annotation files, present or not, under the names that a store's provenance
    uses. `label_splits` names the splits in which a label is known, where these are not all.
    `counts` holds further lines for a report.

    Shape: labels, by name, [N, ...] as a store holds them.
    """

    folder: Path
    files: dict[str, Path]
    clip_ids: list[str]
    splits: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    label_dtypes: dict[str, str]
    label_splits: dict[str, list[str]] = field(default_factory=dict)
    defects: list[Defect] = field(default_factory=list)
    counts: dict[str, str] = field(default_factory=dict)


class Clips(Protocol):
    """Clips for which a simulation draws features."""

    keys: list[str]
    rows: np.ndarray
    splits: dict[str, np.ndarray]
    sorted_by_class: bool


class Simulator(Protocol):
    """Draws the features and labels of clips."""

    def columns(self, clips: Any, indices: Sequence[int]) -> dict[str, Any]:
        """Return the columns of a store for the clips at `indices`."""
        ...


class OfficialFiles(Protocol):
    """A folder that is being written in the authors' layout."""

    def npy(self, name: str, values: np.ndarray) -> None:
        """Write one array into a file of its own."""
        ...

    def h5(
        self, name: str, key: str, values: np.ndarray, rows: np.ndarray, *, background: bool
    ) -> None:
        """Write rows of the array `key` of an h5 file that holds one row per clip.

        `rows` are the clips' row numbers in the dataset; background clips follow the others.
        """
        ...


class DatasetAdapter:
    """Base class of datasets; `register_dataset` makes one available under its name.

    The class attributes are facts; the methods read and write files. A dataset that has no official
    files or no simulation keeps the base class's methods, which tell the user so.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    """The name as papers write it."""
    task: ClassVar[str]
    """Name of the task that the dataset was made for."""
    classes: ClassVar[tuple[str, ...]]
    """The classes in the order of the labels; background, if there is one, comes last."""
    texts: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Label texts of the classes by spelling; see the task's option label_texts."""
    features: ClassVar[FeatureSpec]
    """What the published features hold per segment."""
    recipe: ClassVar[dict[str, Any]] = {}
    """Fields of the recipe that extracts such features; see `avplatform.features.recipe`."""
    segments: ClassVar[int] = 10
    segment_seconds: ClassVar[float] = 1.0
    counts: ClassVar[dict[str, int]] = {}
    """Number of clips in each official split."""
    unique_ids: ClassVar[bool] = True
    """Whether a clip id names exactly one clip; otherwise only the row does."""
    audio_annotations: ClassVar[str | None] = None
    """Name of the file of dense audio annotations, where another version may be given for it."""
    prompted: ClassVar[bool] = False
    """Whether the dataset has `prompts` and `thresholds`."""
    demo: ClassVar[str] = ""
    """Name of the dataset's demo data; empty where there is none."""
    simulated_labels: ClassVar[str] = ""
    """Where the labels of a simulation of official annotations come from."""
    Options: ClassVar[type] = object
    """A dataclass of the import options that only this dataset has."""

    def read(
        self, folder: str | Path, *, audio_file: str | Path | None = None, thorough: bool = False
    ) -> Annotations:
        """Read the official annotation files.

        Args:
            folder: the folder of the files, or the one whose `data/` holds them.
            audio_file: another file of dense audio annotations, for datasets that have such a file.
            thorough: also fill in `counts` and list the defects that need more than reading.

        Raises:
            DataError: files are missing or malformed.
            UsageError: the dataset has no official files, or no file that `audio_file` replaces.
        """
        if audio_file is not None:
            raise UsageError(
                f"--audio-annotations replaces a file that {self.title} does not have; leave it out"
            )
        raise UsageError(f"{self.title} has no official annotation files that are read here")

    def plan(self, options: ImportOptions) -> Plan:
        """Open the official files and return the plan of their import.

        Raises:
            DataError: files are missing or malformed.
        """
        raise UsageError(f"{self.title} has no official files that can be imported")

    def check_options(self, options: ImportOptions) -> None:
        """Raise UsageError where import options contradict each other."""

    def preset(self) -> Any:
        """Return the constants of the dataset's simulation: a dataclass with `name` and `seed`.

        The name ends in a version number, which changes whenever the drawn data do.

        Raises:
            UsageError: the dataset has no simulation.
        """
        raise UsageError(
            f"{self.title} has no simulation; give data that were imported or extracted"
        )

    def clips(self, folder: str | Path, *, seed: int) -> Any:
        """Return the clips of official annotation files, see `Clips`."""
        raise NotImplementedError

    def demo_clips(self, sizes: Mapping[str, int] | None = None) -> Any:
        """Return clips with drawn labels, for users who have no annotation files.

        Args:
            sizes: number of clips per split; default: those of the demo data.
        """
        raise NotImplementedError

    def simulator(self, constants: Any, clips: Any) -> Simulator:
        """Return the simulator of the features, calibrated on all clips."""
        raise NotImplementedError

    def simulated_spec(
        self, constants: Any, *, name: str | None = None, provenance: dict[str, Any] | None = None
    ) -> DataSpec:
        """Return the specification of a simulated store."""
        raise NotImplementedError

    def copy_annotations(
        self, source: str | Path, out: Path, rows: Sequence[int] | None = None
    ) -> None:
        """Copy the official annotation files, but no features, into another folder.

        Args:
            source: folder of the official files, or the one whose `data/` holds them.
            out: an existing folder.
            rows: clips to keep, as `read` numbers them; all others are removed from the copies.

        Raises:
            DataError: annotation files are missing or malformed.
        """
        raise NotImplementedError

    def write_official(self, files: OfficialFiles, split: str, columns: dict[str, Any]) -> None:
        """Write simulated clips of a split in the authors' layout."""
        raise NotImplementedError

    def video_of(self, clip_id: str) -> str | None:
        """Return the id of the video that a clip was cut from, if the clip's id contains it."""
        return None

    def file_name(self, name: str) -> str:
        """Return another name (without suffix) that the media file of this clip may have."""
        return name

    def check_provenance(
        self, provenance: dict[str, Any]
    ) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
        """Return counts, and warnings (kind, text, file), on the files that a store was made of."""
        return {}, []

    def prompts(self, modality: Modality, spelling: Spelling = "official") -> tuple[str, ...]:
        """Return the text prompts of the classes with which a teacher model makes pseudo-labels.

        Raises:
            UsageError: the modality or spelling is unknown, or the dataset has no prompts.
        """
        raise UsageError(f"{self.title} has no prompts for pseudo-labels")

    def thresholds(self, modality: Modality) -> np.ndarray:
        """Return the logits above which a teacher model's classes are active.

        Shape: [C].
        """
        raise UsageError(f"{self.title} has no thresholds for pseudo-labels")
