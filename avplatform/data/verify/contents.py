"""Check the shards of a store row group by row group: values, labels, clips and checksum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from avplatform.base.files import arrow_path
from avplatform.data.adapters.registry import adapter_of_spec
from avplatform.data.reading.array_record import RECORD
from avplatform.data.reading.arrays import array_folder, table_columns
from avplatform.data.reading.shards import check_shard
from avplatform.data.store.checksum import ContentDigest
from avplatform.data.store.schema import DataSpec, Manifest, Shard, bad_clips, what_is_bad
from avplatform.data.store.writer import arrow_schema
from avplatform.data.verify.identity import ClipIndex
from avplatform.data.verify.listed import ListedLabels
from avplatform.data.verify.mapped import MappedArrays, leftovers
from avplatform.data.verify.official import OfficialLabels
from avplatform.data.verify.report import VerifyReport
from avplatform.data.verify.statistics import LabelCounts
from avplatform.models.errors import DataError
from avplatform.tasks.contracts import Odd
from avplatform.tasks.registry import TASKS


class Contents:
    """Checks the shards of a store.

    Args:
        store: folder of the shards.
        manifest: the store's manifest, which the shards must match.
        report: report to which findings are added.
        fast: only check sizes and footers.
        official: official or listed labels to compare with.
        cache_dir: folder of mapped arrays, if not in the store.
        progress: called with the finished share of bytes.
    """

    def __init__(
        self,
        store: Path,
        manifest: Manifest,
        report: VerifyReport,
        *,
        fast: bool = False,
        official: OfficialLabels | ListedLabels | None = None,
        cache_dir: Path | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        self.store, self.manifest, self.report = store, manifest, report
        self.fast, self.official = fast, official
        self.schema = arrow_schema(manifest.spec, manifest.dtype)
        self.arrays = array_folder(store, manifest, cache_dir)
        self._progress = progress or (lambda share: None)
        self._index, self._digest = ClipIndex(), ContentDigest(manifest.spec)
        self._counts = LabelCounts(manifest.spec)
        self._all = True  # whether all shards so far could be read to their end

    def check(self) -> None:
        """Check each shard, and then what only all shards together show."""
        splits = self.manifest.splits.values()
        total = max(1, sum(shard.bytes for info in splits for shard in info.shards))
        done, mapped = 0, []
        for split, info in self.manifest.splits.items():
            arrays = None
            if not self.fast and (self.arrays / split / RECORD).exists():
                folder = self.arrays / split
                place = _without(str(folder), self.store)
                arrays = MappedArrays(
                    folder, place, self.manifest.spec, split, info.rows, self.report
                )
                mapped.append(split)
            for shard in info.shards:
                whole = self._shard(split, shard, arrays)
                if not whole and arrays is not None:
                    arrays.close()
                self._all &= whole
                done += shard.bytes
                self._progress(done / total)
            if arrays is not None:
                arrays.close()
        if self.fast:
            return
        if self.store in self.arrays.parents:  # a cache also holds arrays of other stores
            leftovers(self.arrays, self.store, self.report)
        self.report.counts["mapped arrays"] = (
            f"compared with the shards: {', '.join(mapped)}" if mapped else "none"
        )
        self._counts.report(self.report)
        self._index.check(adapter_of_spec(self.manifest.spec), self.report)
        self._checksum()

    def _shard(self, split: str, shard: Shard, arrays: MappedArrays | None) -> bool:
        """Check a shard; return whether it could be read to its end."""
        where = {"file": shard.file, "split": split}
        try:
            file = check_shard(self.store, shard, self.schema, contents=not self.fast)
        except DataError as error:
            self.report.error("damaged shard", _without(str(error), self.store), **where)
            try:  # if only the sha256 differs, go on and look for the bad value
                file = check_shard(self.store, shard, self.schema)
            except DataError:
                return False
        if self.fast:
            return True
        group = 0
        try:
            with pq.ParquetFile(arrow_path(file)) as parquet:
                if extra := set(parquet.schema_arrow.names) - set(self.schema.names):
                    self.report.warn("unknown columns", ", ".join(sorted(extra)), **where)
                for group in range(parquet.num_row_groups):
                    table = parquet.read_row_group(group, columns=self.schema.names)
                    if not self._table(split, shard.file, table, arrays):
                        return False
        except (OSError, ValueError, pa.ArrowException) as error:
            # A clip id that is not UTF-8 raises ValueError.
            text = f"row group {group} cannot be read ({str(error).splitlines()[0][:120]})"
            self.report.error("damaged shard", text, **where)
            return False
        return True

    def _table(self, split: str, file: str, table: pa.Table, arrays: MappedArrays | None) -> bool:
        if holes := [name for name in table.column_names if _has_nulls(table.column(name))]:
            self.report.error(
                "missing values", f"{', '.join(holes)} has empty entries", file=file, split=split
            )
            return False
        spec, ids = self.manifest.spec, table.column("clip_id").to_pylist()
        columns = table_columns(spec, table)
        odd = [
            (
                "error",
                "label out of range" if name in spec.labels else "NaN or infinite values",
                int(i),
                f"{name} {what_is_bad(spec, name)}",
            )
            for name in spec.shapes()
            for i in np.flatnonzero(bad_clips(spec, name, columns[name]))
        ]
        for level, kind, i, text in [*odd, *contradictions(spec, split, columns)]:
            add = self.report.error if level == "error" else self.report.warn
            add(kind, text, file=file, split=split, row=int(columns["row"][i]), clip_id=ids[i])
        self._index.add(split, file, ids, columns)
        self._counts.add(split, columns)
        self._digest.update(split, table)
        if self.official is not None:
            self.official.compare(split, file, ids, columns)
        if arrays is not None:
            arrays.compare(ids, columns)
        return True

    def _checksum(self) -> None:
        if self.manifest.version < 2:
            self.report.counts["checksum"] = (
                f"{self.manifest.checksum} (of version 1, which cannot be computed again)"
            )
        elif not self._all:
            self.report.counts["checksum"] = "not computed, as not all shards could be read"
        elif (found := self._digest.hexdigest()) != self.manifest.checksum:
            text = (
                f"it is {found}, in dataset.json {self.manifest.checksum}: "
                "the clips are not the ones that were written"
            )
            self.report.error("checksum of the contents", text, file="dataset.json")
        else:
            self.report.counts["checksum"] = found


def contradictions(spec: DataSpec, split: str, columns: dict[str, np.ndarray]) -> Iterator[Odd]:
    """Yield the clips whose labels contradict each other, or are set where none is known."""
    known = {}
    for name in spec.labels:
        if spec.known(name, split):
            known[name] = columns[name]
            continue
        text = f"{name} is not known in {split}, and is not zero"
        for i in np.flatnonzero(columns[name].reshape(len(columns["row"]), -1).any(axis=1)):
            yield "error", "label where none is known", int(i), text
    if spec.task in TASKS:
        yield from TASKS[spec.task].odd_labels(spec.classes, known)


def _has_nulls(column: pa.ChunkedArray) -> bool:
    """Return whether a column, or a list in it, has an entry without a value."""
    if column.null_count:
        return True
    return pa.types.is_fixed_size_list(column.type) and any(
        chunk.flatten().null_count for chunk in column.chunks
    )


def _without(text: str, folder: Path) -> str:
    """Return a message without a folder's path, which the report names elsewhere."""
    return text.replace(f"{folder}/", "")
