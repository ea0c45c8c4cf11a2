"""Places of files: paths on this machine, and objects at URLs such as s3://, gs:// and hf://.

A `Remote` has the methods of `pathlib.Path` that the platform needs of both, so that code which
reads and writes a store takes either. The URLs are read by fsspec, which is imported on first use.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from avplatform.models.errors import DataError, UsageError, one_line
from avplatform.models.paths import URL, expanded


class PlaceError(DataError):
    """An object store cannot be asked, which says nothing about the object."""


class StoppedError(UsageError):
    """Work cannot go on, which is no fault of the item that it was at."""

    exit_code = 1


def located(place: str | Path | Remote) -> Path | Remote:
    """Return a place that the user gave: a URL, or a path with ~ expanded."""
    if isinstance(place, str) and URL.fullmatch(place):
        return Remote(place)
    return place if isinstance(place, Remote) else expanded(place)


class Remote:
    """An object of an object store, or the common beginning of the names of several, like a folder.

    Args:
        url: the address, such as s3://BUCKET/FOLDER.
        about: what a listing said of the object.

    Raises:
        UsageError: no installed package reads such addresses.
    """

    def __init__(self, url: str, about: dict[str, Any] | None = None) -> None:
        scheme, _, rest = url.partition("://")
        self.url = f"{scheme}://{rest.rstrip('/')}"
        self._about = about
        self.scheme, self._path = scheme, PurePosixPath(rest)
        self.key = rest.rstrip("/")
        """The name of the object in its file system: the bucket, and the path in it."""
        if len(self._path.parts) < 1:
            raise UsageError(f"{url} names no bucket; give {scheme}://BUCKET/FOLDER")

    @cached_property
    def system(self) -> Any:
        """The file system of fsspec."""
        try:
            import fsspec

            with remote_errors(self):
                system, key = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            text = one_line(error)
            raise UsageError(
                f'{self.url} cannot be read ({text}); pip install "avplatform[scale]" reads s3://, '
                "and gcsfs gs://"
            ) from None
        if self.key.startswith("/") or key.strip("/") != self.key:  # a disk or a server of files
            raise UsageError(
                f"{self.url}: such addresses cannot be used; give s3://, gs:// or hf://, or a path"
            )
        return system

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self._path.name

    @property
    def stem(self) -> str:
        """The last part of the address, without its suffix."""
        return self._path.stem

    @property
    def suffix(self) -> str:
        """The suffix of the last part of the address."""
        return self._path.suffix

    def with_name(self, name: str) -> Remote:
        """Return the place beside this one that has another name."""
        if len(self._path.parts) < 2:
            raise UsageError(f"{self.url} is a whole bucket; give a folder in it")
        return Remote(f"{self.scheme}://{self._path.with_name(name)}")

    def __truediv__(self, name: str) -> Remote:
        return Remote(f"{self.url}/{name}")

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"Remote({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __reduce__(self) -> tuple[type[Remote], tuple[str]]:
        return Remote, (self.url,)

    def resolve(self) -> Remote:
        """Return the place itself; there are no links."""
        return self

    def parts_after(self, folder: Remote) -> tuple[str, ...]:
        """Return the parts of the address below a folder."""
        return self._path.relative_to(folder._path).parts

    def exists(self) -> bool:
        """Return whether there is an object of this name, or one whose name begins with it."""
        with remote_errors(self):
            return bool(self.system.exists(self.key))

    def is_file(self) -> bool:
        """Return whether there is an object of this name."""
        with remote_errors(self):
            self.system.invalidate_cache()
            return bool(self.system.isfile(self.key))

    def is_dir(self) -> bool:
        """Return whether there are objects below this place, as in a folder."""
        with remote_errors(self):
            self.system.invalidate_cache()
            return bool(self.system.isdir(self.key))

    def about(self) -> dict[str, Any]:
        """Return what the file system says of the object: "size", and further values of its own."""
        if self._about is None:
            with remote_errors(self):
                self._about = self.system.info(self.key)
        return self._about

    def iterdir(self) -> list[Remote]:
        """Return the objects that lie directly in this folder."""
        return self.files(depth=1)

    def files(self, *, depth: int | None = None) -> list[Remote]:
        """Return all objects below this place, in the order in which paths are sorted.

        Args:
            depth: most parts of their names below this place; default: any number.
        """
        with remote_errors(self):
            self.system.invalidate_cache()
            found = self.system.find(self.key, maxdepth=depth, detail=True)
        every = [
            Remote(f"{self.scheme}://{key.lstrip('/')}", about)
            for key, about in found.items()
            if not key.endswith("/")  # what a web page of the store leaves where it made a folder
        ]
        return sorted(every, key=lambda file: file._path.parts)

    def read_bytes(self) -> bytes:
        """Return the content of the object."""
        with remote_errors(self):
            return bytes(self.system.cat_file(self.key))

    def write(self, content: bytes | Path, *, new: bool = False) -> None:
        """Write the object whole, from bytes or a file.

        Raises:
            FileExistsError: it should be `new` and is there. S3 checks this in one step; a store
                that cannot do so may miss an object that is written in the same moment.
        """
        mode = {"mode": "create"} if new else {}
        with remote_errors(self):
            if isinstance(content, Path):
                self.system.put_file(str(content), self.key, **mode)
            else:
                self.system.pipe_file(self.key, content, **mode)

    def fetch(self, folder: Path) -> Path:
        """Copy the object into a local folder, under its own name."""
        with remote_errors(self):
            self.system.get_file(self.key, str(folder / self.name))
        return folder / self.name

    def remove(self) -> None:
        """Remove the object, or all objects below this place, if there are any."""
        with remote_errors(self), contextlib.suppress(FileNotFoundError):
            self.system.rm(self.key, recursive=True)


def identity(place: Path | Remote) -> list[Any]:
    """Return what tells a file from an earlier one of the same name, without reading it.

    That is its absolute path or URL, its size, and the time of its last change, or the tag that an
    object store gives to a content.
    """
    if isinstance(place, Remote):
        about = place.about()
        names = ("ETag", "etag", "blob_id", "LastModified", "mtime")
        tags = [about[key] for key in names if key in about]
        return [place.url, about["size"], str(tags[0]) if tags else ""]
    stat = place.stat()
    return [str(place.resolve()), stat.st_size, stat.st_mtime_ns]


@contextlib.contextmanager
def at_hand(place: Path | Remote) -> Iterator[Path]:
    """Give a `with` block a file on this machine: the path itself, or a copy of the object.

    The copy is removed after the block. A DataError of the block names the object, not the copy.
    """
    if isinstance(place, Path):
        yield place
        return
    with TemporaryDirectory(prefix="avplatform-") as folder:
        try:
            yield place.fetch(Path(folder))
        except PlaceError:
            raise
        except DataError as error:
            text = str(error).replace(str(Path(folder) / place.name), str(place))
            raise DataError(text) from None


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Turn a PlaceError of a block into a StoppedError, so that no item is blamed for it."""
    try:
        yield
    except PlaceError as error:
        raise StoppedError(f"{error}; run the same command again to go on") from None


@contextlib.contextmanager
def remote_errors(place: Remote) -> Iterator[None]:
    """Turn the errors of an object store in a block into a DataError that names the place."""
    try:
        yield
    except (FileExistsError, UsageError, ImportError):
        raise
    except FileNotFoundError:
        raise DataError(f"there is nothing at {place.url}") from None
    except Exception as error:  # each store has errors of its own
        text = one_line(error)
        raise PlaceError(
            f"{place.url} cannot be reached ({text}); check the address and the credentials"
        ) from None
