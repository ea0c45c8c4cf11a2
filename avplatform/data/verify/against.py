"""Find clips of one store that stand in another one too, perhaps in another split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from avplatform.data.adapters.contracts import DatasetAdapter
from avplatform.data.adapters.registry import adapter_of_spec
from avplatform.data.reading.source import DataSource, locate_store, train_loader
from avplatform.data.store.schema import Manifest
from avplatform.data.verify.report import VerifyReport
from avplatform.models.errors import counted

Ids = Mapping[str, Sequence[str]]
"""The clip ids of each split."""
FITTED = "train"


@dataclass(frozen=True)
class Shared:
    """A video with a clip in both stores; times are in seconds, or None where ids tell none."""

    split: str
    clip_id: str
    other_split: str
    other_id: str
    seconds: tuple[float, float] | None = None
    other_seconds: tuple[float, float] | None = None

    @property
    def leaks(self) -> bool:
        """Whether one store trains on a video that the other one scores."""
        return (self.split == FITTED) != (self.other_split == FITTED)

    @property
    def text(self) -> str:
        """What is known of the seconds of the video."""
        if self.seconds is None or self.other_seconds is None:
            known = self.seconds or self.other_seconds
            at = "" if known is None else f" ({_span(known)} {'here' if self.seconds else 'there'})"
            return f"{self.other_id} there{at}; whether the seconds are the same is not known"
        apart = max(self.seconds[0], self.other_seconds[0]) >= min(
            self.seconds[1], self.other_seconds[1]
        )
        which = "other seconds of the video" if apart else "seconds in common"
        return f"{self.other_id} there: {which}, {_span(self.seconds)} here and " + (
            f"{_span(self.other_seconds)} there"
        )


def check_against(
    path: Path,
    manifest: Manifest,
    other: str,
    report: VerifyReport,
    *,
    note: Callable[[str], None] | None = None,
) -> None:
    """Warn of the clips of a store whose videos another store has too.

    Args:
        path: folder of the store, whose shards are there.
        manifest: its manifest.
        other: folder or hub id of the other store.
        report: report to which findings are added.
        note: called with a message before slow steps.

    Raises:
        DataError: the other store, or the ids of one of them, cannot be read.
    """
    place, hub = locate_store(other, progress=note)
    there = Manifest.read(place)
    ids = clip_ids(DataSource(path, manifest))
    other_ids = clip_ids(DataSource(place, there, hub=hub, progress=note))
    adapters = adapter_of_spec(manifest.spec), adapter_of_spec(there.spec)
    found = list(shared_clips(ids, other_ids, *adapters))
    name = there.spec.name
    for shared in found:
        kind = f"{shared.split} here, {shared.other_split} in {name}"
        where = {"split": shared.split, "clip_id": shared.clip_id}
        report.warn(f"leak: {kind}" if shared.leaks else kind, shared.text, **where)
    total = sum(map(len, ids.values()))
    clips = {(s.clip_id, s.split, s.other_split): s for s in found}.values()
    pairs = Counter((s.split, s.other_split) for s in clips)
    listed = ", ".join(f"{n} in {a} here and {b} there" for (a, b), n in pairs.items())
    report.counts[f"against {name}"] = (
        f"{len({s.clip_id for s in found})} of {counted(total, 'clip')} are of videos that stand "
        f"there too{': ' + listed if listed else ''}"
    )


def shared_clips(
    ids: Ids,
    other_ids: Ids,
    adapter: DatasetAdapter | None,
    other_adapter: DatasetAdapter | None,
) -> Iterator[Shared]:
    """Yield every clip of the first store whose video the other one has, with the clip there.

    Videos are compared by the id that a dataset's clip ids contain, or else by the whole clip id.
    """
    there: dict[str, list[tuple[str, str]]] = {}
    for split, names in other_ids.items():
        for clip_id in names:
            there.setdefault(_video(other_adapter, clip_id), []).append((split, clip_id))
    for split, names in ids.items():
        for clip_id in names:
            for other_split, other_id in there.get(_video(adapter, clip_id), []):
                yield Shared(
                    split,
                    clip_id,
                    other_split,
                    other_id,
                    None if adapter is None else adapter.seconds_of(clip_id),
                    None if other_adapter is None else other_adapter.seconds_of(other_id),
                )


def clip_ids(source: DataSource) -> dict[str, list[str]]:
    """Return the clip ids of each split; only their column is read, also from the Hub.

    Raises:
        DataError: a shard cannot be read, or does not match the manifest.
    """
    return {
        split: train_loader(source, [split], streaming=True, batch_size=1, seed=0).clip_ids()
        for split, info in source.manifest.splits.items()
        if info.rows
    }


def _video(adapter: DatasetAdapter | None, clip_id: str) -> str:
    video = None if adapter is None else adapter.video_of(clip_id)
    return clip_id if video is None else video


def _span(seconds: tuple[float, float]) -> str:
    return f"{seconds[0]:g} to {seconds[1]:g} s"
