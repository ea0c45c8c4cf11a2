"""What a speed benchmark is made of: a plain baseline, our sides of it, and how they are timed.

All sides of a comparison run in turn in one process, on one thread, after their results were
compared. A figure is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import torch

from avplatform.models.errors import one_line

GEMM = 1024
"""Rows and columns of the matrices whose product is the peak of arithmetic."""
COPY = 2**27
"""Bytes of the copy that is the peak of memory: more than the caches of most machines hold."""
KINDS = {"float32": "GF/s", "bfloat16": "GF/s", "copy": "GB/s"}
"""What a peak is measured of, and its unit."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a benchmark may use.

    Attributes:
        folder: an empty folder for its files.
        bf16: whether bfloat16 is multiplied in hardware; rows of it are left out otherwise.
    """

    folder: Path
    bf16: bool


@dataclass(kw_only=True)
class Side:
    """One way of doing the work, which is compared with the baseline.

    Attributes:
        name: the name of its row.
        run: the work.
        difference: returns how far its results are from the baseline's; None: nothing to compare.
        tolerance: the largest difference that is accepted.
        floor, aim: the ratio that must be reached, and the one that is aimed at.
        work: the floating-point operations of `run`, or the bytes that it reads and writes; 0: its
            share of the machine's peak is not shown.
        kind: which peak it is compared with, a key of `KINDS`.
        repeats: how often it runs each time, for work that is short next to the clock.
    """

    name: str
    run: Callable[[], Any]
    difference: Callable[[], float] | None = None
    tolerance: float = 0.0
    floor: float | None = None
    aim: float | None = None
    work: float = 0.0
    kind: str = "float32"
    repeats: int = 1


@dataclass(kw_only=True)
class Comparison:
    """A baseline and the sides that do the same work.

    Attributes:
        title: what is compared, in a few words.
        plain: the baseline.
        sides: what is compared with it.
        rounds: times the number of rounds that the user asked for.
        clock: "cpu" for the CPU time of the process, which other programs disturb less, "wall" for
            the clock, or "own" if the work returns its seconds.
        plain_repeats: how often the baseline runs each time.
    """

    title: str
    plain: Callable[[], Any]
    sides: list[Side]
    rounds: int = 1
    clock: Literal["cpu", "wall", "own"] = "cpu"
    plain_repeats: int = 1


@dataclass(kw_only=True)
class Bound:
    """A figure that has no baseline but a limit, such as memory."""

    name: str
    value: float
    unit: str
    most: float


@dataclass(kw_only=True)
class Row:
    """One row of the table; seconds are medians, ratios those of a round.

    Attributes:
        low, high: the lowest and the highest ratio.
        share: the share of the machine's peak, between the best rounds of both.
        reached: the rate behind it, such as "74 of 94 GF/s".
        failure: why the row has no figures; its sides differ, for instance.
    """

    benchmark: str
    name: str
    plain: float | None = None
    seconds: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    floor: float | None = None
    aim: float | None = None
    difference: float | None = None
    share: float | None = None
    reached: str = ""
    value: float | None = None
    unit: str = ""
    most: float | None = None
    failure: str = ""

    def verdict(self) -> str:
        """Return what the row says of its floor and aim, or of its limit."""
        if self.failure:
            return "FAILED"
        if self.most is not None and self.value is not None:
            return "met" if self.value <= self.most else "MISSED"
        if self.floor is None or self.ratio is None:
            return ""
        if self.ratio < self.floor:
            return "MISSED"
        return "aim" if self.aim is not None and self.ratio >= self.aim else "floor"

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values, without what it lacks."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Row:
        """Return the row of JSON values."""
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


def rows(benchmark: str, item: Comparison | Bound, rounds: int) -> Iterator[Row]:
    """Compare the results of all sides with the baseline's, time those that agree, yield rows."""
    if isinstance(item, Bound):
        named = {"name": item.name, "value": item.value, "unit": item.unit, "most": item.most}
        yield Row(benchmark=benchmark, **named)
        return
    agreeing: list[tuple[Side, float | None]] = []
    for side in item.sides:
        found = side.difference() if side.difference is not None else None
        if found is None or found <= side.tolerance:  # False for NaN
            agreeing.append((side, found))
            continue
        reason = f"differs from the baseline by {found:.2e}, more than {side.tolerance:.0e}"
        known = found if math.isfinite(found) else None  # JSON has no other numbers
        yield Row(benchmark=benchmark, name=side.name, difference=known, failure=reason)
    sides = [side for side, _ in agreeing]
    times, probes = measure(item, sides, rounds * item.rounds)
    for side, found in agreeing:
        yield _row(benchmark, side, times["plain"], times[side.name], probes, found)


def failed(benchmark: str, name: str, error: Exception) -> Row:
    """Return the row of a benchmark, or of a part of it, that raised an error."""
    return Row(benchmark=benchmark, name=name, failure=one_line(error, named=True))


def _row(
    benchmark: str,
    side: Side,
    plain: Sequence[float],
    ours: Sequence[float],
    probes: Mapping[str, Sequence[float]],
    difference: float | None,
) -> Row:
    ratios = [a / b for a, b in zip(plain, ours, strict=True)]
    row = Row(
        benchmark=benchmark,
        name=side.name,
        plain=statistics.median(plain),
        seconds=statistics.median(ours),
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        floor=side.floor,
        aim=side.aim,
        difference=difference,
    )
    if side.work:
        speed, peak = side.work / min(ours), _work(side.kind) / min(probes[side.kind])
        row.share = speed / peak
        row.reached = f"{speed / 1e9:.3g} of {peak / 1e9:.3g} {KINDS[side.kind]}"
    return row


def measure(
    item: Comparison, sides: Sequence[Side], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Time a baseline, the sides, and the peaks that they need in turn, after an untimed round.

    Returns:
        the seconds of one run in each round, of "plain" and of each side by its name, and those of
        each peak by its kind.
    """
    jobs = {"plain": (item.plain, item.plain_repeats)}
    jobs |= {side.name: (side.run, side.repeats) for side in sides}
    kinds = sorted({side.kind for side in sides if side.work})
    times: dict[str, list[float]] = {name: [] for name in jobs}
    probes: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(rounds + 1):
        for name, (run, repeats) in jobs.items():
            seconds = _time(run, repeats, item.clock)
            if number:
                times[name].append(seconds)
        for kind in kinds:
            seconds = _time(probe(kind), 3, "cpu" if item.clock == "own" else item.clock)
            if number:
                probes[kind].append(seconds)
    return times, probes


def _time(run: Callable[[], Any], repeats: int, clock: str) -> float:
    """Return the seconds of one run, as the mean over the repeats."""
    gc.collect()  # what the work before left behind is not charged to this one
    if clock == "own":
        return statistics.fmean(float(run()) for _ in range(repeats))
    now = time.process_time if clock == "cpu" else time.perf_counter
    started = now()
    for _ in range(repeats):
        run()
    return max((now() - started) / repeats, 1e-9)


def peaks(kinds: Sequence[str], rounds: int = 7) -> dict[str, float]:
    """Return what this machine reaches on one thread, by kind, in GF/s or GB/s (read and write)."""
    found: dict[str, float] = {}
    for kind in kinds:
        best = min(_time(probe(kind), 3, "cpu") for _ in range(rounds))
        found[kind] = _work(kind) / best / 1e9
    return found


@cache
def probe(kind: str) -> Callable[[], Any]:
    """Return the work that is a machine's peak: a product of matrices, or a copy of memory."""
    if kind == "copy":
        source = torch.ones(COPY, dtype=torch.uint8)
        return partial(torch.empty_like(source).copy_, source)
    square = torch.randn(GEMM, GEMM).to(getattr(torch, kind))
    return partial(torch.mm, square, square, out=torch.empty_like(square))


def _work(kind: str) -> float:
    """Return the floating-point operations, or the bytes read and written, of a probe."""
    return 2.0 * COPY if kind == "copy" else 2.0 * GEMM**3


@dataclass(kw_only=True)
class Results:
    """What a run of the program found.

    Attributes:
        machine: the versions and the hardware, and how busy it was.
        peaks: what one thread reaches, by kind.
        rows: the rows of all benchmarks.
        notes: what was left out, and why.
    """

    machine: dict[str, Any]
    rounds: int
    peaks: dict[str, float] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {**vars(self), "rows": [row.to_dict() for row in self.rows]}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Results:
        """Return what `to_dict` returned."""
        found = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        return cls(**{**found, "rows": [Row.of(row) for row in values["rows"]]})
