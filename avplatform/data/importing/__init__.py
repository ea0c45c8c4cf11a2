"""Datasets as their authors published them, made into stores."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from avplatform.data.adapters.official_files import Defect
from avplatform.data.adapters.options import ImportOptions as AnyOptions
from avplatform.data.adapters.plan import LeftOut, Part, Plan, is_repeated
from avplatform.data.adapters.registry import DATASETS
from avplatform.data.importing.options import ImportOptions
from avplatform.data.importing.report import REPORT_FILE, ImportReport
from avplatform.data.store.schema import Manifest
from avplatform.data.store.writer import StoreWriter
from avplatform.models.errors import DataError
from avplatform.models.files import expanded
from avplatform.version import __version__

MOST_WORKERS = 8


def import_data(
    options: AnyOptions,
    *,
    card: Callable[[Manifest], str] | None = None,
    note: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    rows_per_shard: int | None = None,
) -> ImportReport:
    """Write a store of a dataset's official files; clips with a bad or missing feature or without a split are left out.

    The report lists each of them. Clips that no file of a split names are no fault: `strict` does not refuse them.

    An import that was stopped goes on after its last finished shard when it is started again with the same options and
    sources.

    Args:
        options: what to import, and how.
        card: makes README.md from the manifest.
        note: told what a person should know while it runs.
        progress: told how many clips are done, and of how many.
        rows_per_shard: clips in a shard; by default as many as 128 MiB hold.

    Returns:
        The report, which also lies in the store as import_report.json. `written` is False where `strict` refused.

    Raises:
        UsageError: options that contradict each other, or a folder that is not empty.
        DataError: sources that are missing or malformed as a whole, no clip that could be stored, a full disk, or another
            process that imports to the same folder.
    """
    plan = _plan(options)
    total = {split: len(rows) for split, rows in plan.splits.items()}
    report = ImportReport(
        dataset=options.dataset,
        source=str(expanded(options.source).resolve()),
        options=options.content(),
        clips=total,
        stored={},
        remarks=plan.remarks,
        sources={
            "importer": f"avplatform {__version__}",
            "features_dtype": options.dtype,
            **plan.sources,
        },
    )
    key = json.dumps(
        [__version__, report.source, report.options, rows_per_shard, plan.fingerprint], default=str
    )
    fingerprint = hashlib.sha256(key.encode()).hexdigest()
    writer = StoreWriter(
        options.out,
        plan.spec,
        dtype=options.dtype,
        card=card,
        rows_per_shard=rows_per_shard,
        resume=fingerprint,
        note=note,
    )
    with writer:
        rows = _copy(plan, writer, options, progress)
        found = _Findings(writer.remarks)
        report.left_out, report.in_no_split = found.left_out + plan.left_out, len(plan.left_out)
        report.defects = plan.defects + found.defects
        report.stored = {split: len(set(plan.splits[split].tolist()) & rows) for split in total}
        report.bytes_read = plan.bytes_of(rows)
        if not rows:
            writer.discard()
            first = f" (first: {report.left_out_lines(1)[0]})" if report.bad else ""
            raise DataError(
                f"no clip of {options.source} has all its features{first}; nothing was written"
            )
        if options.strict and report.bad:
            writer.discard()
            return report
        report.written = True
        report.bytes_written = writer.shard_bytes()
        plan.spec.provenance.update(report.provenance())
        writer.attachments[REPORT_FILE] = report.to_json()
    return report


def _plan(options: AnyOptions) -> Plan:
    if not expanded(options.source).is_dir():
        raise DataError(f"no folder {options.source}; give the folder of the dataset's files")
    return DATASETS[options.dataset].plan(options)


def _copy(
    plan: Plan,
    writer: StoreWriter,
    options: AnyOptions,
    progress: Callable[[int, int], None] | None,
) -> set[int]:
    """Read what earlier attempts have not stored, and add it; return the rows that are stored."""
    total, done = sum(map(len, plan.splits.values())), 0
    rows: set[int] = set()
    starts: dict[str, int] = {}
    for split, order in plan.splits.items():
        stored, closed = writer.stored(split)
        rows.update(stored.tolist())
        last = order.tolist().index(stored[-1]) + 1 if len(stored) else 0
        starts[split] = len(order) if closed else last
    # Findings about clips after the last finished shard are made again.
    writer.remarks = [r for r in writer.remarks if r["position"] < starts[r["split"]]]
    failed = any("left_out" in remark for remark in writer.remarks)
    workers = (options.workers or min(MOST_WORKERS, os.cpu_count() or 1)) if plan.parallel else 1
    for split, order in plan.splits.items():
        done += starts[split]
        blocks = [
            range(at, min(at + plan.block, len(order)))
            for at in range(starts[split], len(order), plan.block)
        ]
        for block, part in _read(plan, split, blocks, options.dtype, workers):
            writer.remarks += _remarks(split, part)
            failed |= bool(part.left_out)
            if part.columns is not None:
                rows.update(part.columns["row"].tolist())
                if not (
                    options.strict and failed
                ):  # nothing will be written; the rest is only looked at
                    writer.add(split, part.columns)
            done += len(block)
            del part  # before the next one comes
            if progress is not None:
                progress(done, total)
        if not (options.strict and failed) and starts[split] < len(order):
            writer.close_split(split)
    return rows


def _read(
    plan: Plan, split: str, blocks: list[range], dtype: str, workers: int
) -> Iterator[tuple[range, Part]]:
    """Read blocks on threads and yield them in order: as many blocks as threads are in memory, the yielded one included."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[range, Future[Part]]] = deque()
        try:
            for block in blocks:
                waiting.append((block, pool.submit(plan.read, split, block, dtype)))
                if len(waiting) >= workers:
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)
        finally:
            for _, future in waiting:
                future.cancel()


def _first(waiting: deque[tuple[range, Future[Part]]]) -> tuple[range, Part]:
    """Take the oldest block without leaving a name behind that would keep it in memory."""
    block, future = waiting.popleft()
    return block, future.result()


def _remarks(split: str, part: Part) -> list[dict[str, Any]]:
    """Return what was found as the writer's journal keeps it."""
    out = [
        {"split": split, "position": position, "left_out": asdict(item)}
        for position, item in part.left_out
    ]
    return out + [
        {"split": split, "position": position, "defect": asdict(item)}
        for position, item in part.defects
    ]


class _Findings:
    """What the journal holds, as objects again."""

    def __init__(self, remarks: list[dict[str, Any]]) -> None:
        self.left_out = [
            LeftOut(**remark["left_out"]) for remark in remarks if "left_out" in remark
        ]
        defects, seen = (
            [Defect(**remark["defect"]) for remark in remarks if "defect" in remark],
            set[tuple[str, str]](),
        )
        self.defects = [defect for defect in defects if not is_repeated(defect, seen)]


__all__ = ["ImportOptions", "ImportReport", "import_data"]
