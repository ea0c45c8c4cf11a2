"""What a dataset tells the platform: its classes, texts, official files and simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from avplatform.data.adapters.official_files import Annotations
from avplatform.data.adapters.options import ImportOptions
from avplatform.data.adapters.plan import ClipPlan, Plan
from avplatform.data.adapters.source import Source
from avplatform.data.store.schema import DataSpec
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import UsageError

Modality = Literal["visual", "audio"]
Spelling = Literal["official", "corrected"]


class Clips(Protocol):
    """N clips for which a simulation draws features; a dataset adds labels of its own."""

    keys: list[str]
    """Unique text per clip, from which its random numbers follow."""
    rows: np.ndarray
    """Row of each clip in the dataset, [N]."""
    splits: dict[str, np.ndarray]
    """Positions of each split's clips, from 0 to N - 1."""
    sorted_by_class: bool
    """Whether a split lists its clips class by class; a subset is then spread over the list."""


class Simulator(Protocol):
    """Draws the features and labels of clips."""

    def columns(self, clips: Any, indices: Sequence[int]) -> dict[str, Any]:
        """Return the columns of a store, by name, for the clips at positions `indices`.

        Args:
            clips: what the dataset's `clips` or `demo_clips` returned.
            indices: positions of the clips, as in `Clips.splits`.
        """
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

    The class attributes are facts, of which `task`, `classes` and `features` have no default. The
    methods read and write files; an import needs only `read` and `load`. A dataset that has no
    official files or no simulation keeps the base class's methods, which tell the user so.
    """

    name: ClassVar[str]
    """The name under which the dataset is registered; `register_dataset` sets it."""
    title: ClassVar[str] = ""
    """The name as papers write it; default: `name`."""
    task: ClassVar[str]
    """Name of the task that the dataset was made for; empty: for any task."""
    classes: ClassVar[tuple[str, ...]]
    """The classes in the order of the labels; background, if there is one, comes last."""
    texts: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Label texts of the classes by spelling; see the task's option label_texts."""
    unseen: ClassVar[tuple[str, ...]] = ()
    """The classes that no training clip has, in an open-vocabulary benchmark."""
    features: ClassVar[FeatureSpec]
    """What the published features hold per segment."""
    recipe: ClassVar[dict[str, Any]] = {}
    """Fields of the recipe that extracts such features; see `avplatform.features.recipe`."""
    segments: ClassVar[int] = 10
    """Segments per clip, T."""
    segment_seconds: ClassVar[float] = 1.0
    """Length of a segment in seconds."""
    counts: ClassVar[dict[str, int]] = {}
    """Number of clips in each official split."""
    ratios: ClassVar[tuple[str, ...]] = ()
    """Shares of the training clips of which the authors publish lists; `clips` then takes one."""
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
            thorough: also fill in `counts`, and compare the files with each other, which takes
                longer and may list more defects.

        Raises:
            DataError: files are missing or malformed.
            UsageError: the dataset has no official files, or no file that `audio_file` replaces.
        """
        if audio_file is not None:
            raise UsageError(
                f"--audio-annotations replaces a file that {self.title} does not have; leave it out"
            )
        raise UsageError(f"{self.title} has no official annotation files that are read here")

    def load(self, folder: Path, clip_id: str) -> dict[str, np.ndarray]:
        """Return the features of one clip: "audio", "visual" and, where there is one, "motion".

        An error (`OSError`, `KeyError`, `ValueError`), a NaN or a shape that differs from
        `features` leaves the clip out of the import, and the report says why.

        Args:
            folder: the folder that the import was given.
            clip_id: the clip's id, as `read` returned it.

        Shape: audio [T, Da], visual [T, Dv] or [T, H, W, Dv], motion [T, Dm].
        """
        raise self._lacks("load", "imported")

    def plan(self, options: ImportOptions) -> Plan:
        """Return the plan of an import, by default of what `read` and `load` return.

        Raises:
            DataError: files are missing or malformed.
        """
        if type(self).load is DatasetAdapter.load:
            raise self._lacks("load", "imported")
        source = Source(options.source)
        found = self.read(options.annotations or source.folder)
        synthetic = source.is_synthetic([found.folder])
        spec = self.store_spec(
            options.name,
            {name: list(values.shape[1:]) for name, values in found.labels.items()},
            label_dtypes=found.label_dtypes,
            label_splits=found.label_splits,
            synthetic=synthetic,
        )
        return ClipPlan(spec, source.folder, found, partial(self.load, source.folder))

    def store_spec(
        self, name: str | None, labels: dict[str, list[int]], *, synthetic: bool, **fields: Any
    ) -> DataSpec:
        """Return the specification of a store of this dataset.

        Args:
            name: name of the store; default: the dataset's own.
            labels: the shape of each label, by its name and without the axis of clips.
            synthetic: whether the features were drawn by code.
            fields: further fields of the specification, such as `label_dtypes`.
        """
        usual = {
            "features": self.features,
            "segments": self.segments,
            "segment_seconds": self.segment_seconds,
        }
        return DataSpec(
            name=name or self.name + ("-synthetic" if synthetic else ""),
            task=self.task,
            classes=list(self.classes),
            labels=labels,
            texts={spelling: list(texts) for spelling, texts in self.texts.items()},
            unseen=list(self.unseen),
            synthetic=synthetic,
            **{**usual, **fields},
        )

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

    def presets(self) -> tuple[Any, ...]:
        """Return the constants of all simulations of the dataset, the default one first.

        Raises:
            UsageError: the dataset has no simulation.
        """
        return (self.preset(),)

    def clips(self, folder: str | Path, *, seed: int) -> Any:
        """Return the clips of official annotation files, as `Clips` describes them."""
        raise self._lacks("clips", "simulated")

    def demo_clips(self, sizes: Mapping[str, int] | None = None) -> Any:
        """Return clips with drawn labels, for users without annotation files.

        Args:
            sizes: number of clips by split; default: the usual ones.
        """
        raise self._lacks("demo_clips", "simulated")

    def simulator(self, constants: Any, clips: Any) -> Simulator:
        """Return the simulator of these clips.

        Args:
            constants: what `preset` returned, perhaps with another seed.
            clips: what `clips` or `demo_clips` returned; their features set the scale.
        """
        raise self._lacks("simulator", "simulated")

    def simulated_spec(
        self, constants: Any, *, name: str | None = None, provenance: dict[str, Any] | None = None
    ) -> DataSpec:
        """Return the specification of a simulated store."""
        raise self._lacks("simulated_spec", "simulated")

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
        raise self._lacks("copy_annotations", "simulated")

    def write_official(self, files: OfficialFiles, split: str, columns: dict[str, Any]) -> None:
        """Write some simulated clips of a split in the authors' layout."""
        raise self._lacks("write_official", "simulated")

    def video_of(self, clip_id: str) -> str | None:
        """Return the id of the video that a clip was cut from, if the clip's id contains it."""
        return None

    def seconds_of(self, clip_id: str) -> tuple[float, float] | None:
        """Return which seconds of its video a clip shows, if its id contains them."""
        return None

    def file_name(self, name: str) -> str:
        """Return another name (without suffix) that the media file of this clip may have."""
        return name

    def check_provenance(
        self, provenance: dict[str, Any]
    ) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
        """Return what a store's provenance says about the official files.

        These are lines for the report, by name, and warnings as (kind, text, file).
        """
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

    def _lacks(self, name: str, done: str) -> UsageError:
        """Return the error for a dataset that is to be `done` but does not define a method."""
        return UsageError(
            f"{self.title} cannot be {done}: {type(self).__name__} does not define `{name}`"
        )
