"""Open a dataset by what a user calls it: demo, a folder, or a hub id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from avplatform.data.arrays import SplitArrays, open_split
from avplatform.data.loader import Loader, TrainLoader
from avplatform.data.schema import DataSpec, Manifest
from avplatform.data.streaming import StreamLoader
from models.errors import DataError, UsageError, nearest

ALIASES = {"val": "validation", "valid": "validation", "dev": "validation"}


class DataSource:
    """A store and its splits."""

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        *,
        cache_dir: Path | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self.path, self.manifest = path, manifest
        self._cache_dir, self._progress = cache_dir, progress
        self._open: dict[str, SplitArrays] = {}

    @property
    def spec(self) -> DataSpec:
        """What the data hold."""
        return self.manifest.spec

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.spec.name

    @property
    def synthetic(self) -> bool:
        """Whether the features were made up."""
        return self.spec.synthetic

    @property
    def checksum(self) -> str:
        """Checksum of the contents."""
        return self.manifest.checksum

    @property
    def splits(self) -> list[str]:
        """Names of the splits."""
        return list(self.manifest.splits)

    def split(self, name: str) -> SplitArrays:
        """Return a split, mapped; "val" is understood as "validation".

        Raises:
            UsageError: no such split; names the nearest.
            DataError: the split is empty or its shards are damaged.
        """
        name = self.split_name(name)
        if name not in self._open:
            self._open[name] = open_split(self.path, self.manifest, name, cache_dir=self._cache_dir, progress=self._progress)
        return self._open[name]

    def split_name(self, name: str) -> str:
        """Return the stored name of a split that exists and is not empty."""
        name = ALIASES.get(name, name)
        if name not in self.manifest.splits:
            known = ", ".join(self.splits)
            raise UsageError(f"'{self.name}' has no split '{name}'{nearest(name, self.splits)} (splits: {known})")
        if self.manifest.splits[name].rows == 0:
            raise DataError(f"the split '{name}' of {self.path} is empty")
        return name


def open_data(
    data: str | Path,
    *,
    task: str,
    cache_dir: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> DataSource:
    """Open "demo", a data folder, or a hub dataset id.

    Args:
        data: the name.
        task: the task that the data must be for.
        cache_dir: where mapped arrays and downloads go.
        progress: told what takes time.

    Raises:
        DataError: nothing there, not in the platform's format, or not to be had from the Hub.
        UsageError: data of another task.
    """
    cache = Path(cache_dir) if cache_dir is not None else None
    if str(data) == "demo":
        from avplatform.data.demo import demo_store

        path = demo_store(task, cache_dir=cache, progress=progress)
    else:
        path = _locate(str(data), cache, progress)
    manifest = Manifest.read(path)
    if manifest.spec.task != task:
        raise UsageError(f"the data in {path} are for {manifest.spec.task}, not {task}; give --task {manifest.spec.task}")
    return DataSource(path, manifest, cache_dir=cache, progress=progress)


def train_loader(
    data: DataSource,
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
    """Return the loader of the training splits; splits that a dataset may lack (AVE's background) are left out if absent."""
    names = [data.split_name(name) for name in splits if name == splits[0] or name in data.splits]
    options: dict[str, Any] = dict(
        batch_size=batch_size,
        seed=seed,
        shuffle=shuffle,
        drop_last=drop_last,
        process_index=process_index,
        num_processes=num_processes,
    )
    if streaming:
        if num_workers:
            raise UsageError("--num-workers does nothing with --streaming, which reads in the main thread; leave it out")
        if order != "default":
            raise UsageError(f"--batch-order {order} needs mapped data; leave out --streaming")
        return StreamLoader(data.path, data.manifest, names, **options)
    return TrainLoader([data.split(name) for name in names], num_workers=num_workers, order=order, **options)


def _locate(data: str, cache: Path | None, progress: Callable[[str], None] | None) -> Path:
    path = Path(data).expanduser()
    if path.is_dir() or data.startswith((".", "/", "~")) or data.count("/") != 1:
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if progress is not None:
        progress(f"'{data}' is no folder here; asking the Hub for it")
    try:
        return Path(snapshot_download(data, repo_type="dataset", cache_dir=cache and cache / "hub"))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"'{data}' is no data folder, and cannot be had from the Hub ({reason})") from None
