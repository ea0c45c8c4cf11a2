"""Notes of items that were done, so that a second run does not do them again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avplatform.models.files import write_atomic
from avplatform.scale.child import Work
from avplatform.version import __version__


@dataclass(kw_only=True)
class Notes:
    """One file per item in a hidden folder, named by what the result depends on.

    Args:
        folder: the hidden folder, which all nodes share.
        made_by: JSON value: the options on which all results depend.
    """

    folder: Path
    made_by: Any

    def key(self, *item: Any) -> str:
        """Return the key of an item: of its own values, the options and the version."""
        text = json.dumps([__version__, self.made_by, *item], sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32]

    def read(self, key: str) -> str | None:
        """Return what was noted of an item, or None."""
        try:
            return (self.folder / key).read_text(encoding="utf-8")
        except OSError:
            return None

    def taking(self, work: Work) -> Callable[[dict[str, Any]], str]:
        """Return the work that also notes what it has returned."""

        def noted(item: dict[str, Any]) -> str:
            text = self.read(item["key"])
            if text is None:
                text = work(item)
                write_atomic(self.folder / item["key"], text)
            return text

        return noted

    def remove(self) -> None:
        """Remove all notes."""
        shutil.rmtree(self.folder, ignore_errors=True)
