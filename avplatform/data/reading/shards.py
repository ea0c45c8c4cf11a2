"""Read parquet shards from a folder, or from a dataset repository on the Hub in place."""

from __future__ import annotations

import glob
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from avplatform.base.files import arrow_path
from avplatform.data.store.schema import Manifest, Shard
from avplatform.data.store.writer import arrow_schema
from avplatform.models.errors import DataError, counted
from avplatform.models.files import file_sha256

REMEDY = "copy or write the data again"
FETCHERS = 8  # number of footers that are fetched at once


class Shards(Protocol):
    """The shards of a store, which are read one row group at a time."""

    def footers(self, shards: list[Shard]) -> list[pq.FileMetaData]:
        """Check that shards exist and match the manifest, and return their footers."""
        ...

    def read(self, shard: Shard, start: int, size: int) -> bytes:
        """Return a part of a shard."""
        ...

    def urls(self, shards: list[Shard]) -> list[str]:
        """Return the shards' addresses for `datasets`."""
        ...

    def failure(self, shard: Shard, error: BaseException) -> DataError:
        """Return the error to raise for a shard that cannot be read."""
        ...


class LocalShards:
    """Shards in a folder."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.schema = folder, arrow_schema(manifest.spec, manifest.dtype)

    def footers(self, shards: list[Shard]) -> list[pq.FileMetaData]:
        """Check the shards and return their footers."""
        return [
            pq.read_metadata(arrow_path(check_shard(self.folder, shard, self.schema)))
            for shard in shards
        ]

    def read(self, shard: Shard, start: int, size: int) -> bytes:
        """Return a part of a shard."""
        with (self.folder / shard.file).open("rb") as file:
            file.seek(start)
            return file.read(size)

    def urls(self, shards: list[Shard]) -> list[str]:
        """Return absolute paths, escaped because `datasets` expands patterns."""
        return [glob.escape(str(arrow_path(self.folder / shard.file))) for shard in shards]

    def failure(self, shard: Shard, error: BaseException) -> DataError:
        """Name the file and the reason."""
        return DataError(f"{self.folder / shard.file} cannot be read ({error}); {REMEDY}")


class UnreachableError(DataError):
    """The Hub could not be asked about shards, which says nothing about the shards."""


class HubShards:
    """Shards of a dataset repository at one commit, read in ranges over HTTP and not stored.

    Where the Hub cannot be reached, shards that lie in its client's cache are read from there.

    Args:
        repo_id: the repository.
        revision: the commit.
        manifest: the store's manifest.
        cached: the commit's folder in the cache.
    """

    def __init__(
        self, repo_id: str, revision: str, manifest: Manifest, *, cached: Path | None = None
    ) -> None:
        self.repo_id, self.revision = repo_id, revision
        self._cached = LocalShards(cached, manifest) if cached is not None else None
        self._offline = False
        self.schema = arrow_schema(manifest.spec, manifest.dtype)
        self._files: Any = None

    def footers(self, shards: list[Shard]) -> list[pq.FileMetaData]:
        """Check sizes and checksums against the repository's listing, and fetch the footers."""
        from avplatform.base.hub_errors import FAILURES, explain

        try:
            listed = {
                entry["name"].rpartition("/")[2]: entry
                for entry in self._system().ls(self._folder(), detail=True)
            }
        except FAILURES as error:
            local = self._cached
            if local and all((local.folder / shard.file).is_file() for shard in shards):
                self._offline = True
                return local.footers(shards)
            raise UnreachableError(
                f"the shards of {self.repo_id} cannot be listed: {explain(error)}"
            ) from None
        for shard in shards:
            entry = listed.get(shard.file)
            if entry is None:
                raise DataError(f"{self._name(shard)} is missing on the Hub; {REMEDY}")
            if entry["size"] != shard.bytes:
                raise DataError(
                    f"{self._name(shard)} has {entry['size']} bytes, "
                    f"in the manifest {shard.bytes}; {REMEDY}"
                )
            if (large := entry.get("lfs")) and large["sha256"] != shard.sha256:
                raise DataError(
                    f"{self._name(shard)} does not match the manifest "
                    f"(its sha256 differs); {REMEDY}"
                )
        with ThreadPoolExecutor(FETCHERS) as pool:
            return list(pool.map(self._footer, shards))

    def read(self, shard: Shard, start: int, size: int) -> bytes:
        """Return a part of a shard with one request."""
        if self._cached and self._offline:
            return self._cached.read(shard, start, size)
        with self._open(shard) as file:
            file.seek(start)
            return file.read(size)

    def urls(self, shards: list[Shard]) -> list[str]:
        """Return hf:// addresses."""
        if self._cached and self._offline:
            return self._cached.urls(shards)
        return [f"hf://{self._folder()}/{shard.file}" for shard in shards]

    def failure(self, shard: Shard, error: BaseException) -> DataError:
        """Name the shard and the reason."""
        from avplatform.base.hub_errors import explain

        return DataError(f"{self._name(shard)} cannot be read: {explain(error)}")

    def _footer(self, shard: Shard) -> pq.FileMetaData:
        from avplatform.base.hub_errors import FAILURES

        try:
            with self._open(shard) as file, pq.ParquetFile(file) as parquet:
                check_footer(self._name(shard), parquet, shard, self.schema)
                return parquet.metadata
        except (*FAILURES, pa.ArrowException) as error:
            raise self.failure(shard, error) from None

    def _open(self, shard: Shard) -> Any:
        return self._system().open(f"{self._folder()}/{shard.file}", "rb", cache_type="none")

    def _system(self) -> Any:
        if self._files is None:
            from huggingface_hub import HfFileSystem

            self._files = HfFileSystem()
        return self._files

    def _folder(self) -> str:
        return f"datasets/{self.repo_id}@{self.revision}"

    def _name(self, shard: Shard) -> str:
        return f"{self.repo_id}/{shard.file}"


def check_shard(store: Path, shard: Shard, schema: pa.Schema, *, contents: bool = False) -> Path:
    """Check that a shard exists and that its size and footer are right, and return its path.

    Args:
        store: the store's folder.
        shard: the shard's entry in the manifest.
        schema: the columns that the shard must have.
        contents: also compare the sha256, which reads every byte.

    Raises:
        DataError: the shard is missing, or its size, checksum, rows or columns differ.
    """
    file = store / shard.file
    if not file.is_file():
        raise DataError(f"{file} is missing; {REMEDY}")
    if file.stat().st_size != shard.bytes:
        raise DataError(
            f"{file} has {file.stat().st_size} bytes, in the manifest {shard.bytes}; {REMEDY}"
        )
    try:
        if contents and file_sha256(file) != shard.sha256:
            raise DataError(f"{file} does not match the manifest (its sha256 differs); {REMEDY}")
        with pq.ParquetFile(arrow_path(file)) as parquet:
            check_footer(str(file), parquet, shard, schema)
    except DataError:
        raise
    except PermissionError as error:
        raise DataError(f"{file} cannot be read ({error.strerror})") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{file} is not a parquet file ({error}); {REMEDY}") from None
    return file


def check_footer(name: str, parquet: pq.ParquetFile, shard: Shard, schema: pa.Schema) -> None:
    """Raise DataError unless a shard has the manifest's number of rows and the schema's columns."""
    rows = parquet.metadata.num_rows
    found = {field.name: field.type for field in parquet.schema_arrow}
    if rows != shard.rows:
        raise DataError(
            f"{name} holds {counted(rows, 'clip')}, in the manifest {shard.rows}; {REMEDY}"
        )
    for field in schema:
        if found.get(field.name) != field.type:
            kind = found.get(field.name, "not there")
            raise DataError(
                f"{name}: column {field.name} is {kind}, in the manifest {field.type}; {REMEDY}"
            )
