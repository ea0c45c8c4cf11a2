"""Draws at random which events of a clip are heard and seen, and when; nothing is rendered here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from avplatform.data.adapters.llp.annotations import SEGMENTS
from avplatform.data.adapters.llp.classes import CLASSES
from avplatform.models.errors import UsageError

BACKGROUND_SHARE = 0.08
EVENT_COUNTS = (0.5, 0.35, 0.15)  # clips with one, two and three classes
RELATIONS = {"together": 0.4, "apart": 0.3, "audio": 0.15, "visual": 0.15}
"""A class is heard and seen in the same seconds, in other ones, or only heard, or only seen."""
WHOLE_SHARE = 0.1  # events that last the whole clip
LONGEST = 7
AT_A_TIME = 2  # events that are heard, or seen, at the same time
TRIES = 200


@dataclass(frozen=True, kw_only=True)
class PlannedEvent:
    """An event that is heard ("audio") or seen ("visual").

    It lasts from `onset` to `offset`, in whole seconds; `offset` is excluded.
    """

    label: str
    stream: str
    onset: int
    offset: int


@dataclass(frozen=True, kw_only=True)
class PlannedClip:
    """A clip of a split with its events; its name is also the seed of its pictures and sounds."""

    name: str
    split: str
    events: tuple[PlannedEvent, ...]

    def seed(self, seed: int, part: str) -> list[int]:
        """Return the seed of a part of the clip, the same in any order and subset."""
        digest = hashlib.sha256(f"{seed} {self.name} {part}".encode()).digest()
        return [int.from_bytes(digest[at : at + 4], "big") for at in (0, 4, 8)]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All clips, and the seed that they were drawn from."""

    seed: int
    clips: tuple[PlannedClip, ...]

    def to_json(self) -> str:
        """Return the plan as JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what `to_json` gave."""
        data = json.loads(text)
        clips = [
            PlannedClip(
                **{**clip, "events": tuple(PlannedEvent(**event) for event in clip["events"])}
            )
            for clip in data["clips"]
        ]
        return cls(seed=data["seed"], clips=tuple(clips))


def make_plan(
    sizes: dict[str, int], *, heard: Sequence[str], seen: Sequence[str], seed: int
) -> Plan:
    """Draw the clips of all splits.

    Args:
        sizes: clips by split.
        heard: classes of which there are sounds.
        seen: classes of which there are photos.
        seed: of everything.

    Raises:
        UsageError: a split without clips.
    """
    clips = []
    for split, size in sizes.items():
        if size < 1:
            raise UsageError(f"{split} is to have {size} clips; give at least 1")
        for index in range(size):
            blank = PlannedClip(name=f"{split}_{index:04d}", split=split, events=())
            rng = np.random.default_rng(blank.seed(seed, "plan"))
            clips.append(
                PlannedClip(name=blank.name, split=split, events=draw_events(rng, heard, seen))
            )
    return Plan(seed=seed, clips=tuple(clips))


def draw_events(
    rng: np.random.Generator, heard: Sequence[str], seen: Sequence[str]
) -> tuple[PlannedEvent, ...]:
    """Draw the events of one clip; every class is equally likely."""
    if rng.random() < BACKGROUND_SHARE:
        return ()
    known = sorted({*heard, *seen})
    count = min(1 + int(rng.choice(len(EVENT_COUNTS), p=EVENT_COUNTS)), len(known))
    chosen = [known[index] for index in rng.choice(len(known), count, replace=False)]
    for _ in range(TRIES):
        events = [
            event
            for label in chosen
            for event in _of_class(rng, label, label in heard, label in seen)
        ]
        if all(_most(events, stream) <= AT_A_TIME for stream in ("audio", "visual")):
            break
    else:
        events = [event for event in events if event.label == chosen[0]]
    return tuple(sorted(events, key=lambda event: (event.onset, event.stream, event.label)))


def label_maps(clip: PlannedClip) -> dict[str, np.ndarray]:
    """Return LLP's labels of a clip.

    Shape: "weak" [25]; "dense_audio" and "dense_visual" [10, 25]; zeros and ones.
    """
    maps = {
        f"dense_{stream}": np.zeros((SEGMENTS, len(CLASSES)), np.uint8)
        for stream in ("audio", "visual")
    }
    for event in clip.events:
        maps[f"dense_{event.stream}"][event.onset : event.offset, CLASSES.index(event.label)] = 1
    return {"weak": np.maximum(*maps.values()).max(axis=0), **maps}


def _of_class(rng: np.random.Generator, label: str, heard: bool, seen: bool) -> list[PlannedEvent]:
    relation = (
        str(rng.choice(list(RELATIONS), p=list(RELATIONS.values())))
        if heard and seen
        else "audio"
        if heard
        else "visual"
    )
    first, second = _interval(rng), _interval(rng)
    streams = {"audio": ["audio"], "visual": ["visual"]}.get(relation, ["audio", "visual"])
    spans = {"audio": first, "visual": second if relation == "apart" else first}
    return [
        PlannedEvent(label=label, stream=name, onset=spans[name][0], offset=spans[name][1])
        for name in streams
    ]


def _interval(rng: np.random.Generator) -> tuple[int, int]:
    length = SEGMENTS if rng.random() < WHOLE_SHARE else int(rng.integers(2, LONGEST + 1))
    onset = int(rng.integers(0, SEGMENTS - length + 1))
    return onset, onset + length


def _most(events: Sequence[PlannedEvent], stream: str) -> int:
    """Return how many events of a stream there are at once."""
    return max(
        sum(e.stream == stream and e.onset <= second < e.offset for e in events)
        for second in range(SEGMENTS)
    )
