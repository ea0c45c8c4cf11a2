"""Count the labels of a store, and find classes whose labels look wrong."""

from __future__ import annotations

from collections import Counter

import numpy as np

from avplatform.data.store.schema import BACKGROUND, CATEGORY, DataSpec
from avplatform.data.verify.report import VerifyReport
from avplatform.models.errors import counted

ENOUGH = 10  # clips from which on a class that is always the same is suspicious
PAIRS = 5  # pairs of classes that are listed


class LabelCounts:
    """Counts clips, events, overlaps and co-occurrence of the classes of a store.

    A label is read by its shape: 0 or 1 for each class, of the clip [C] or of each segment [T, C],
    or the position of one class, of the clip [] or of each segment [T].
    """

    def __init__(self, spec: DataSpec) -> None:
        self.spec = spec
        self.classes = [name for name in spec.classes if name != BACKGROUND]
        count = len(self.classes)
        self.clips: dict[str, np.ndarray] = {}  # split -> clips of each class
        self.sizes: Counter[str] = Counter()
        self.pairs = np.zeros((count, count), np.int64)
        self.events: Counter[str] = Counter()  # by label
        self.segments: dict[str, np.ndarray] = {}  # label -> segments with any, and with several
        self._first: dict[tuple[str, int], bytes] = {}
        self._same: Counter[tuple[str, int]] = Counter()
        self._varied: set[tuple[str, int]] = set()

    def add(self, split: str, columns: dict[str, np.ndarray]) -> None:
        """Count some clips of a split."""
        size, count = len(columns["row"]), len(self.classes)
        present = np.zeros((size, count), bool)
        for name in self.spec.labels:
            if name == CATEGORY or not self.spec.known(name, split):
                continue
            active = self._active(name, columns[name])  # (N, C) or (N, T, C)
            if active is None:
                continue
            if active.ndim == 3:
                self._maps(name, active)
                active = np.asarray(active.any(axis=1))
            present |= active
        self.sizes[split] += size
        self.clips[split] = self.clips.get(split, np.zeros(count, np.int64)) + present.sum(axis=0)
        self.pairs += present.T.astype(np.int64) @ present

    def _active(self, name: str, values: np.ndarray) -> np.ndarray | None:
        """Return a label as bool [N, C] or [N, T, C], or None if it is of another kind."""
        shape, total = tuple(self.spec.labels[name]), len(self.spec.classes)
        if self.spec.label_dtypes[name] == "uint8":
            if shape not in ((total,), (self.spec.segments, total)):
                return None
            kept = [n for n, one in enumerate(self.spec.classes) if one != BACKGROUND]
            return np.asarray(values, bool)[..., kept]
        if shape not in ((), (self.spec.segments,)):
            return None
        positions = [n for n, one in enumerate(self.spec.classes) if one != BACKGROUND]
        return np.asarray(values)[..., None] == np.array(positions)

    def _maps(self, name: str, active: np.ndarray) -> None:
        before = np.pad(active, [(0, 0), (1, 0), (0, 0)])[:, :-1]
        self.events[name] += int((active & ~before).sum())
        together = active.sum(axis=2)
        found = np.array([(together > 0).sum(), (together > 1).sum()])
        self.segments[name] = self.segments.get(name, np.zeros(2, np.int64)) + found
        for clip, column in np.argwhere(active.any(axis=1)):
            key, pattern = (name, int(column)), active[clip, :, column].tobytes()
            if key not in self._varied:
                self._same[key] += 1
                if self._first.setdefault(key, pattern) != pattern:
                    self._varied.add(key)

    def report(self, report: VerifyReport) -> None:
        """Add the counts, and warn of what is suspicious."""
        if not self.clips or not self.spec.labels:
            return
        total = np.sum(list(self.clips.values()), axis=0)
        order = sorted(range(len(total)), key=lambda n: -total[n])
        report.counts["clips by class"] = ", ".join(f"{self.classes[n]} {total[n]}" for n in order)
        for split, counts in self.clips.items():
            if missing := [self.classes[n] for n in order if not counts[n]]:
                report.counts[f"not in {split}"] = ", ".join(missing)
        for name, (some, several) in self.segments.items():
            share = several / max(1, some)
            report.counts[name] = (
                f"{counted(self.events[name], 'event')} in {counted(int(some), 'segment')}; "
                f"{share:.0%} of these have several classes"
            )
        upper = np.triu(self.pairs, 1)
        pairs = sorted(np.argwhere(upper).tolist(), key=lambda p: -upper[p[0], p[1]])[:PAIRS]
        if pairs:
            report.counts["often together"] = ", ".join(
                f"{self.classes[a]} and {self.classes[b]} {upper[a, b]}" for a, b in pairs
            )
        self._warn(total, report)

    def _warn(self, total: np.ndarray, report: VerifyReport) -> None:
        size = sum(self.sizes.values())
        for n, name in enumerate(self.classes):
            without = [split for split, counts in self.clips.items() if not counts[n]]
            if "train" in without and total[n] and name not in self.spec.unseen:
                text = f"{name}: {counted(int(total[n]), 'clip')} in other splits"
                report.warn("class without a training clip", text)
            if total[n] == size >= ENOUGH and len(self.classes) > 1:
                report.warn("class in every clip", f"{name}; nothing can be learned of it")
            for label in self.segments:
                key = (label, n)
                if key not in self._varied and self._same[key] >= ENOUGH:
                    clips = counted(self._same[key], "clip")
                    text = f"{label} of {name} is in the same segments of all its {clips}"
                    report.warn("event that never varies", text)
