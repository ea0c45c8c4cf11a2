"""Open a dataset by the name that a user gives: demo, a folder, or a hub id."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avplatform.base.files import cache_root
from avplatform.data.reading.arrays import SplitArrays, open_split
from avplatform.data.reading.loader import BatchOptions, Loader, TrainLoader
from avplatform.data.reading.shards import HubShards, LocalShards, Shards
from avplatform.data.reading.streaming import StreamLoader
from avplatform.data.store.schema import DataSpec, Manifest
from avplatform.models.errors import DataError, UsageError, counted, nearest
from avplatform.models.paths import expanded, may_be_hub_id

if TYPE_CHECKING:
    import datasets

UNLABELLED = (
    "; it has no labels: `avplatform extract --annotations DIR` takes labels and splits from the "
    "official files, and `--events FILE` from a table of events"
)
ALIASES = {"val": "validation", "valid": "validation", "dev": "validation"}


class Data(ABC):
    """Data of runs and evaluations: a whole store or a view of one.

    Args:
        spec: specification of the contents.
        checksum: checksum of the store's contents.
        splits: names of the splits.
    """

    def __init__(self, spec: DataSpec, *, checksum: str, splits: Sequence[str]) -> None:
        self.spec, self.checksum, self.splits = spec, checksum, list(splits)
        self.name, self.synthetic = spec.name, spec.synthetic

    @property
    @abstractmethod
    def store(self) -> DataSource:
        """The whole store."""

    @abstractmethod
    def split_name(self, name: str) -> str:
        """Return the stored name of a split, which must not be empty; "val" means "validation"."""

    @abstractmethod
    def split(self, name: str) -> SplitArrays:
        """Return a mapped split; "val" means "validation".

        Raises:
            UsageError: there is no such split; suggests the nearest name.
            DataError: the split is empty or its shards are damaged.
        """

    @abstractmethod
    def rows(self, name: str) -> int:
        """Return the number of clips in a split."""


class DataSource(Data):
    """A store and its splits.

    Args:
        path: the store's folder; for a store on the Hub, the local folder of its small files.
        manifest: the store's manifest.
        hub: (repository, commit) of a store on the Hub, whose shards are streamed, or downloaded
            when a split is needed.
        cache_dir: folder for mapped arrays.
        progress: called with a message before and after slow steps.
        why_mapped: why splits are mapped, for these messages.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        *,
        hub: tuple[str, str] | None = None,
        cache_dir: Path | None = None,
        progress: Callable[[str], None] | None = None,
        why_mapped: str = "",
    ) -> None:
        super().__init__(manifest.spec, checksum=manifest.checksum, splits=list(manifest.splits))
        self.path, self.manifest, self.why_mapped = path, manifest, why_mapped
        self.shards: Shards = (
            LocalShards(path, manifest) if hub is None else HubShards(*hub, manifest, cached=path)
        )
        self.hub, self._progress = hub, progress
        # Mapped arrays stay out of the Hub client's cache, whose commands count and delete files.
        self.cache_dir = cache_root() if hub is not None and cache_dir is None else cache_dir
        self._open: dict[str, SplitArrays] = {}

    @property
    def store(self) -> DataSource:
        """The store itself."""
        return self

    def split(self, name: str) -> SplitArrays:
        """Return a split, which is mapped on first use."""
        name = self.split_name(name)
        if name not in self._open:
            self._open[name] = open_split(
                self.path,
                self.manifest,
                name,
                cache_dir=self.cache_dir,
                fetch=None if self.hub is None else partial(self.fetch, name),
                progress=self._progress,
                why=self.why_mapped,
            )
        return self._open[name]

    def rows(self, name: str) -> int:
        """Return the number of clips in a split according to the manifest."""
        return self.manifest.splits[self.split_name(name)].rows

    def as_dataset(self, name: str) -> datasets.Dataset:
        """Return a split as a map-style Dataset; see `avplatform.data.reading.hf.as_dataset`."""
        from avplatform.data.reading.hf import as_dataset

        return as_dataset(self.split(name), fingerprint=self.manifest.fingerprint)

    def fetch(self, name: str) -> None:
        """Download the shards of one split, if the store is on the Hub."""
        if self.hub is None:
            return
        files = [shard.file for shard in self.manifest.splits[name].shards]
        if self._progress is not None:
            size = sum(shard.bytes for shard in self.manifest.splits[name].shards)
            self._progress(
                f"downloading {name} of {self.hub[0]}: "
                f"{counted(len(files), 'shard')}, {size / 2**20:.0f} MiB"
            )
        download(
            self.hub[0],
            revision=self.hub[1],
            allow_patterns=files,
            # The path is CACHE/datasets--owner--name/snapshots/COMMIT.
            cache_dir=self.path.parents[2],
        )

    def split_name(self, name: str) -> str:
        """Return the stored name of a split, which must not be empty."""
        name = ALIASES.get(name, name)
        if name not in self.manifest.splits:
            known = ", ".join(self.splits)
            hint = "" if self.manifest.spec.labels else UNLABELLED
            raise UsageError(
                f"'{self.name}' has no split '{name}'{nearest(name, self.splits)} "
                f"(splits: {known}){hint}"
            )
        if self.manifest.splits[name].rows == 0:
            raise DataError(f"the split '{name}' of {self.path} is empty")
        return name


def open_data(
    data: str | Path,
    *,
    task: str,
    cache_dir: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
    why_mapped: str = "",
) -> DataSource:
    """Open "demo", a data folder, or a hub dataset id.

    Args:
        data: "demo", a folder, or a hub id.
        task: the task for which the data must be.
        cache_dir: folder for mapped arrays and downloads.
        progress: called with a message before and after slow steps.
        why_mapped: why splits are mapped, for these messages.

    Raises:
        DataError: the data do not exist, are not in the platform's format, or cannot be downloaded.
        UsageError: the data are for another task.
    """
    cache, hub = expanded(cache_dir) if cache_dir is not None else None, None
    if str(data) == "demo":
        from avplatform.data.simulate.demo import demo_store

        path = demo_store(task, cache_dir=cache, progress=progress)
    else:
        path, hub = locate_store(str(data), cache, progress)
    manifest = Manifest.read(path)
    if manifest.spec.task != task:
        wanted = f"give data for {task}, or a run with --task {manifest.spec.task}"
        raise UsageError(f"the data in {path} are for {manifest.spec.task}, not {task}; {wanted}")
    return DataSource(
        path, manifest, hub=hub, cache_dir=cache, progress=progress, why_mapped=why_mapped
    )


def train_loader(
    data: Data,
    splits: Sequence[str],
    *,
    streaming: bool = False,
    num_workers: int = 0,
    batch_size: int,
    seed: int,
    shuffle: bool = True,
    drop_last: bool = False,
    order: str = "default",
    process_index: int = 0,
    num_processes: int = 1,
) -> Loader:
    """Return the loader of the training splits.

    Splits after the first one (e.g. background) are optional and skipped if the data lack them.
    """
    names = [data.split_name(name) for name in splits if name == splits[0] or name in data.splits]
    batches: BatchOptions = {
        "batch_size": batch_size,
        "seed": seed,
        "shuffle": shuffle,
        "drop_last": drop_last,
        "num_workers": num_workers,
        "process_index": process_index,
        "num_processes": num_processes,
    }
    if streaming:
        if order != "default":
            raise UsageError(f"--batch-order {order} needs mapped data; leave out --streaming")
        if not isinstance(data, DataSource):
            raise UsageError(
                "--streaming cannot read some classes of a store, only all of them; leave it out"
            )
        return StreamLoader(data.shards, data.manifest, names, **batches)
    return TrainLoader([data.split(name) for name in names], order=order, **batches)


def locate_store(
    data: str, cache: Path | None = None, progress: Callable[[str], None] | None = None
) -> tuple[Path, tuple[str, str] | None]:
    """Return the folder of a store, and its repository and commit if it is on the Hub."""
    path = expanded(data)
    if path.is_dir() or not may_be_hub_id(data):
        return path, None
    if progress is not None:
        progress(f"'{data}' is not a folder; looking for it on the Hub")
    path = download(data, ignore_patterns=["*.parquet"], cache_dir=cache and cache / "hub")
    return path, (data, path.name)  # the client's cache names a snapshot's folder after its commit


def download(repo_id: str, **options: Any) -> Path:
    """Download files of a dataset repository and return their folder.

    Raises:
        DataError: the repository or the Hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    from avplatform.base.hub_errors import FAILURES, explain

    try:
        return Path(snapshot_download(repo_id, repo_type="dataset", **options))
    except FAILURES as error:
        raise DataError(
            f"'{repo_id}' is not a data folder, and cannot be read from the Hub: {explain(error)}"
        ) from None
