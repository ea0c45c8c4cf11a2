"""Compare a store with the dataset's official annotation files: counts, labels and versions."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.data.adapters.contracts import DatasetAdapter
from avplatform.data.adapters.official_files import Defect
from avplatform.data.importing.report import ImportReport
from avplatform.data.store.schema import Manifest
from avplatform.data.verify.report import VerifyReport
from avplatform.models.errors import counted
from avplatform.models.files import file_sha256

LISTED = 30


def check_counts(manifest: Manifest, adapter: DatasetAdapter, report: VerifyReport) -> None:
    """Warn where the splits have other sizes than the official ones."""
    sizes = {split: info.rows for split, info in manifest.splits.items()}
    differ = [
        f"{split} {sizes.get(split, 0)} instead of {count}"
        for split, count in adapter.counts.items()
        if sizes.get(split, 0) != count
    ]
    if differ:
        report.warn(f"numbers of clips are not those of {adapter.title}", ", ".join(differ))


def check_provenance(manifest: Manifest, adapter: DatasetAdapter, report: VerifyReport) -> None:
    """Report what the adapter knows about the imported files."""
    counts, odd = adapter.check_provenance(manifest.spec.provenance)
    report.counts |= counts
    for kind, text, file in odd:
        report.warn(kind, text, file=file)


def list_defects(
    defects: list[Defect],
    source: str,
    report: VerifyReport,
    *,
    told: Collection[str] = (),
    what: str = "defect of the official files",
) -> None:
    """List the defects of files, one line per kind and file, as warnings.

    Kinds in `told` are left out, as they were reported before. `what` is said of each.
    """
    others = [defect for defect in defects if defect.kind not in told]
    summary = ImportReport(dataset="", source="", options={}, clips={}, stored={}, defects=others)
    for line in summary.defect_lines():
        kind, _, text = line.partition(", ")
        report.warn(f"{what}: {kind}", f"{text} (from {source})")


class OfficialLabels:
    """The labels of official annotation files, with which clips are compared.

    Args:
        folder: the folder of the files, or the one whose `data/` holds them.
        manifest: the store's manifest.
        adapter: the dataset's adapter.
        report: report to which findings are added.
        audio_file: a file of dense audio annotations that replaces the one in the folder.

    Raises:
        DataError: files are missing or malformed.
    """

    def __init__(
        self,
        folder: str | Path,
        manifest: Manifest,
        adapter: DatasetAdapter,
        report: VerifyReport,
        *,
        audio_file: str | Path | None = None,
    ) -> None:
        self.adapter, self.report = adapter, report
        self.found = data = adapter.read(folder, audio_file=audio_file, thorough=True)
        self.ids, self.labels = data.clip_ids, data.labels
        report.counts |= data.counts
        self._split_of = {int(row): split for split, rows in data.splits.items() for row in rows}
        self._rows = {clip_id: row for row, clip_id in enumerate(self.ids)}
        self._seen: set[int] = set()
        self._compare_files(manifest)

    def compare(
        self, split: str, file: str, ids: list[str], columns: dict[str, np.ndarray]
    ) -> None:
        """Report clips whose row, split or labels are not the official ones."""
        for i, clip_id in enumerate(ids):
            row = int(columns["row"][i])
            where: dict[str, Any] = {"file": file, "split": split, "row": row, "clip_id": clip_id}
            official = self._rows.get(clip_id) if self.adapter.unique_ids else row
            if split == "background" and not self.adapter.unique_ids and row >= len(self.ids):
                background = len(self.adapter.classes) - 1
                if any((columns[name][i] != background).any() for name in self.labels):
                    self.report.error(
                        "label is not the official one", "a background clip has an event", **where
                    )
                continue
            if official is None or not 0 <= official < len(self.ids):
                self.report.error(
                    "clip that the official files do not have", f"in {self.found.folder}", **where
                )
                continue
            self._seen.add(official)
            if official != row:
                self.report.error("row is not the official one", f"it is {official} there", **where)
            # Simulated ids may begin with their row.
            if clip_id not in (self.ids[official], f"{official}:{self.ids[official]}"):
                self.report.error(
                    "clip id is not the official one",
                    f"row {row} is {self.ids[official]} there",
                    **where,
                )
            if self._split_of.get(official) != split:
                there = self._split_of.get(official, "no split")
                self.report.error(
                    "clip in another split than officially", f"{split} here, {there} there", **where
                )
            for name, values in self.labels.items():
                known = name in columns and split in self.found.label_splits.get(name, [split])
                if known and not np.array_equal(columns[name][i], values[official]):
                    self.report.error("label is not the official one", f"{name} differs", **where)

    def finish(self, left_out: set[str]) -> None:
        """Warn of official clips that the store lacks, and list the defects of the files."""
        missing = [
            self.ids[row]
            for row in sorted(set(self._split_of) - self._seen)
            if self.ids[row] not in left_out
        ]
        if missing:
            more = f", and {len(missing) - LISTED} more" if len(missing) > LISTED else ""
            text = f"{counted(len(missing), 'clip')}: {', '.join(missing[:LISTED])}{more}"
            self.report.warn("clips of the official files that are not here", text)
        told = {finding.kind for finding in self.report.findings}
        list_defects(self.found.defects, str(self.found.folder), self.report, told=told)

    def _compare_files(self, manifest: Manifest) -> None:
        """Warn of annotation files that are not the imported ones."""
        recorded = manifest.spec.provenance.get("annotations")
        kind = "annotation file is not the one imported"
        for name, stamp in (recorded if isinstance(recorded, dict) else {}).items():
            file = self.found.files.get(name)
            usual = self.adapter.audio_annotations
            if file is None and usual is not None:  # the audio annotations may have any name
                remedy = "leave out" if name == usual else "give it with"
                self.report.warn(kind, f"the import read {name}; {remedy} --audio-annotations")
            elif (
                file is not None
                and file.is_file()
                and isinstance(stamp, dict)
                and file_sha256(file) != stamp.get("sha256")
            ):
                self.report.warn(kind, "its sha256 differs", file=str(file))
