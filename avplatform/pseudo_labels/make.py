"""Writing pseudo-labels: one file per video, and a record of how they were made.

The folders are those of VALOR's release, so that `data import` reads them. A command that was
stopped can be run again: a video is done if its label file exists and the files that it was made
from have not changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.base.files import write_file, write_json
from avplatform.base.locks import Lock
from avplatform.base.places import PlaceError, Remote, at_hand, located, stopping
from avplatform.data.adapters.contracts import Modality, Spelling
from avplatform.data.adapters.official_files import Annotations
from avplatform.data.adapters.plan import LeftOut
from avplatform.models.errors import DataError, UsageError, counted
from avplatform.models.files import save_array
from avplatform.pseudo_labels.dataset import DATASET
from avplatform.pseudo_labels.rule import pseudo_labels
from avplatform.pseudo_labels.score import read_label
from avplatform.pseudo_labels.sources import Source
from avplatform.version import __version__

TEACHERS: dict[Modality, str] = {"visual": "CLIP", "audio": "CLAP"}
FOLDERS: dict[Modality, str] = {
    name: f"{teacher}/segment_pseudo_labels" for name, teacher in TEACHERS.items()
}
RECORD_FILE = "pseudo_labels.json"
SHOWN = 5  # bad clips named in an error
EACH = 30.0
"""Seconds after which the list of sources on an object store is written again."""


@dataclass(kw_only=True)
class Clips:
    """The clips that get labels, and a checksum of the weak labels of the whole dataset.

    Shape: weak [N, C].
    """

    names: list[str]
    weak: np.ndarray
    checksum: str

    @classmethod
    def of(cls, annotations: Annotations, splits: tuple[str, ...] | None = None) -> Clips:
        """Return the clips of some splits (default: all)."""
        rows = np.concatenate([annotations.splits[name] for name in splits or annotations.splits])
        weak = annotations.labels["weak"]
        digest = hashlib.sha256("\n".join(annotations.clip_ids).encode())
        digest.update(np.ascontiguousarray(weak).tobytes())
        names = [annotations.clip_ids[row] for row in rows]
        return cls(names=names, weak=weak[rows], checksum=digest.hexdigest())


def make(
    out: str | Path | Remote,
    modality: Modality,
    source: Source,
    clips: Clips,
    *,
    spelling: Spelling = "official",
    threshold_offset: float = 0.0,
    save_logits: bool = False,
    strict: bool = False,
    advance: Callable[[], None] = lambda: None,
    spread: Spread | None = None,
) -> dict[str, Any]:
    """Write the labels of one modality and return its part of the record.

    Args:
        out: folder to write, or its address. It may contain labels of the other modality, or labels
            of this one that were made with the same settings.
        modality: "visual" or "audio".
        source: gives the logits.
        clips: the clips to label.
        spelling: the spelling of the prompts, for the record.
        threshold_offset: a number to add to each threshold.
        save_logits: also write the logits, so that other thresholds can be tried without a teacher.
        strict: write nothing if the input of any clip is bad.
        advance: called after each clip.
        spread: labels clips elsewhere (see `avplatform.pseudo_labels.spread`), not this process.

    Raises:
        UsageError: the folder holds labels that were made with other settings, or another process
            is writing to it.
        DataError: the input of a clip is bad and `strict` is set, or a file cannot be written.
        StoppedError: an object store does not answer.
    """
    limits = DATASET.thresholds(modality) + threshold_offset
    settings = {
        **source.settings(),
        "spelling": spelling,
        "thresholds": limits.tolist(),
        "weak_labels_sha256": clips.checksum,
    }
    out = located(out)
    check_settings(out, modality, settings)
    if strict:
        refuse_bad_input(source, clips)

    busy = UsageError(f"another process is writing to {out}; wait for it, or give another --out")
    try:
        with stopping(), contextlib.ExitStack() as held:
            if isinstance(out, Path):  # an object store has no locks
                out.mkdir(parents=True, exist_ok=True)
                held.enter_context(Lock(out / ".lock", lambda holder: busy))
            # Another process may have written here while this one was reading.
            check_settings(out, modality, settings)
            run = _Run(out, modality, settings, source, save_logits)
            left_out = run.label(clips, limits, strict, advance, spread)
            return run.finish(clips, left_out)
    except OSError as error:
        raise DataError(
            f"cannot write {error.filename or out}: {error.strerror}; what was written before is "
            "kept: run the same command again"
        ) from None


def read_record(out: Path | Remote) -> dict[str, Any]:
    """Return the record of a folder, or an empty one if there is none.

    Raises:
        DataError: the record cannot be read.
    """
    file = out / RECORD_FILE
    if not file.is_file():
        return {"_type": "avplatform-pseudo-labels", "version": 1, "modalities": {}}
    try:
        record = json.loads(file.read_bytes())
        known = record["_type"] == "avplatform-pseudo-labels"
        if not known or not isinstance(record["modalities"], dict):
            raise KeyError("_type")
        return record
    except PlaceError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} is not a record of pseudo-labels ({error}); give another folder"
        ) from None


def check_settings(out: Path | Remote, modality: Modality, settings: dict[str, Any]) -> None:
    """Raise UsageError if the folder holds labels that were made with other settings.

    Labels of this modality that are not in the record count as such.
    """
    if out.is_file():
        raise UsageError(f"{out} is a file; give a folder")
    folder = out / FOLDERS[modality]
    entry = read_record(out)["modalities"].get(modality)
    if entry is None:
        if folder.is_dir() and any(folder.iterdir()):
            raise UsageError(f"{folder} holds labels of unknown origin; give another --out")
        return
    made = entry.get("settings", {})
    for name in sorted({*made, *settings}):
        if made.get(name) != settings.get(name):
            raise UsageError(
                f"{folder} holds labels made with another '{name}'; give another --out"
            )


def refuse_bad_input(source: Source, clips: Clips) -> None:
    """Raise DataError if the input of any clip is missing or wrong."""
    bad = []
    for name in clips.names:
        video = DATASET.file_name(name)
        try:
            with source.at_hand(video) as here:
                here.read(video)
        except DataError as error:
            bad.append(f"{name}: {error}")
    if bad:
        more = f"\n  and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        listed = "\n  ".join(bad[:SHOWN])
        raise DataError(
            f"bad input for {len(bad)} of {counted(len(clips.names), 'clip')}; nothing was written:"
            f"\n  {listed}{more}"
        )


@dataclass(kw_only=True)
class Places:
    """The folders of labels and, if they are kept, of logits."""

    labels: Path | Remote
    logits: Path | Remote | None

    def targets(self, video: str) -> list[Path | Remote]:
        """Return the files of a video."""
        return [
            folder / f"{video}.npy" for folder in (self.labels, self.logits) if folder is not None
        ]

    def whole(self, video: str) -> bool:
        """Return whether all files of a video are there."""
        return all(target.is_file() for target in self.targets(video))

    def label(self, source: Source, video: str, weak: np.ndarray, limits: np.ndarray) -> str:
        """Write the files of a video, and return the fingerprint of what they were made from.

        Raises:
            DataError: the input of the video is bad.
            StoppedError: an object store does not answer.
        """
        with source.at_hand(video) as here:
            fingerprint = here.fingerprint(video)
            logits = here.logits(video)
        labels = pseudo_labels(logits, weak, limits)
        with stopping():
            for target, values in zip(self.targets(video), (labels, logits), strict=False):
                write_file(target, partial(save_array, values))
        return fingerprint


Spread = Callable[
    [
        Places,
        Sequence[tuple[str, np.ndarray]],
        np.ndarray,
        Callable[[str, str | DataError], None],
    ],
    Sequence[str | DataError],
]
"""Labels videos, each with its weak labels; returns fingerprints or errors, in order.

It also tells those of each video as soon as it is done.
"""


class _Run:
    """Writes the files of one modality."""

    def __init__(
        self,
        out: Path | Remote,
        modality: Modality,
        settings: dict[str, Any],
        source: Source,
        save_logits: bool,
    ) -> None:
        self.out, self.modality, self.source = out, modality, source
        self.labels = out / FOLDERS[modality]
        logits = out / TEACHERS[modality] / "logits" if save_logits else None
        self.places = Places(labels=self.labels, logits=logits)
        self.journal = out / TEACHERS[modality] / "sources.tsv"
        self.done = _read_journal(self.journal)
        self.entry: dict[str, Any] = {
            "settings": settings,
            "source_folder": str(source.folder),
            "avplatform": __version__,
            "complete": False,
        }
        self.earlier = read_record(out)["modalities"].get(modality, {}).get("left_out", [])
        self._record({**self.entry, "left_out": self.earlier})
        if isinstance(self.labels, Path):  # nodes look for it
            self.labels.mkdir(parents=True, exist_ok=True)
        if source.texts is not None:
            file = out / TEACHERS[modality] / "text_features.safetensors"
            write_file(file, source.texts.write)

    def label(
        self,
        clips: Clips,
        limits: np.ndarray,
        strict: bool,
        advance: Callable[[], None],
        spread: Spread | None,
    ) -> list[LeftOut]:
        left_out = []
        with self._journal() as write:

            def note(video: str, made: str | DataError) -> None:
                if isinstance(made, str) and self.done.get(video) != made:
                    self.done[video] = made
                    write(f"{video}\t{made}\n")

            def told(video: str, made: str | DataError) -> None:
                note(video, made)
                advance()

            for name, made in self._made(clips, limits, advance, spread, told):
                video = DATASET.file_name(name)
                note(video, made)
                if isinstance(made, str):
                    continue
                if strict:
                    raise made
                for target in self.places.targets(video):  # made from an earlier input
                    if isinstance(target, Remote):
                        target.remove()
                    else:
                        target.unlink(missing_ok=True)
                self.done.pop(video, None)
                left_out.append(LeftOut(name, self._file(video), str(made)))
        order = {name: number for number, name in enumerate(clips.names)}
        return sorted(left_out, key=lambda item: order[item.clip_id])

    def _made(
        self,
        clips: Clips,
        limits: np.ndarray,
        advance: Callable[[], None],
        spread: Spread | None,
        told: Callable[[str, str | DataError], None],
    ) -> Iterator[tuple[str, str | DataError]]:
        """Yield each clip with the fingerprint of what its labels were made from, or the error."""
        todo = []
        for name, weak in zip(clips.names, clips.weak, strict=True):
            video = DATASET.file_name(name)
            try:
                if self._is_done(video):
                    yield name, self.done[video]
                elif spread is None:
                    yield name, self.places.label(self.source, video, weak, limits)
                else:
                    todo.append((name, video, weak))
                    continue
            except DataError as error:
                yield name, error
            advance()
        if spread is not None:
            names = [name for name, _, _ in todo]
            found = spread(self.places, [(video, weak) for _, video, weak in todo], limits, told)
            yield from zip(names, found, strict=True)

    def _is_done(self, video: str) -> bool:
        """Return whether the labels of a video are there, made from the files that are there."""
        with stopping():
            if video not in self.done or not self.places.whole(video):
                return False
        with self.source.at_hand(video) as here:
            return here.fingerprint(video) == self.done[video]

    @contextlib.contextmanager
    def _journal(self) -> Iterator[Callable[[str], None]]:
        """Give a block what adds a line to the list of sources, so that a stopped command goes on.

        To an object nothing can be added; it is written as a whole, now and then and at the end.
        """
        if isinstance(self.journal, Path):
            with self.journal.open("a", encoding="utf-8") as file:

                def add(line: str) -> None:
                    file.write(line)
                    file.flush()

                yield add
            return
        written = time.monotonic()

        def add_remote(line: str) -> None:
            nonlocal written
            if time.monotonic() > written + EACH:
                self._write_journal()
                written = time.monotonic()

        try:
            yield add_remote
        finally:
            with contextlib.suppress(PlaceError):
                self._write_journal()

    def _write_journal(self) -> str:
        """Write the sorted list of sources, and return it."""
        text = "".join(f"{video}\t{self.done[video]}\n" for video in sorted(self.done))
        write_file(self.journal, text.encode())
        return text

    def finish(self, clips: Clips, left_out: list[LeftOut]) -> dict[str, Any]:
        """Write the sorted list of sources, and the record with the number of labels per class."""
        text = self._write_journal()
        counts = np.zeros(len(DATASET.classes), dtype=np.int64)
        for video in self.done:
            with at_hand(self.labels / f"{video}.npy") as file:
                counts += read_label(file).sum(axis=0)
        ours = set(clips.names)
        kept = [item for item in self.earlier if item["clip_id"] not in ours]
        self.entry.update(
            complete=True,
            clips=len(clips.names),
            labels=len(self.done),
            sources_sha256=hashlib.sha256(text.encode()).hexdigest(),
            positive_segments=dict(zip(DATASET.classes, counts.tolist(), strict=True)),
            left_out=kept + [vars(item) for item in left_out],
        )
        self._record(self.entry)
        return self.entry

    def _record(self, entry: dict[str, Any]) -> None:
        record = read_record(self.out)
        record["modalities"][self.modality] = entry
        write_json(self.out / RECORD_FILE, record)

    def _file(self, video: str) -> str:
        try:
            return str(self.source.find(self.source.folder, video)[0])
        except DataError:
            return str(self.source.folder / video)


def _read_journal(file: Path | Remote) -> dict[str, str]:
    """Return {video: fingerprint}, without a line that was cut off when the command was stopped."""
    if not file.is_file():
        return {}
    pairs = [line.split("\t") for line in file.read_bytes().decode().splitlines()]
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and len(pair[1]) == 64}
