"""Published results as data: which paper reports what for an encoder, decoder and supervision."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.models.errors import DataError, counted, nearest
from avplatform.tasks.registry import TASKS

OTHER = "other"
"""Stands for an encoder or decoder that is not registered; a name says which one it is."""

FILE = "published.yaml"
SCHEMA = 1
SELECTIONS = ("validation", "test", "last")
REPORTERS = ("paper", "release", "user")
REFINEMENTS = {"exchange": "refined", "noise-ratio": "noise_ratios", "drop": "refined"}
"""The commands that refine labels, and the option of the task that names the file of each."""
SUBSETS = ("overlapping", "non_overlapping")


@dataclass(kw_only=True, frozen=True)
class Source:
    """The place of a figure: paper, venue, and the table, figure, thread or log."""

    paper: str
    venue: str
    table: str

    def __str__(self) -> str:
        return f"{self.paper} ({self.venue}), {self.table}"


@dataclass(kw_only=True, frozen=True)
class Row:
    """One published result; the comment at the top of the data file explains each field."""

    method: str
    task: str
    source: Source
    features: str
    encoder: str
    decoder: str
    encoder_name: str | None = None
    decoder_name: str | None = None
    supervision: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    average: float | None = None
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)
    per_class_average: dict[str, float] = field(default_factory=dict)
    subset: str | None = None
    label_embeddings: str | None = None
    selection: str | None = None
    reported_by: str = "paper"
    preset: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    open_presets: tuple[str, ...] = ()
    refined: dict[str, str] = field(default_factory=dict)
    headline: bool = False
    note: str | None = None

    def is_of(self, task: str, encoder: str, decoder: str, supervision: str) -> bool:
        """Return whether this is a result of the cell; without a supervision it fits every one."""
        own = (self.task, self.encoder, self.decoder)
        return own == (task, encoder, decoder) and self.supervision in (None, supervision)


@dataclass(kw_only=True, frozen=True)
class Table:
    """The results of one published table, in the order of their source."""

    key: str
    title: str
    rows: tuple[Row, ...]


@cache
def published_tables() -> dict[str, Table]:
    """Return all tables by key.

    Raises:
        DataError: the data file breaks its schema; the message names the table and row.

    Examples:
        >>> published_tables()["leap-table-5"].rows[1].metrics
        {'accuracy': 68.8}
    """
    return read_tables(files("avplatform.catalogue").joinpath(FILE).read_text(encoding="utf-8"))


def published_rows(
    task: str, encoder: str, decoder: str, supervision: str
) -> list[tuple[str, Row]]:
    """Return (table key, row) of all results of a cell, in the order of the file."""
    return [
        (key, row)
        for key, table in published_tables().items()
        for row in table.rows
        if row.is_of(task, encoder, decoder, supervision)
    ]


def headline(task: str, encoder: str, decoder: str, supervision: str) -> Row | None:
    """Return the result by which a cell is known, if possible one that states its supervision."""
    rows = [row for _, row in published_rows(task, encoder, decoder, supervision) if row.headline]
    return next((row for row in rows if row.supervision), rows[0] if rows else None)


def read_tables(text: str) -> dict[str, Table]:
    """Return the checked tables of a data file's text.

    Raises:
        DataError: a field or name is unknown, a field is missing, a number lies outside 0 to 100,
            or a cell has two headlines.
    """
    data = yaml.safe_load(text)
    if (
        not isinstance(data, dict)
        or data.get("schema") != SCHEMA
        or not isinstance(data.get("tables"), dict)
    ):
        raise DataError(f"{FILE} must hold 'schema: {SCHEMA}' and a mapping 'tables'")
    tables = {key: _table(key, table) for key, table in data["tables"].items()}
    seen = set()
    for row in (row for table in tables.values() for row in table.rows if row.headline):
        cell = (row.task, row.encoder, row.decoder, row.supervision)
        if cell in seen:
            raise DataError(f"{FILE}: two headlines for {' '.join(map(str, cell))}; keep one")
        seen.add(cell)
    return tables


def _table(key: str, data: dict[str, Any]) -> Table:
    shared = {name: value for name, value in data.items() if name not in ("title", "rows")}
    for name in ("title", "rows"):
        if not data.get(name):
            raise DataError(f"{FILE}: table {key} has no {name}")
    rows = []
    for number, own in enumerate(data["rows"], start=1):
        rows.append(_row({**shared, **own}, f"{FILE}: table {key}, row {number}"))
    return Table(key=key, title=data["title"], rows=tuple(rows))


def _row(data: dict[str, Any], where: str) -> Row:
    columns, values = data.pop("columns", []), data.pop("values", [])
    if len(columns) != len(values):
        raise DataError(
            f"{where}: {counted(len(values), 'value')} for {counted(len(columns), 'column')}"
        )
    names = {f.name: f for f in dataclasses.fields(Row)}
    for name in data:
        if name not in names or name == "metrics":
            raise DataError(f"{where}: unknown field '{name}'{nearest(name, names)}")
    nothing = dataclasses.MISSING
    needed = [n for n, f in names.items() if f.default is f.default_factory is nothing]
    missing = [name for name in needed if not data.get(name)]
    if missing:
        raise DataError(f"{where}: {', '.join(missing)} missing")
    try:
        source = Source(**data.pop("source"))
    except TypeError:
        raise DataError(f"{where}: source must hold paper, venue and table") from None
    data["open_presets"] = tuple(data.get("open_presets", ()))
    row = Row(**data, source=source, metrics=dict(zip(columns, values, strict=True)))
    _check(row, where)
    return row


def _check(row: Row, where: str) -> None:
    """Raise DataError if a row has an unknown name, no values, or a value outside 0 to 100."""
    _known(row.task, TASKS, "task", where)
    for kind, name, own, table in (
        ("encoder", row.encoder, row.encoder_name, {**ENCODERS}),
        ("decoder", row.decoder, row.decoder_name, {**DECODERS}),
    ):
        _known(name, {**table, OTHER: None}, kind, where)
        if name == OTHER and not own:
            raise DataError(f"{where}: {kind} is other, so {kind}_name must say which")
    for kind, value, choices in (
        ("supervision", row.supervision, TASKS[row.task].supervisions),
        ("selection", row.selection, SELECTIONS),
        ("reported_by", row.reported_by, REPORTERS),
        ("subset", row.subset, SUBSETS),
    ):
        if value is not None:
            _known(value, choices, kind, where)
    if row.refined:
        if set(row.refined) != {"rule", "preset"} or not row.preset:
            raise DataError(f"{where}: refined must hold rule and preset, beside the row's preset")
        _known(row.refined["rule"], REFINEMENTS, "rule", where)
    if not row.metrics and not row.per_class:
        raise DataError(f"{where}: neither values nor per_class")
    numbers = [*row.metrics.values(), *row.per_class_average.values()]
    numbers += [value for stream in row.per_class.values() for value in stream.values()]
    numbers += [] if row.average is None else [row.average]
    wrong = [n for n in numbers if type(n) not in (int, float) or not 0 <= n <= 100]
    if wrong:
        raise DataError(f"{where}: {wrong[0]!r} is not a percentage from 0 to 100")


def _known(name: Any, known: Any, kind: str, where: str) -> None:
    if name not in known:
        raise DataError(
            f"{where}: unknown {kind} '{name}'{nearest(str(name), known)} "
            f"(known: {', '.join(known)})"
        )
