"""Where the files lie that a dataset's authors published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avplatform.models.errors import DataError
from avplatform.models.paths import expanded

MARKER = "SYNTHETIC.txt"
"""Name of the file that says that a folder of official files was made by code."""


class Source:
    """A folder of official files, which may lie in the folder itself or in its `data/`.

    Args:
        folder: the folder that the user names; `~` is expanded.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = expanded(folder)
        self.places = (self.folder, self.folder / "data")

    def find(self, names: Sequence[str], given: str | None = None) -> Path | None:
        """Return the file or folder that the user gave, or else the first of `names` that exists.

        Raises:
            DataError: the given one does not exist.
        """
        if given is not None:
            path = expanded(given)
            if not path.exists():
                raise DataError(f"{path} does not exist")
            return path
        paths = [place / name for name in names for place in self.places]
        return next((path for path in paths if path.exists()), None)

    def missing(self, name: str, remedy: str) -> DataError:
        """Return the error that says that a file is in neither place, and what to do."""
        return DataError(f"no {name} in {self.places[0]} or {self.places[1]}; {remedy}")

    def place_of(self, name: str, remedy: str) -> Path:
        """Return the place that holds a file.

        Raises:
            DataError: neither place holds it; says what to do.
        """
        for place in self.places:
            if (place / name).is_file():
                return place
        raise self.missing(name, remedy)

    def is_synthetic(self, parts: Sequence[Path]) -> bool:
        """Return whether a MARKER lies here, in one of the parts, or in a folder above one."""
        places = set(self.places)
        for part in parts:
            places |= {part, *list(part.resolve().parents)[:3]}
        return any((place / MARKER).is_file() for place in places)
