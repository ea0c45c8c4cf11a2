"""Compare a store with the list of events that its labels were made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avplatform.data.adapters.table.events import names_of, plain
from avplatform.data.adapters.table.features import WINDOW
from avplatform.data.adapters.table.labels import EventLabels
from avplatform.data.adapters.table.options import EventOptions
from avplatform.data.adapters.table.readers import read_events
from avplatform.data.store.schema import Manifest
from avplatform.data.verify.report import VerifyReport
from avplatform.models.errors import DataError, counted
from avplatform.models.files import file_sha256
from avplatform.models.paths import expanded

DIFFERS = "label is not that of the list"
LISTED = 30


@dataclass
class Clip:
    """A clip of the store; `padded` are its segments after the end of the video, bool [T]."""

    where: dict[str, Any]
    labels: dict[str, np.ndarray]
    padded: np.ndarray


class ListedLabels:
    """The labels of a list of events by the rules of a store, with which its clips are compared.

    Args:
        place: the list, or a folder of lists.
        manifest: the store's manifest, whose provenance holds the rules.
        report: report to which findings are added.

    Raises:
        DataError: the list is missing or malformed.
    """

    def __init__(self, place: str | Path, manifest: Manifest, report: VerifyReport) -> None:
        self.place, self.spec, self.report = str(place), manifest.spec, report
        self.rules = dict(manifest.spec.provenance.get("rules") or {})
        self.events, _ = read_events([place], separator=self.rules.get("separator"))
        self._clips: dict[str, Clip] = {}
        self._compare_files()

    def compare(
        self, split: str, file: str, ids: list[str], columns: dict[str, np.ndarray]
    ) -> None:
        """Keep the labels of clips, which are compared when all clips are known."""
        features = [columns[name].reshape(*columns[name].shape[:2], -1)
                    for name in self.spec.feature_names
                    if columns[name].shape[1] == self.spec.segments]  # fmt: skip
        empty = np.all([(values == 0).all(axis=2) for values in features], axis=0)  # (N, T)
        for i, clip_id in enumerate(ids):
            where = {"file": file, "split": split, "row": int(columns["row"][i])}
            labels = {n: columns[n][i] for n in self.spec.labels if self.spec.known(n, split)}
            padded = empty[i] if features else np.zeros(self.spec.segments, bool)
            self._clips[clip_id] = Clip({**where, "clip_id": clip_id}, labels, padded)

    def finish(self, left_out: set[str]) -> None:
        """Report clips whose split or labels are not those of the list, and videos without clips.

        Raises:
            DataError: the list contradicts itself, or has none of the videos.
        """
        videos: dict[str, list[tuple[str, float]]] = {}
        listed = {name for event in self.events for name in names_of(event.video)}
        for clip_id in self._clips:
            found, name, start = WINDOW.fullmatch(clip_id), clip_id, 0.0
            if found and plain(clip_id) not in listed and plain(found[1]) in listed:
                name, start = found[1], float(found[2])
            videos.setdefault(name, []).append((clip_id, start))
        splits = {name: self._clips[clips[0][0]].where["split"] for name, clips in videos.items()}
        one = {*splits.values()} if not any(event.split for event in self.events) else set()
        labels = EventLabels(
            EventOptions(events=(self.place,), **self.rules),
            videos=list(videos),
            task=self.spec.task,
            segments=self.spec.segments,
            split=one.pop() if len(one) == 1 else None,
            fixed=splits,
        )
        if labels.spec["classes"] != list(self.spec.classes):
            here, there = set(self.spec.classes), set(labels.spec["classes"])
            text = "; ".join(
                f"only {what}: {', '.join(sorted(names))}"
                for what, names in (("in the store", here - there), ("listed", there - here))
                if names
            )
            self.report.error("classes are not those of the list", text or "in another order")
            return
        for name, clips in videos.items():
            if name in labels.table.videos:
                self._compare_video(name, clips, labels)
            else:
                self._unlisted(clips)
        gone = [text for text in labels.table.unknown if _video_of(text) not in left_out]
        if gone:
            more = f"; and {len(gone) - LISTED} more" if len(gone) > LISTED else ""
            text = f"{counted(len(gone), 'video')}: {'; '.join(gone[:LISTED])}{more}"
            self.report.warn("listed videos that are not here", text)

    def _compare_video(
        self, name: str, clips: Sequence[tuple[str, float]], labels: EventLabels
    ) -> None:
        length = self.spec.segments * self.spec.segment_seconds
        windows = [(start, start + length) for _, start in clips]
        try:
            found = labels.labels(name, windows, duration=np.inf, note=False)
        except DataError as error:
            self.report.error(DIFFERS, str(error), **self._clips[clips[0][0]].where)
            return
        known = labels.spec["label_splits"]
        for (clip_id, _), expected in zip(clips, found, strict=True):
            clip = self._clips[clip_id]
            split = clip.where["split"]
            if labels.splits[name] != split:
                there = labels.splits[name]
                text = f"{split} here, {there} there"
                self.report.error("clip in another split than listed", text, **clip.where)
            timed = {n for n in expected if labels.splits[name] in known.get(n, [split])}
            if labels.splits[name] == split and timed != set(clip.labels):
                text = f"only known on one side: {', '.join(sorted(timed ^ set(clip.labels)))}"
                self.report.error("times are not known alike", text, **clip.where)
            differ = [n for n in sorted(timed & set(clip.labels))
                      if not np.array_equal(expected[n], clip.labels[n])]  # fmt: skip
            if differ := self._without_padding(differ, expected, clip):
                text = f"{', '.join(differ)} {'differs' if len(differ) == 1 else 'differ'}"
                self.report.error(DIFFERS, text, **clip.where)

    def _without_padding(
        self, names: list[str], expected: dict[str, np.ndarray], clip: Clip
    ) -> list[str]:
        """Return the labels that differ also within the video.

        An event that ends after its video was cut there; the store does not tell where, but its
        segments after the end hold no features.
        """
        each = {n: expected[n].ndim and len(expected[n]) == len(clip.padded) for n in names}
        timed = [n for n in names if each[n]]
        inside = [
            n
            for n in timed
            if not np.array_equal(expected[n][~clip.padded], clip.labels[n][~clip.padded])
        ]
        cut = timed and not inside
        return inside if cut else [*inside, *(n for n in names if not each[n])]

    def _unlisted(self, clips: Sequence[tuple[str, float]]) -> None:
        """Report clips that have events, of a video that the list does not have."""
        nothing = self.spec.classes.index("background") if "background" in self.spec.classes else 0
        for clip_id, _ in clips:
            clip = self._clips[clip_id]
            values = {
                n: 0 if self.spec.label_dtypes[n] == "uint8" else nothing for n in clip.labels
            }
            if any((clip.labels[n] != value).any() for n, value in values.items()):
                self.report.error(
                    "clip that the list does not have", f"in {self.place}", **clip.where
                )

    def _compare_files(self) -> None:
        """Warn of lists that are not the ones that the store was made of."""
        recorded = self.spec.provenance.get("annotations")
        stamps = recorded if isinstance(recorded, dict) else {}
        for file in sorted({event.file for event in self.events}):
            stamp = stamps.get(Path(file).name)
            if not isinstance(stamp, dict) or file_sha256(expanded(file)) != stamp.get("sha256"):
                what = "its sha256 differs" if stamp else "the store does not know its name"
                self.report.warn("list is not the one that was read", what, file=file)


def _video_of(text: str) -> str:
    """Return the name of the video in a line of `EventTable.unknown`."""
    return text.partition("there is no video '")[2].partition("'")[0]
