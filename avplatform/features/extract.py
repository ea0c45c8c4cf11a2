"""Extraction of many files into a store, which is what the command `avplatform extract` does.

The features of each file are saved as a piece in a hidden folder beside the store until the store
is written. So an extraction that was stopped can be continued, with any number of processes, and
each process writes only its own pieces.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError
from safetensors.numpy import load_file

from avplatform.base.console import named, readable
from avplatform.base.processes import on_main
from avplatform.data.adapters.official_files import defect_lines
from avplatform.data.store.partial import check_empty
from avplatform.data.store.schema import EXTRACT_REPORT_FILE, DataSpec, Manifest
from avplatform.data.store.writer import StoreWriter
from avplatform.features.extractor import ClipFeatures, Extractor, Request
from avplatform.features.media import MediaInfo, probe
from avplatform.features.sampling import count_segments
from avplatform.features.sources import Catalogue, Findings, Found
from avplatform.models.checks import at_least
from avplatform.models.errors import AVError, DataError, counted
from avplatform.models.files import save_tensors, write_atomic
from avplatform.models.paths import expanded
from avplatform.version import __version__

__all__ = ["ClipFeatures", "ExtractReport", "Extractor", "Request", "extract"]

Long = Literal["split", "first", "refuse"]


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


def extract(
    found: Found,
    out: str | Path,
    extractor: Extractor,
    catalogue: Catalogue,
    *,
    segments: int = 10,
    long: Long = "split",
    dtype: str = "float16",
    name: str = "extracted",
    accelerator: Accelerator | None = None,
    card: Callable[[Manifest], str] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> ExtractReport:
    """Extract the features of files into a store.

    A bad file is left out, and the report says why. A file that is longer than `segments` seconds
    becomes several clips, NAME_START_END (`long` = "split"), or one clip of its beginning
    ("first"), or is refused; a shorter one is padded with zeros. With official annotations, a file
    is always one clip.

    Args:
        found: the files, from `find_files`.
        out: the folder to create.
        extractor: the recipe, its weights and the device.
        catalogue: the splits and labels of the clips.
        segments: segments per clip.
        long: what to do with longer files.
        dtype: the stored precision.
        name: the name of the dataset.
        accelerator: distributes the files over its processes; the first one writes the store.
        card: makes README.md from the finished manifest.
        advance: called after each file of this process.

    Raises:
        UsageError: the folder is not empty.
        DataError: no file could be extracted, or the disk is full.
    """
    out = expanded(out)
    check_empty(out)
    job = _Job(out, extractor, catalogue, segments, long if not catalogue.one_clip else "first")
    at_least(job, "segments", 1)
    index, count = 0, 1
    if accelerator is not None:
        index, count = accelerator.process_index, accelerator.num_processes
    part = _Part()
    try:
        part.bad, part.taken_up = job.run(list(found.files.values())[index::count], advance)
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
        report = ExtractReport(
            files=len(found.files) + len(found.bad), bad=list(found.bad), ignored=found.ignored
        )
        report.bad += [item for part in parts for item in part.bad]
        report.taken_up = sum(part.taken_up for part in parts)
        job.write(found.files, report, dtype=dtype, name=name, card=card)
        return report

    return write() if accelerator is None else on_main(accelerator, write)


@dataclass
class _Part:
    """The result of one process."""

    bad: list[tuple[str, str]] = field(default_factory=list)
    taken_up: int = 0
    error: Exception | None = None


class _Job:
    """Makes the pieces of a store, and puts them together."""

    def __init__(
        self, out: Path, extractor: Extractor, catalogue: Catalogue, segments: int, long: Long
    ) -> None:
        self.out, self.extractor, self.catalogue = out, extractor, catalogue
        self.segments, self.long, self.each = segments, long, extractor.segment_seconds
        self.clip = segments * self.each  # seconds
        self.work = out.with_name(f".{out.name}.extract")
        made_by = extractor.describe()
        made_by["weights"] = {name: found["sha256"] for name, found in made_by["weights"].items()}
        self.fingerprint = [__version__, made_by, segments, self.each, long]

    def run(
        self, files: Sequence[Path], advance: Callable[[], None]
    ) -> tuple[list[tuple[str, str]], int]:
        """Make the pieces of files that have none yet.

        Return the bad files with the reason, and how many pieces an earlier attempt had made.
        """
        bad: list[tuple[str, str]] = []
        todo = []
        for file in files:
            if self.read(file) is None:
                todo.append(file)
            else:
                advance()
        for file, clips in self._extracted(todo):
            if isinstance(clips, DataError):
                bad.append((str(file), str(clips)))
            else:
                try:
                    self._save(file, clips)
                except OSError as error:
                    raise DataError(
                        f"cannot write {self.work}: {error.strerror or error}; run the same "
                        "command again to go on"
                    ) from None
            advance()
        return bad, len(files) - len(todo)

    def read(self, file: Path) -> dict[str, np.ndarray] | None:
        """Return the arrays that `_save` wrote, or None if they are missing or incomplete."""
        try:
            path = self._piece(file)
            return load_file(path) if path.is_file() else None
        except (OSError, SafetensorError):
            return None

    def write(
        self,
        files: dict[str, Path],
        report: ExtractReport,
        *,
        dtype: str,
        name: str,
        card: Callable[[Manifest], str] | None,
    ) -> None:
        """Write the store from the pieces, and remove them."""
        catalogue = self.catalogue
        spec = DataSpec(
            name=name,
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
        failed = {file for file, _ in report.bad}
        with StoreWriter(self.out, spec, dtype=dtype, card=card) as writer:
            for stem, file in files.items():
                piece = None if str(file) in failed else self.read(file)
                if piece is None:
                    continue
                windows = [(float(start), float(end)) for start, end in piece.pop("windows")]
                has_audio, has_video = piece.pop("streams")
                duration = float(piece.pop("duration")[0])
                try:
                    entries = catalogue.entries(stem, windows, duration)
                except DataError as error:
                    report.bad.append((str(file), str(error)))
                    continue
                for position, entry in enumerate(entries):
                    window = 0 if catalogue.one_clip else position
                    columns = {key: x[window : window + 1] for key, x in piece.items()}
                    labels = {key: np.asarray(value)[None] for key, value in entry.labels.items()}
                    ids = {"row": np.array([entry.row]), "clip_id": [entry.clip_id]}
                    writer.add(entry.split, {**ids, **columns, **labels})
                    report.stored[entry.split] = report.stored.get(entry.split, 0) + 1
                    report.without_audio += [] if has_audio else [entry.clip_id]
                    report.without_video += [] if has_video else [entry.clip_id]
            if not report.stored:
                writer.discard()
                first = readable(f" (first: {named(*report.bad[0])})") if report.bad else ""
                raise DataError(f"no file could be extracted{first}; nothing was written")
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
                **self.extractor.describe(),
            }
            writer.attachments[EXTRACT_REPORT_FILE] = json.dumps(asdict(report), indent=2) + "\n"
        shutil.rmtree(self.work, ignore_errors=True)

    def _extracted(
        self, files: Sequence[Path]
    ) -> Iterator[tuple[Path, list[ClipFeatures] | DataError]]:
        """Yield the clips of each file, in order; a batch may hold items of several files."""
        failed: dict[Path, DataError] = {}
        expected: dict[Path, int] = {}

        def requests() -> Iterator[Request]:
            for file in files:
                try:
                    info = probe(file, limits=self.extractor.limits)
                    windows = self._windows(info)
                    ends = [(start, start + self.clip) for start, _ in windows]
                    self.catalogue.check(file.stem, ends, info.duration)
                except DataError as error:
                    failed[file] = error
                    continue
                expected[file] = len(windows)
                for start, seconds in windows:
                    yield Request(
                        path=file, start=start, seconds=seconds, segments=self.segments, info=info
                    )

        todo = iter(files)
        results = self.extractor.stream(requests())
        current = next(todo, None)
        clips: list[ClipFeatures] = []
        for request, result in results:
            while current in failed and current != request.path:  # files that made no request
                yield current, failed[current]
                current = next(todo, None)
            file = Path(request.path)
            if isinstance(result, DataError):
                failed.setdefault(file, result)
            else:
                clips.append(result)
            expected[file] -= 1
            if not expected[file]:
                yield file, failed.get(file) or _finite(clips)
                current, clips = next(todo, None), []
        while current is not None:
            yield current, failed[current]
            current = next(todo, None)

    def _windows(self, info: MediaInfo) -> list[tuple[float, float | None]]:
        """Return the start and the length of each clip of a file."""
        duration, count = info.duration, count_segments(info.duration, self.each)
        if count <= self.segments:
            return [(0.0, None)]
        if self.long == "refuse":
            raise DataError(
                f"{info.path} lasts {duration:.1f} s, more than {counted(self.segments, 'segment')}"
            )
        if self.long == "first":
            return [(0.0, self.clip)]
        starts = (first * self.each for first in range(0, count, self.segments))
        return [(start, self.clip) for start in starts if duration - start >= self.each / 2]

    def _piece(self, file: Path) -> Path:
        stat = file.stat()
        key = json.dumps(
            [self.fingerprint, str(file.resolve()), stat.st_size, stat.st_mtime_ns], sort_keys=True
        )
        return self.work / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"

    def _save(self, file: Path, clips: list[ClipFeatures]) -> None:
        streams = ["audio", "visual", *(["motion"] if self.extractor.motion else [])]
        columns = {name: np.stack([getattr(clip, name) for clip in clips]) for name in streams}
        columns["windows"] = np.array([(clip.start, clip.start + self.clip) for clip in clips])
        columns["duration"] = np.array([clips[0].info.duration])
        columns["streams"] = np.array([clips[0].has_audio, clips[0].has_video], dtype=np.uint8)
        write_atomic(self._piece(file), lambda path: save_tensors(columns, path))


def _finite(clips: list[ClipFeatures]) -> list[ClipFeatures] | DataError:
    for clip in clips:
        for stream in ("audio", "visual", "motion"):
            values = getattr(clip, stream)
            if values is not None and not np.isfinite(values).all():
                return DataError(
                    f"{clip.info.path}: its {stream} features are NaN or infinite; "
                    "use --precision no"
                )
    return clips
