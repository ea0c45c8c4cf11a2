"""Tables of a run of the speed benchmarks, its JSON file, and the comparison with another run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from avplatform.models.files import write_atomic
from benchmarks.timing import Results, Row

TABLE = (
    "| row | plain | ours | ratio (lowest to highest) | floor / aim | | share of peak "
    "| largest difference |\n|---|---|---|---|---|---|---|---|"
)
COMPARED = "| row | then | now | now / then | |\n|---|---|---|---|---|"
CONDITIONS = {"cpu": "processor", "cores": "cores", "threads": "threads", "torch": "torch"}
"""What two runs should have in common, by its name in the description of the machine."""


def line(row: Row) -> str:
    """Return a row of the table that `TABLE` heads."""
    if row.failure:
        return f"| {row.name} | | | {row.failure} | {_goals(row)} | {row.verdict()} | | |"
    if row.most is not None:
        limit = f"at most {row.most:g} {row.unit}"
        return f"| {row.name} | | {row.value:.3g} {row.unit} | | {limit} | {row.verdict()} | | |"
    share = "" if row.share is None else f"{row.share:.2f} ({row.reached})"
    difference = "" if row.difference is None else f"{row.difference:.1e}"
    return (
        f"| {row.name} | {duration(row.plain)} | {duration(row.seconds)} | {_ratio(row)} "
        f"| {_goals(row)} | {row.verdict()} | {share} | {difference} |"
    )


def duration(seconds: float | None) -> str:
    """Return seconds with a unit and three digits.

    Examples:
        >>> duration(0.00234), duration(12.5)
        ('2.34 ms', '12.5 s')
    """
    if seconds is None:
        return ""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}" if unit != "us" else f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e9:.0f} ns"


def _ratio(row: Row) -> str:
    assert row.ratio is not None and row.low is not None and row.high is not None
    digits = 0 if row.ratio >= 100 else 1 if row.ratio >= 10 else 2
    low, middle, high = (f"{value:.{digits}f}" for value in (row.low, row.ratio, row.high))
    return f"x{middle} ({low} to {high})"


def _goals(row: Row) -> str:
    return " / ".join(f"{goal:g}" for goal in (row.floor, row.aim) if goal is not None)


def conditions(then: Results, now: Results) -> list[str]:
    """Return a line for each condition that differs between two runs."""
    both = [(text, then.machine.get(key), now.machine.get(key)) for key, text in CONDITIONS.items()]
    return [
        f"note: other {text}: {'not stated' if old is None else old} then, {new} now"
        for text, old, new in (*both, ("rounds", then.rounds, now.rounds))
        if old != new
    ]


def compared(then: Sequence[Row], now: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Compare the rows of two runs by their ratios to the baseline.

    A row is worse beyond the spread if its ratio is below all ratios of the other run, and the
    other run's ratio is above all of its own. Rows of one run alone are named, not judged.

    Returns:
        the lines that `COMPARED` heads, and the names of the rows that are worse.
    """
    before = {(row.benchmark, row.name): row for row in then}
    lines, worse = [], []
    for row in now:
        old = before.pop((row.benchmark, row.name), None)
        change, note = ("", "only in this run") if old is None else _change(old, row)
        worse += [row.name] if note in ("WORSE", "FAILED") else []
        then_figure = "" if old is None else _figure(old)
        lines.append(f"| {row.name} | {then_figure} | {_figure(row)} | {change} | {note} |")
    asked = {row.benchmark for row in now}
    lines += [
        f"| {old.name} | {_figure(old)} | | | not in this run |"
        for (benchmark, _), old in before.items()
        if benchmark in asked
    ]
    return lines, worse


def _change(old: Row, row: Row) -> tuple[str, str]:
    """Return the quotient of the figures of two runs, and a word on it."""
    if row.failure:
        return "", "failed in both" if old.failure else "FAILED"
    if old.failure:
        return "", "failed then"
    if row.value is not None and old.value is not None:
        over = row.most is not None and row.value > max(row.most, old.value)
        return f"{row.value / old.value:.2f}" if old.value else "", "WORSE" if over else ""
    if row.ratio is None or old.ratio is None:
        return "", "not comparable"
    falls = row.ratio < (old.low or old.ratio) and old.ratio > (row.high or row.ratio)
    rises = row.ratio > (old.high or old.ratio) and old.ratio < (row.low or row.ratio)
    word = "WORSE" if falls else "better" if rises else "within the spread"
    return f"{row.ratio / old.ratio:.2f}", word


def _figure(row: Row) -> str:
    if row.value is not None:
        return f"{row.value:.3g} {row.unit}"
    return "" if row.ratio is None else _ratio(row)


def write(results: Results, file: Path) -> None:
    """Write a run as JSON."""
    text = json.dumps(results.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(file, f"{text}\n")


def read(file: Path) -> Results:
    """Return a run that `write` wrote.

    Raises:
        SystemExit: the file is not one, with a message.
    """
    try:
        return Results.of(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SystemExit(
            f"{file} cannot be compared with ({type(error).__name__}: {error}); give a file that "
            "python -m benchmarks --json wrote"
        ) from None
