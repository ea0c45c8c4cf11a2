"""Compare the mapped arrays of a store with its shards, reading both front to back."""

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
    """The mapped arrays of one split; only their first difference from the shards is reported.

    Args:
        folder: the split's folder of arrays, which must be complete.
        place: the same folder as reports show it.
        spec: specification of the store.
        split: name of the split.
        rows: number of clips that the arrays must have.
        report: report to which findings are added.
    """

    def __init__(
        self, folder: Path, place: str, spec: DataSpec, split: str, rows: int, report: VerifyReport
    ) -> None:
        self.place, self.split, self.report, self.at = place, split, report, 0
        self._streams: dict[str, Any] = {}
        self._shapes = {"row": (), **spec.shapes()}
        self._kinds: dict[str, np.dtype[Any]] = {}
        try:
            self._ids = json.loads((folder / "clip_id.json").read_text(encoding="utf-8"))
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
            # As bytes, one row per clip, so that a NaN equals itself.
            bits = [
                np.ascontiguousarray(part).reshape(n, -1).view(np.uint8) for part in (found, values)
            ]
            same = np.all(bits[0] == bits[1], axis=1) if kind == values.dtype else np.zeros(n, bool)
            if not same.all():
                first = int(same.argmin())
                return self._differ(
                    f"{name} differs from the shards",
                    row=int(columns["row"][first]),
                    clip_id=ids[first],
                )
        self.at += n

    def close(self) -> None:
        """Close the files, after which nothing is compared."""
        for stream in self._streams.values():
            stream.close()
        self._streams = {}

    def _differ(self, text: str, **where: Any) -> None:
        self.report.error(
            "mapped arrays",
            f"{text}; delete that folder, and it will be built again",
            file=self.place,
            **where,
        )
        self.close()


def leftovers(folder: Path, store: Path, report: VerifyReport) -> None:
    """Warn of folders of mapped arrays that are no longer used; `folder` is the one in use."""
    with contextlib.suppress(OSError):
        for other in sorted(folder.parent.iterdir()):
            if other != folder and other.is_dir():
                text = "nothing reads them; they may be deleted"
                place = str(other.relative_to(store))
                report.warn("mapped arrays of other contents", text, file=place)
