"""Notes of items that were done, so that a second run does not do them again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avplatform.base.files import write_file
from avplatform.base.places import PlaceError, Remote, StoppedError, stopping
from avplatform.models.errors import DataError
from avplatform.scale.child import Work
from avplatform.version import __version__


@dataclass(kw_only=True)
class Notes:
    """One file per item in a hidden folder, named by what the result depends on.

    Args:
        folder: the hidden folder, which all nodes share, or its address.
        made_by: JSON value: the options on which all results depend.
    """

    folder: Path | Remote
    made_by: Any

    def key(self, *item: Any) -> str:
        """Return the key of an item: of its own values, the options and the version."""
        text = json.dumps([__version__, self.made_by, *item], sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32]

    def known(self) -> set[str]:
        """Return the keys of all items that are noted."""
        files = self.folder.iterdir() if self.folder.is_dir() else []
        # A file that was being written when its process was killed begins with a dot.
        return {file.name for file in files if not file.name.startswith(".")}

    def read(self, key: str) -> str | None:
        """Return what was noted of an item, or None."""
        try:
            return (self.folder / key).read_bytes().decode()
        except PlaceError:
            raise
        except (OSError, DataError):
            return None

    def forget(self, key: str) -> None:
        """Remove the note of an item, if there is one.

        Raises:
            StoppedError: that is impossible.
        """
        note = self.folder / key
        with stopping():
            try:
                note.remove() if isinstance(note, Remote) else note.unlink(missing_ok=True)
            except OSError as error:
                raise self._stopped(error) from None

    def write(self, key: str, text: str) -> None:
        """Note an item.

        Raises:
            StoppedError: that is impossible.
        """
        with stopping():
            try:
                # Another command that ends may remove the folder in this moment.
                with contextlib.suppress(FileNotFoundError):
                    write_file(self.folder / key, text.encode())
                    return
                write_file(self.folder / key, text.encode())
            except OSError as error:
                raise self._stopped(error) from None

    def _stopped(self, error: OSError) -> StoppedError:
        """Return what stops the work where the folder cannot be written."""
        return StoppedError(
            f"cannot write {self.folder}: {error.strerror or error}; run the same command again to "
            "go on"
        )

    def taking(self, work: Work) -> Callable[[dict[str, Any]], str]:
        """Return the work that also notes what it has returned."""

        def noted(item: dict[str, Any]) -> str:
            with stopping():
                text = self.read(item["key"])
            if text is None:
                text = work(item)
                self.write(item["key"], text)
            return text

        return noted

    def remove(self) -> None:
        """Remove all notes."""
        if isinstance(self.folder, Remote):
            self.folder.remove()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
