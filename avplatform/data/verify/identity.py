"""Find clips that are stored twice, and clips that leak from one split into another."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from avplatform.data.adapters.contracts import DatasetAdapter
from avplatform.data.verify.report import VerifyReport
from avplatform.models.errors import counted


@dataclass
class _Place:
    split: str
    file: str
    row: int
    clip_id: str

    def __str__(self) -> str:
        return f"row {self.row} of {self.file}"


class ClipIndex:
    """Index of every clip's row, id and a digest of its features, a few hundred bytes per clip."""

    def __init__(self) -> None:
        self._rows: dict[int, list[_Place]] = {}
        self._ids: dict[str, list[_Place]] = {}
        self._features: dict[bytes, list[_Place]] = {}

    def add(self, split: str, file: str, ids: list[str], columns: dict[str, np.ndarray]) -> None:
        """Add some clips of a shard."""
        for i, clip_id in enumerate(ids):
            place = _Place(split, file, int(columns["row"][i]), clip_id)
            self._rows.setdefault(place.row, []).append(place)
            self._ids.setdefault(clip_id, []).append(place)
            digest = hashlib.blake2b(digest_size=16)
            for name in ("audio", "visual"):
                digest.update(np.ascontiguousarray(columns[name][i]).data)
            self._features.setdefault(digest.digest(), []).append(place)

    def check(self, adapter: DatasetAdapter | None, report: VerifyReport) -> None:
        """Report what is stored twice; repeated ids are only a warning if the dataset has some."""
        for first, *others in self._rows.values():
            text = f"{first.file} has that row too (clip {first.clip_id})"
            for place in others:
                report.error("row stored twice", text, **vars(place))
        inside: list[list[_Place]] = []
        across: list[list[_Place]] = []
        for places in self._ids.values():
            splits = [place.split for place in places]
            if len(set(splits)) > 1:
                across.append(places)
            if len(set(splits)) < len(splits):
                inside.append(places)
        if adapter is not None and not adapter.unique_ids:
            self._warn_of_ids(report, inside, across)
        else:
            kinds = (("clip twice in a split", inside), ("leak: clip in several splits", across))
            for kind, found in kinds:
                for first, *others in found:
                    text = "also " + "; ".join(f"{place} ({place.split})" for place in others)
                    report.error(kind, text, **vars(first))
            if adapter is not None:
                self._same_video(adapter, report)
        for first, *others in self._features.values():
            if all(place.clip_id == first.clip_id for place in others):
                continue
            leak = any(place.split != first.split for place in others)
            text = "; ".join(
                f"{place} (clip {place.clip_id}, {place.split}) has them too" for place in others
            )
            report.warn(
                "leak: the same features in several splits"
                if leak
                else "clips with the same features",
                text,
                **vars(first),
            )

    def _warn_of_ids(
        self, report: VerifyReport, inside: list[list[_Place]], across: list[list[_Place]]
    ) -> None:
        if across:
            listed = "; ".join(
                f"{places[0].clip_id} ({', '.join(dict.fromkeys(p.split for p in places))})"
                for places in across
            )
            text = f"{counted(len(across), 'video id')} in more than one split: {listed}"
            report.warn("leak: video id in several splits", text)
        if inside:
            listed = "; ".join(
                f"{places[0].clip_id} (rows {', '.join(str(p.row) for p in places)})"
                for places in inside
            )
            report.warn(
                "video id several times in a split", f"{counted(len(inside), 'video id')}: {listed}"
            )

    def _same_video(self, adapter: DatasetAdapter, report: VerifyReport) -> None:
        """Warn of videos whose clips are in several splits."""
        videos: dict[str, list[_Place]] = {}
        for clip_id, places in self._ids.items():
            if (video := adapter.video_of(clip_id)) is not None:
                videos.setdefault(video, []).append(places[0])
        for places in videos.values():
            if len({place.split for place in places}) > 1:
                text = "; ".join(f"{place.clip_id} ({place.split})" for place in places)
                report.warn("leak: clips of one video in several splits", text)
