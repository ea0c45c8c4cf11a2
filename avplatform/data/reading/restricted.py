"""A view of a dataset with some of its classes, without the other labels and the other clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from avplatform.base.files import arrow_path
from avplatform.data.reading.arrays import SplitArrays, known_labels
from avplatform.data.reading.shards import LocalShards
from avplatform.data.reading.source import Data, DataSource
from avplatform.data.reading.streaming import table_columns
from avplatform.data.store.schema import BACKGROUND, CATEGORY, DataSpec
from avplatform.models.errors import DataError
from avplatform.tasks.batch import Batch


class RestrictedData(Data):
    """A view of data with some of their classes; nothing is copied.

    Args:
        data: data with all classes.
        names: events whose labels are kept, in the store's order; background is always kept.
        holding: keep the clips of these events; default: of `names`. Where the data say what each
            clip was collected for (the label "category"), a clip is of that event, whether or not
            it occurs. Elsewhere it is of the events that it holds, and a clip without any event is
            kept: it is background, whatever is looked for.
        without: leave out the clips of these events.
    """

    def __init__(
        self,
        data: Data,
        names: Sequence[str],
        *,
        holding: Sequence[str] | None = None,
        without: Sequence[str] = (),
    ) -> None:
        self.source, self._open = data, dict[str, RestrictedSplit]()
        known = data.spec.classes
        self._columns = [n for n, name in enumerate(known) if name in set(names)]
        self._holding = [
            n for n, name in enumerate(known) if name in set(names if holding is None else holding)
        ]
        self._without = [n for n, name in enumerate(known) if name in set(without)]
        spec = restricted_spec(data.spec, self._columns)
        super().__init__(spec, checksum=data.checksum, splits=data.splits)

    @property
    def store(self) -> DataSource:
        """The whole store, with all classes."""
        return self.source.store

    def split_name(self, name: str) -> str:
        """Return the stored name of a split of the source, which must not be empty."""
        return self.source.split_name(name)

    def split(self, name: str) -> RestrictedSplit:
        """Return the view of a split.

        Raises:
            UsageError: there is no such split.
            DataError: no clip of the split is left.
        """
        found = self._restricted(name)
        if not len(found):
            raise DataError(
                f"no clip of the split '{found.name}' of '{self.name}' holds one of the chosen "
                "classes; choose others"
            )
        return found

    def rows(self, name: str) -> int:
        """Return the number of clips that are left of a split."""
        return len(self._restricted(name))

    def _restricted(self, name: str) -> RestrictedSplit:
        name = self.split_name(name)
        if name not in self._open:
            whole = self.source.split(name)
            if CATEGORY in known_labels(whole.spec, whole.name):
                category = whole.labels(CATEGORY)
                keep = np.isin(category, self._holding) & ~np.isin(category, self._without)
            else:
                present = classes_present(whole)
                keep = np.asarray(present[:, self._holding].any(axis=1))
                if keep.any():
                    keep |= ~np.asarray(present.any(axis=1))
                keep &= ~np.asarray(present[:, self._without].any(axis=1))
            self._open[name] = RestrictedSplit(
                whole, np.flatnonzero(keep), self._columns, self.spec
            )
        return self._open[name]


class RestrictedSplit(SplitArrays):
    """Some clips of a split, with some classes of their labels."""

    def __init__(
        self, whole: SplitArrays, positions: np.ndarray, columns: Sequence[int], spec: DataSpec
    ) -> None:
        self.spec, self.name, self._whole, self._positions = spec, whole.name, whole, positions
        self.clip_ids = [whole.clip_ids[i] for i in positions]
        self._columns, count = torch.tensor(list(columns)), len(whole.spec.classes)
        self._index = class_numbers(count, self._columns)

    @property
    def rows(self) -> np.ndarray:
        """The unique integer key of every clip that is left."""
        return self._whole.rows[self._positions]

    def labels(self, name: str) -> np.ndarray:
        """Return one label of every clip that is left."""
        values = torch.from_numpy(np.array(self._whole.labels(name)[self._positions]))
        return self._seen(name, values).numpy()

    def columns(self) -> dict[str, np.ndarray]:
        """Return arrays of the clips that are left."""
        found = {name: values[self._positions] for name, values in self._whole.columns().items()}
        return {**found, **{name: self.labels(name) for name in known_labels(self.spec, self.name)}}

    def batch(
        self,
        indices: Sequence[int] | np.ndarray,
        *,
        dtype: torch.dtype = torch.float32,
        labels: Sequence[str] | None = None,
    ) -> Batch:
        """Gather clips by their position among those that are left."""
        batch = self._whole.batch(
            self._positions[np.asarray(indices, dtype=np.int64)], dtype=dtype, labels=labels
        )
        batch.labels = {name: self._seen(name, values) for name, values in batch.labels.items()}
        return batch

    def _seen(self, name: str, values: Tensor) -> Tensor:
        if self.spec.label_dtypes[name] == "int64":
            return self._index[values]
        return values.index_select(-1, self._columns)


def restricted_spec(spec: DataSpec, columns: Sequence[int]) -> DataSpec:
    """Return the specification of a store when only some classes are left.

    Raises:
        DataError: a label is neither a class index nor a map of all classes.
    """
    background = [BACKGROUND] if BACKGROUND in spec.classes else []
    labels = {}
    for name, shape in spec.labels.items():
        if spec.label_dtypes[name] == "int64":
            labels[name] = shape
        elif shape and shape[-1] == len(spec.classes):
            labels[name] = [*shape[:-1], len(columns)]
        else:
            raise DataError(
                f"the label '{name}' of '{spec.name}' has shape {shape}, "
                "which has no axis of classes; use data whose labels have one"
            )
    classes = [*(spec.classes[n] for n in columns), *background]
    kept = [*columns, *(spec.classes.index(name) for name in background)]
    texts = {spelling: [found[n] for n in kept] for spelling, found in spec.texts.items()}
    unseen = [name for name in spec.unseen if name in classes]
    return dataclasses.replace(spec, classes=classes, labels=labels, texts=texts, unseen=unseen)


def classes_present(split: SplitArrays) -> np.ndarray:
    """Return which events each clip holds by any of its known labels; background does not count.

    What a clip was collected for says nothing of what it holds.

    Shape: bool [N, C], C classes of the store.
    """
    known = {name: split.labels(name) for name in known_labels(split.spec, split.name)}
    return present_by(split.spec, known, len(split))


def clips_per_class(data: Data, splits: Sequence[str], *, mapped: bool = True) -> dict[str, int]:
    """Return how many clips of some splits hold each event, by any label with an axis of classes.

    Args:
        data: the data.
        splits: the splits; those that the data lack are left out.
        mapped: read mapped arrays; False reads the labels from the shards of a local store, and
            returns {} for a store on the Hub.
    """
    counts = np.zeros(len(data.spec.classes), int)
    for name in (split for split in splits if split in data.splits):
        spec = data.spec
        labels = [label for label in known_labels(spec, name) if _tells_classes(spec, label)]
        if mapped:
            arrays = data.split(name)
            known = {label: arrays.labels(label) for label in labels}
        elif isinstance(data, DataSource) and isinstance(data.shards, LocalShards):
            files = [data.path / shard.file for shard in data.manifest.splits[name].shards]
            tables = [pq.read_table(arrow_path(file), columns=labels) for file in files]
            known = table_columns(spec, pa.concat_tables(tables))
        else:
            return {}
        if not known:
            return {}
        counts += present_by(spec, known, data.rows(name)).sum(axis=0)
    found = dict(zip(data.spec.classes, counts.tolist(), strict=True))
    return {name: count for name, count in found.items() if name != BACKGROUND}


def _tells_classes(spec: DataSpec, label: str) -> bool:
    shape = spec.labels[label]
    return spec.label_dtypes[label] == "int64" or shape[-1:] == [len(spec.classes)]


def class_numbers(count: int, columns: Tensor, added: int = 0) -> Tensor:
    """Return the new numbers of classes of which only those of some columns are left: [count].

    A removed class becomes background, the last, as in the segments of a clip that also holds a
    class that is left. `added` new classes stand before background.
    """
    numbers = torch.full((count,), len(columns) + added, device=columns.device)
    numbers[columns] = torch.arange(len(columns), device=columns.device)
    return numbers


def present_by(spec: DataSpec, labels: Mapping[str, np.ndarray], clips: int) -> np.ndarray:
    """Return which events some clips hold by their labels; see `classes_present`."""
    present = np.zeros((clips, len(spec.classes)), bool)
    for name, values in labels.items():
        if name == CATEGORY:
            continue
        if spec.label_dtypes[name] == "int64":
            rows = np.repeat(np.arange(clips), int(np.prod(values.shape[1:])))
            present[rows, values.reshape(-1)] = True
        else:
            present |= values.reshape(clips, -1, values.shape[-1]).any(axis=1)
    if BACKGROUND in spec.classes:
        present[:, spec.classes.index(BACKGROUND)] = False
    return present
