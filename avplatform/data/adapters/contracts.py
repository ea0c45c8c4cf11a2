"""What a dataset tells the platform: its classes and texts, its official files, and what can be simulated of it."""

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
    """The official annotation files of a dataset, read; clip n is row n of every array.

    Shape: labels, by name, [N, ...] as a store holds them.
    """

    folder: Path
    files: dict[
        str, Path
    ]  # what was or could have been read, by the name that a store's provenance has
    clip_ids: list[str]
    splits: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    label_dtypes: dict[str, str]
    label_splits: dict[str, list[str]] = field(default_factory=dict)
    defects: list[Defect] = field(default_factory=list)
    counts: dict[str, str] = field(default_factory=dict)  # what a report says of them besides


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

    The class attributes are facts; the methods read and make files. A dataset without official files, or that nobody
    simulates, leaves the methods as they are: they say so to the user.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    """as papers write it"""
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

    def plan(self, options: ImportOptions) -> Plan:
        """Return an import of the official files, ready to be read.

        Raises:
            DataError: files that are missing or malformed.
        """
        raise UsageError(f"{self.title} has no official files that can be imported")

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
        raise NotImplementedError

    def demo_clips(self, sizes: Mapping[str, int] | None = None) -> Any:
        """Return clips with drawn labels, for users without annotation files; `sizes`, by split, makes fewer."""
        raise NotImplementedError

    def simulator(self, constants: Any, clips: Any) -> Simulator:
        """Return what draws features, calibrated on all clips."""
        raise NotImplementedError

    def simulated_spec(
        self, constants: Any, *, name: str | None = None, provenance: dict[str, Any] | None = None
    ) -> DataSpec:
        """Return the specification of a simulated store."""
        raise NotImplementedError

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
        raise NotImplementedError

    def write_official(self, files: OfficialFiles, split: str, columns: dict[str, Any]) -> None:
        """Write some simulated clips of a split in the authors' layout."""
        raise NotImplementedError

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
