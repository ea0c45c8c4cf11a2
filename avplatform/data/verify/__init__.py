"""Checks that a store matches its manifest, and that its clips and labels make sense."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from avplatform.data.adapters.official_files import Defect
from avplatform.data.adapters.plan import LeftOut
from avplatform.data.adapters.registry import DATASETS, adapter_of_spec
from avplatform.data.importing.report import REPORT_FILE
from avplatform.data.reading.shards import UnreachableError
from avplatform.data.reading.source import DataSource, locate_store
from avplatform.data.store.schema import EXTRACT_REPORT_FILE, LABEL_FILE, MANIFEST_FILE, Manifest
from avplatform.data.verify.against import check_against
from avplatform.data.verify.contents import Contents
from avplatform.data.verify.listed import ListedLabels
from avplatform.data.verify.official import (
    OfficialLabels,
    check_counts,
    check_provenance,
    list_defects,
)
from avplatform.data.verify.report import Finding, VerifyReport
from avplatform.models.errors import DataError, UsageError, counted, unknown_name
from avplatform.tasks.registry import TASKS

OWN_FILES = {
    MANIFEST_FILE,
    REPORT_FILE,
    EXTRACT_REPORT_FILE,
    LABEL_FILE,
    "README.md",
    ".arrays",
    ".gitattributes",
    ".cache",
}


def verify_data(
    data: str | Path,
    *,
    annotations: str | Path | None = None,
    audio_annotations: str | Path | None = None,
    against: str | None = None,
    fast: bool = False,
    note: Callable[[str], None] | None = None,
    progress: Callable[[float], None] | None = None,
) -> VerifyReport:
    """Check a store: files, counts, values, labels, repeated or leaking clips, and checksums.

    Every shard is read once for its sha256 and once row group by row group, so memory does not grow
    with the store. Mapped arrays beside the store are compared with the shards.

    Args:
        data: a folder, or a dataset repository on the Hub, whose shards are downloaded.
        annotations: what all labels are compared with: a folder of official annotation files, or
            the list of events that the labels were made of.
        audio_annotations: a file of dense audio annotations that replaces the one in that folder.
        against: another store; clips of videos that stand in both are named with their splits.
        fast: only check the sizes and footers of shards; with `against`, clip ids are read too.
        note: called with a message before slow steps.
        progress: called with the finished share.

    Raises:
        DataError: there are no data, or annotations or a repository cannot be read.
        UsageError: annotations are given for data of an unknown dataset, or audio annotations
            without annotations or with a list of events.
    """
    if audio_annotations is not None and annotations is None:
        raise UsageError(
            "--audio-annotations replaces one file of --annotations; give that folder too"
        )
    path, hub = locate_store(str(data), progress=note)
    if not path.is_dir():
        raise DataError(
            f"no data folder {path}; give a folder that holds {MANIFEST_FILE}, or a hub id"
        )
    report = VerifyReport(path=str(data), fast=fast)
    try:
        manifest = Manifest.read(path)
    except DataError as error:
        report.error("manifest", str(error).replace(f"{path}/", ""), file=MANIFEST_FILE)
        return report
    source = DataSource(path, manifest, hub=hub, progress=note)
    if hub is not None:
        report.counts["commit"] = hub[1]
    _describe(manifest, report)
    _check_spec(manifest, report)
    adapter = adapter_of_spec(manifest.spec)
    if adapter is not None:
        check_counts(manifest, adapter, report)
        check_provenance(manifest, adapter, report)
    _check_files(path, manifest, report)
    defects = _check_import_report(path, manifest, report)
    official: OfficialLabels | ListedLabels | None = None
    listed = "rules" in manifest.spec.provenance
    if annotations is not None and listed:
        if audio_annotations is not None:
            raise UsageError("--audio-annotations is for official files; leave it out")
        official = ListedLabels(annotations, manifest, report)
    elif annotations is not None:
        if adapter is None:
            known = ", ".join(dataset.title for dataset in DATASETS.values() if dataset.task)
            raise UsageError(
                f"--annotations is for {known} and for lists of events; these data, for "
                f"{manifest.spec.task!r}, have other classes and were not made of a list"
            )
        official = OfficialLabels(
            annotations, manifest, adapter, report, audio_file=audio_annotations
        )
    if defects and (annotations is None or listed):
        told = {finding.kind for finding in report.findings}
        what = "remark on the list of events" if listed else "defect of the official files"
        list_defects(defects, REPORT_FILE, report, told=told, what=what)
    if hub is not None and fast:
        if against is not None:
            raise UsageError("--fast on the Hub downloads no clip ids; leave out --against or it")
        _check_footers(source, report)
        return report
    for split in manifest.splits:
        source.fetch(split)
    contents = Contents(
        path,
        manifest,
        report,
        fast=fast,
        official=official,
        cache_dir=source.cache_dir,
        progress=progress,
    )
    contents.check()
    if official is not None and not fast:
        official.finish({item.clip_id for item in report.left_out})
    if against is not None:
        try:
            check_against(path, manifest, against, report, note=note)
        except DataError as error:  # what was found before is not lost
            report.error("not compared with the other store", str(error))
    return report


def _describe(manifest: Manifest, report: VerifyReport) -> None:
    spec = manifest.spec
    report.counts["dataset"] = f"{spec.name} ({spec.task}), {manifest.dtype}" + (
        ", synthetic features" if spec.synthetic else ""
    )
    for split, info in manifest.splits.items():
        size = sum(shard.bytes for shard in info.shards) / 2**20
        report.counts[split] = (
            f"{counted(info.rows, 'clip')}, {counted(len(info.shards), 'shard')}, {size:,.0f} MiB"
        )


def _check_spec(manifest: Manifest, report: VerifyReport) -> None:
    """Check the task, classes and splits in the manifest."""
    spec = manifest.spec
    if spec.task not in TASKS:
        report.error("manifest", str(unknown_name("task", spec.task, TASKS)), file=MANIFEST_FILE)
    elif (adapter := adapter_of_spec(spec)) is not None and spec.classes != list(adapter.classes):
        wrong, right = next(
            (a, b) for a, b in zip(spec.classes, adapter.classes, strict=True) if a != b
        )
        text = f"{wrong!r} instead of {right!r}: the order is not that of {adapter.title}"
        report.error("class list", f"{text}; write the data again", file=MANIFEST_FILE)
    for name, splits in spec.label_splits.items():
        if strangers := [split for split in splits if split not in manifest.splits]:
            report.warn(
                "label known in a split that is not here",
                f"{name}: {', '.join(strangers)}",
                file=MANIFEST_FILE,
            )


def _check_files(path: Path, manifest: Manifest, report: VerifyReport) -> None:
    """Warn of files that the manifest does not name, and of a card that is out of date."""
    shards = {shard.file for info in manifest.splits.values() for shard in info.shards}
    for file in sorted(path.iterdir()):
        if file.name not in shards | OWN_FILES:
            text = (
                "the manifest does not name it; `datasets` may read it"
                if file.suffix == ".parquet"
                else "not of this store"
            )
            report.warn("file that does not belong here", text, file=file.name)
    card = path / "README.md"
    try:
        text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    except OSError as error:
        report.warn("card that cannot be read", str(error.strerror), file=card.name)
        return
    if card.is_file() and manifest.checksum not in text:
        remedy = "`avplatform data card DIR --write` writes it again"
        report.warn("card of other contents", remedy, file=card.name)


def _check_import_report(path: Path, manifest: Manifest, report: VerifyReport) -> list[Defect]:
    """Compare import_report.json with the manifest, and return the defects that it lists.

    The clips that it lists as left out are added to the report.
    """
    file = path / REPORT_FILE
    if not file.is_file():
        return []
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        report.source = str(content.get("source", ""))
        report.left_out = [
            LeftOut(*(str(item[key]) for key in ("clip_id", "file", "reason")))
            for item in content["left_out"]
        ]
        defects = [Defect(**item) for item in content["defects"]]
        stored = {split: int(count) for split, count in content["stored"].items() if count}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        report.error(
            "import report", f"cannot be read ({type(error).__name__}: {error})", file=REPORT_FILE
        )
        return []
    sizes = {split: info.rows for split, info in manifest.splits.items()}
    if stored != sizes:
        report.error("import report", f"it counts {stored}, the manifest {sizes}", file=REPORT_FILE)
    return defects


def _check_footers(source: DataSource, report: VerifyReport) -> None:
    """Check sizes and footers on the Hub, without downloading a shard."""
    for split, info in source.manifest.splits.items():
        for shard in info.shards:
            try:
                source.shards.footers([shard])
            except UnreachableError:  # what cannot be looked at is not damaged
                raise
            except DataError as error:
                report.error("damaged shard", str(error), file=shard.file, split=split)


__all__ = ["Finding", "VerifyReport", "verify_data"]
