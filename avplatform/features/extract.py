"""Extraction of many files into a store, which is what the command `avplatform extract` does.

The features of each file are saved as a piece in a hidden folder beside the store until the store
is written. So an extraction that was stopped can be continued, with any number of processes, and
each process writes only its own pieces. A finished store is extended: files that it holds are not
extracted again, and the new store takes its place when it is complete.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object

from avplatform.base.console import named, readable
from avplatform.base.places import Remote, identity, located
from avplatform.base.processes import on_main
from avplatform.data.adapters.official_files import defect_lines
from avplatform.data.store.schema import EXTRACT_REPORT_FILE, SPLITS, DataSpec, Manifest
from avplatform.data.store.writer import StoreWriter
from avplatform.features.earlier import (
    Changes,
    Source,
    busy,
    described,
    lock_unchanged,
    open_earlier,
)
from avplatform.features.extractor import ClipFeatures, Extractor, Request
from avplatform.features.pieces import Long, Pieces
from avplatform.features.sources import Catalogue, Findings, Found
from avplatform.models.checks import at_least
from avplatform.models.errors import AVError, DataError
from avplatform.version import __version__

Spread = Callable[[Pieces, Sequence[Path | Remote], Callable[[], None]], list[tuple[str, str]]]
"""Makes the pieces of files, and returns the files that have none with the reasons, in order."""

__all__ = ["ClipFeatures", "ExtractReport", "Extractor", "Request", "extract"]


@dataclass(kw_only=True)
class ExtractReport:
    """The result of an extraction: what was stored, and what was left out and why."""

    files: int
    stored: dict[str, int] = field(default_factory=dict)
    """clips by split"""
    bad: list[tuple[str, str]] = field(default_factory=list)
    """files that are not in the store, with the reason"""
    without_audio: list[str] = field(default_factory=list)
    without_video: list[str] = field(default_factory=list)
    ignored: int = 0
    """files in folders that are not media, judged by their names"""
    taken_up: int = 0
    """files whose features an earlier attempt had saved"""
    labels: Findings = field(default_factory=Findings)
    changes: Changes | None = None
    """what was done to the store that was there"""
    sources: dict[str, Source] = field(default_factory=dict)
    """what the store remembers of its files, by name"""


def extract(
    found: Found,
    out: str | Path | Remote,
    extractor: Extractor,
    catalogue: Catalogue,
    *,
    segments: int = 10,
    long: Long = "split",
    dtype: str = "float16",
    name: str = "extracted",
    prune: bool = False,
    accelerator: Accelerator | None = None,
    card: Callable[[Manifest], str] | None = None,
    advance: Callable[[], None] = lambda: None,
    spread: Spread | None = None,
) -> ExtractReport:
    """Extract the features of files into a store.

    A bad file is left out, and the report says why. In a finished store of the same options, files
    of the same content keep their features, others are added or replaced, and all labels are made
    again. A file that is longer than `segments` seconds becomes several clips, NAME_START_END
    (`long` = "split"), or one clip of its beginning ("first"), or is refused; a shorter one is
    padded with zeros. With official annotations, a file is always one clip.

    Args:
        found: the files, from `find_files`.
        out: the folder to create, or a store that an earlier call wrote; or a new address (s3://).
        extractor: the recipe, its weights and the device.
        catalogue: the splits and labels of the clips.
        segments: segments per clip.
        long: what to do with longer files.
        dtype: the stored precision.
        name: the name of the dataset.
        prune: remove the clips of files that are in the store and not among `found`.
        accelerator: distributes the files over its processes; the first one writes the store.
        card: makes README.md from the finished manifest.
        advance: called after each file of this process.
        spread: makes the pieces elsewhere (see `avplatform.features.spread`), not this process.

    Raises:
        UsageError: the folder is not empty, or holds a store of other options.
        DataError: no file could be extracted, a file of the store cannot have labels any more,
            another process writes the store, or the disk is full.
    """
    place = located(out)
    job = _Job(
        place,
        extractor,
        catalogue,
        segments,
        long if not catalogue.one_clip else "first",
        dtype,
        name,
    )
    absent = job.absent(found, prune=prune)
    index, count = 0, 1
    if accelerator is not None:
        index, count = accelerator.process_index, accelerator.num_processes
    part = _Part()
    with ExitStack() as held:
        try:
            if index == 0:
                if job.earlier is not None:
                    held.callback(lock_unchanged(job.earlier).release)
                held.enter_context(job.pieces.held(busy(job.out)))
            part = job.run(dict(list(found.files.items())[index::count]), advance, spread)
        except Exception as error:
            if count == 1:
                raise
            known = isinstance(error, AVError)
            part.error = error if known else DataError(f"process {index} failed ({error!r})")
        # An error must reach all processes, else the others would wait for this one.
        parts = [part] if count == 1 else gather_object([part])
        for part in parts:
            if part.error is not None:
                raise part.error

        def write() -> ExtractReport:
            return job.finish(found, parts, absent, card=card)

        return write() if accelerator is None else on_main(accelerator, write)


@dataclass
class _Part:
    """The result of one process."""

    bad: list[tuple[str, str]] = field(default_factory=list)
    taken_up: int = 0
    kept: list[str] = field(default_factory=list)
    """names of files whose clips are in the store already"""
    error: Exception | None = None


class _Job:
    """Makes the pieces of a store, and puts them together."""

    def __init__(
        self,
        out: Path | Remote,
        extractor: Extractor,
        catalogue: Catalogue,
        segments: int,
        long: Long,
        dtype: str,
        name: str,
    ) -> None:
        self.out, self.extractor, self.catalogue = out, extractor, catalogue
        self.segments, self.each = segments, extractor.segment_seconds
        self.dtype, self.name = dtype, name
        at_least(self, "segments", 1)
        work = out.with_name(f".{out.name}.extract")
        self.pieces = Pieces(work, extractor, catalogue, segments, long)
        made_by = self.pieces.made_by
        recipe = {key: value for key, value in made_by["recipe"].items() if key != "name"}
        self.options = {
            **{key: value for key, value in recipe.items() if key != "version"},
            **{f"weights of {name}": digest for name, digest in made_by["weights"].items()},
            "precision": made_by["precision"],
            "segments": segments,
            "segment": self.each,
            "long": long,
            "dtype": dtype,
            "name": name,
            **catalogue.options(),
            "avplatform": __version__,
        }
        self.earlier = open_earlier(out)
        if self.earlier is not None:
            self.earlier.check_options(self.options)

    def absent(self, found: Found, *, prune: bool) -> list[str]:
        """Return the names of files that are in the store, not given again, and stay.

        Raises:
            DataError: a file of the store cannot have labels; nothing of the store is changed then.
        """
        if self.earlier is None or prune:
            return []
        for name, source in self.earlier.sources.items():
            again = found.files.get(name)
            if again is not None and identity(again)[1] != source.bytes:
                continue  # it will be replaced, and its labels are for the new content
            windows = [(start, end) for start, end in source.windows]
            try:
                self.catalogue.check(name, windows, source.duration)
            except DataError as error:
                raise DataError(
                    f"'{name}' is in {self.out} and cannot have labels: {error}; nothing was "
                    "changed: mend this, or give --prune to remove such files from the store"
                ) from None
        return [name for name in self.earlier.sources if name not in found.files]

    def run(
        self, files: Mapping[str, Path | Remote], advance: Callable[[], None], spread: Spread | None
    ) -> _Part:
        """Make the pieces of files that have none yet and are not in the store."""
        part = _Part()
        todo: list[Path | Remote] = []
        for name, file in files.items():
            if self.earlier is not None and self.earlier.holds(name, file):
                part.kept.append(name)
            elif not self.pieces.has(file):
                todo.append(file)
                continue
            else:
                part.taken_up += 1
            advance()
        if spread is not None:
            part.bad = spread(self.pieces, todo, advance)
            return part
        for file in todo:
            try:
                self.pieces.make(file)
            except DataError as error:
                part.bad.append((str(file), str(error)))
            advance()
        return part

    def finish(
        self,
        found: Found,
        parts: Sequence[_Part],
        absent: list[str],
        *,
        card: Callable[[Manifest], str] | None,
    ) -> ExtractReport:
        """Write the store, unless the one that is there is as it should be."""
        report = ExtractReport(
            files=len(absent) + len(found.files) + len(found.bad),
            bad=list(found.bad),
            ignored=found.ignored,
        )
        report.bad += [item for part in parts for item in part.bad]
        report.taken_up = sum(part.taken_up for part in parts)
        kept = {name for part in parts for name in part.kept}
        earlier = self.earlier
        if earlier is not None:
            before, labels = earlier.manifest.spec.provenance, self.catalogue.provenance()
            relabelled = any(before.get(key) != value for key, value in labels.items())
            report.changes = Changes(absent=absent, untouched=len(kept), relabelled=relabelled)
            bad = {file for file, _ in report.bad}
            given = [name for name, file in found.files.items() if str(file) not in bad]
            if (
                not relabelled
                and not self.catalogue.one_clip  # the official files may have changed
                and [*absent, *given] == list(earlier.sources)
                and kept.issuperset(given)
                and report.bad == earlier.bad
            ):
                splits = earlier.manifest.splits
                report.stored = {split: info.rows for split, info in splits.items()}
                return report
        self.write(found.files, report, kept, card=card)
        return report

    def write(
        self,
        files: Mapping[str, Path | Remote],
        report: ExtractReport,
        kept: set[str],
        *,
        card: Callable[[Manifest], str] | None,
    ) -> None:
        """Write the store from the pieces and the store that is there, and remove the pieces."""
        catalogue, earlier, changes = self.catalogue, self.earlier, report.changes or Changes()
        spec = DataSpec(
            name=self.name,
            task=catalogue.task,
            classes=catalogue.classes,
            texts=catalogue.texts,
            features=self.extractor.features,
            labels=catalogue.labels,
            label_dtypes=catalogue.label_dtypes,
            label_splits=catalogue.label_splits,
            segments=self.segments,
            segment_seconds=self.each,
        )
        if earlier is not None:
            earlier.clips.check_files()
        failed = {file for file, _ in report.bad}
        writer = StoreWriter(
            self.out, spec, dtype=self.dtype, card=card, replace=earlier is not None
        )
        with writer:
            for stem in [*changes.absent, *files]:
                file = str(files.get(stem, stem))
                if earlier is not None and (stem in kept or stem not in files):
                    piece: dict[str, np.ndarray] | None = earlier.piece(stem)
                else:
                    piece = None if file in failed else self.pieces.read(files[stem])
                if piece is None and file in failed:
                    continue
                if piece is None:
                    raise DataError(f"the features of {file} are gone; run the same command again")
                source = described(piece)
                windows = [(start, end) for start, end in source.windows]
                try:
                    entries = catalogue.entries(stem, windows, source.duration)
                except DataError as error:
                    report.bad.append((file, str(error)))
                    continue
                source.clips = [entry.clip_id for entry in entries][: len(windows)]
                report.sources[stem] = source
                for position, entry in enumerate(entries):
                    window = 0 if catalogue.one_clip else position
                    columns = {key: x[window : window + 1] for key, x in piece.items()}
                    labels = {key: np.asarray(value)[None] for key, value in entry.labels.items()}
                    ids = {"row": np.array([entry.row]), "clip_id": [entry.clip_id]}
                    writer.add(entry.split, {**ids, **columns, **labels})
                    report.stored[entry.split] = report.stored.get(entry.split, 0) + 1
                    report.without_audio += [] if source.has_audio else [entry.clip_id]
                    report.without_video += [] if source.has_video else [entry.clip_id]
            if not report.stored:
                writer.discard()
                first = readable(f" (first: {named(*report.bad[0])})") if report.bad else ""
                raise DataError(f"no file could be extracted{first}; nothing was written")
            order = sorted(report.stored, key=(*SPLITS, *sorted(report.stored)).index)
            report.stored = {split: report.stored[split] for split in order}
            report.labels = catalogue.findings()
            spec.provenance |= catalogue.provenance()
            if report.labels.defects:
                spec.provenance["defects"] = defect_lines(
                    report.labels.defects, EXTRACT_REPORT_FILE
                )
            spec.provenance["extraction"] = {
                "extractor": f"avplatform {__version__}",
                "files": report.files,
                "left_out": len(report.bad),
                "without_audio": len(report.without_audio),
                "without_video": len(report.without_video),
                "options": self.options,
                **self.extractor.describe(),
            }
            if earlier is not None:
                before, now = list(earlier.sources), report.sources
                changes.added = [name for name in now if name not in earlier.sources]
                changes.removed = [name for name in before if name not in now]
                changes.replaced = [
                    name for name in before if name in now and name not in {*kept, *changes.absent}
                ]
                changes.untouched = len(kept & set(now))
                writer.carried = earlier.unknown_files()
            content = asdict(report)
            del content["taken_up"]  # a store does not depend on how often its making was stopped
            writer.attachments[EXTRACT_REPORT_FILE] = json.dumps(content, indent=2) + "\n"
        self.pieces.remove()
