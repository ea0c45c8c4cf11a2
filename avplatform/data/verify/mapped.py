"""The mapped arrays beside a store, compared with its shards in the same pass, and read front to back, never mapped."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.base.npy import NUMBERS, BadFeature, read_header
from avplatform.data.store.schema import DataSpec
from avplatform.data.verify.report import VerifyReport


class MappedArrays:
    """The arrays of one split; a first difference is reported, and nothing after it.

    Args:
        folder: the split's folder, which is complete.
        place: the same as reports show it.
        spec: of the store.
        split: its name.
        rows: clips that it must have.
        report: told what differs.
    """

    def __init__(
        self, folder: Path, place: str, spec: DataSpec, split: str, rows: int, report: VerifyReport
    ) -> None:
        self.place, self.split, self.report, self.at = place, split, report, 0
        self._streams: dict[str, Any] = {}
        self._shapes = {"row": (), **spec.shapes()}
        self._kinds: dict[str, np.dtype[Any]] = {}
        try:
            self._ids = json.loads((folder / "clip_id.json").read_text())
            for name, shape in self._shapes.items():
                stream = self._streams[name] = (folder / f"{name}.npy").open("rb")
                try:
                    header = read_header(stream, (rows, *shape), kinds="b" + NUMBERS)
                except BadFeature as error:
                    raise ValueError(f"{name} {error}") from None
                self._kinds[name] = header[2]
        except (OSError, ValueError, RecursionError) as error:
            self._differ(f"cannot be read ({error})")

    def compare(self, ids: list[str], columns: dict[str, np.ndarray]) -> None:
        """Compare with the next clips of the shards."""
        if not self._streams:
            return
        n = len(ids)
        if self._ids[self.at : self.at + n] != ids:
            return self._differ(f"clip_id differs between clips {self.at} and {self.at + n}")
        for name, stream in self._streams.items():
            values, kind = columns[name], self._kinds[name]
            found = np.fromfile(stream, dtype=kind, count=values.size)
            if found.size < values.size:
                return self._differ(f"{name} ends early")
            same = (
                _bits(found, n) == _bits(values, n)
                if kind == values.dtype
                else np.zeros((n, 1), dtype=bool)
            )
            if not same.all():
                first = int(same.all(axis=1).argmin())
                return self._differ(
                    f"{name} differs from the shards",
                    row=int(columns["row"][first]),
                    clip_id=ids[first],
                )
        self.at += n

    def close(self) -> None:
        """Close the files; nothing is compared any more."""
        for stream in self._streams.values():
            stream.close()
        self._streams = {}

    def _differ(self, text: str, **where: Any) -> None:
        self.report.error(
            "mapped arrays",
            f"{text}; delete that folder, it is built again",
            file=self.place,
            **where,
        )
        self.close()


def leftovers(folder: Path, store: Path, report: VerifyReport) -> None:
    """Warn of arrays of other contents, which nothing reads any more; `folder` of a store is the one in use."""
    with contextlib.suppress(OSError):
        for other in sorted(folder.parent.iterdir()):
            if other != folder and other.is_dir():
                place = str(other.relative_to(store))
                report.warn(
                    "mapped arrays of other contents",
                    "nothing reads them; they may be deleted",
                    file=place,
                )


def _bits(values: np.ndarray, n: int) -> np.ndarray:
    """Return values as bytes, one row a clip, so that a NaN equals itself."""
    return np.ascontiguousarray(values).reshape(n, -1).view(np.uint8)
