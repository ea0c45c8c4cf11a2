"""The import of datasets, as their authors published them, into stores."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

from avplatform.base.read_ahead import read_ahead
from avplatform.data.adapters.official_files import Defect
from avplatform.data.adapters.options import ImportOptions as AnyOptions
from avplatform.data.adapters.plan import LeftOut, Plan, is_repeated
from avplatform.data.adapters.registry import DATASETS
from avplatform.data.importing.options import ImportOptions
from avplatform.data.importing.report import REPORT_FILE, ImportReport
from avplatform.data.store.schema import Manifest
from avplatform.data.store.writer import StoreWriter
from avplatform.models.errors import DataError
from avplatform.models.paths import expanded
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
    """Write a store of a dataset's official files, without clips that are faulty or in no split.

    The report lists each clip that is left out. A clip in no split is not a fault, so `strict` does
    not refuse it; a missing or bad feature is one.

    An import that was stopped resumes after its last finished shard when it is started again with
    the same options and sources.

    Args:
        options: what to import, and how.
        card: makes README.md from the manifest.
        note: called with messages for the user while the import runs.
        progress: called with the number of finished clips and the number of all clips.
        rows_per_shard: clips per shard; default: as many as 128 MiB hold.

    Returns:
        The report, which is also stored as import_report.json. `written` is False if `strict`
        refused the import.

    Raises:
        UsageError: the options contradict each other, or the folder is not empty.
        DataError: the sources are missing or malformed as a whole, no clip can be stored, the disk
            is full, or another process imports to the same folder.
    """
    if not expanded(options.source).is_dir():
        raise DataError(f"no folder {options.source}; give the folder of the dataset's files")
    plan = DATASETS[options.dataset].plan(options)
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
    with StoreWriter(
        options.out,
        plan.spec,
        dtype=options.dtype,
        card=card,
        rows_per_shard=rows_per_shard,
        resume=hashlib.sha256(key.encode()).hexdigest(),
        note=note,
    ) as writer:
        rows = _copy(plan, writer, options, progress)
        bad = [LeftOut(**remark["left_out"]) for remark in writer.remarks if "left_out" in remark]
        report.left_out, report.in_no_split = bad + plan.left_out, len(plan.left_out)
        odd = [Defect(**remark["defect"]) for remark in writer.remarks if "defect" in remark]
        seen = set[tuple[str, str]]()
        report.defects = plan.defects + [item for item in odd if not is_repeated(item, seen)]
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


def _copy(
    plan: Plan,
    writer: StoreWriter,
    options: AnyOptions,
    progress: Callable[[int, int], None] | None,
) -> set[int]:
    """Read and add the clips that earlier attempts have not stored; return all stored rows."""
    total, done = sum(map(len, plan.splits.values())), 0
    rows: set[int] = set()
    starts: dict[str, int] = {}
    for split, order in plan.splits.items():
        stored, closed = writer.stored(split)
        rows.update(stored.tolist())
        last = order.tolist().index(stored[-1]) + 1 if len(stored) else 0
        starts[split] = len(order) if closed else last
    # Clips after the last finished shard are read again, so drop what was found in them.
    writer.remarks = [r for r in writer.remarks if r["position"] < starts[r["split"]]]
    failed = any("left_out" in remark for remark in writer.remarks)
    workers = (options.workers or min(MOST_WORKERS, os.cpu_count() or 1)) if plan.parallel else 1
    for split, order in plan.splits.items():
        done += starts[split]
        blocks = [
            range(at, min(at + plan.block, len(order)))
            for at in range(starts[split], len(order), plan.block)
        ]
        # With `workers` blocks ahead, no more of them are in memory.
        jobs = [partial(plan.read, split, block, options.dtype) for block in blocks]
        parts = read_ahead(jobs, workers, ahead=workers)
        for block in blocks:
            part = next(parts)
            writer.remarks += [
                {"split": split, "position": position, kind: asdict(item)}
                for kind, found in (("left_out", part.left_out), ("defect", part.defects))
                for position, item in found
            ]
            failed |= bool(part.left_out)
            if part.columns is not None:
                rows.update(part.columns["row"].tolist())
                # With `strict`, nothing is written after a fault; the rest is only checked.
                if not (options.strict and failed):
                    writer.add(split, part.columns)
            done += len(block)
            del part  # free its memory before the next one is read
            if progress is not None:
                progress(done, total)
        if not (options.strict and failed) and starts[split] < len(order):
            writer.close_split(split)
    return rows


__all__ = ["ImportOptions", "ImportReport", "import_data"]
