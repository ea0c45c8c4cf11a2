"""Cells with their cost and published figures, as `list`, `info` and docs/cells.md show them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from avplatform.catalogue.cells import Cell
from avplatform.catalogue.cost import Cost, cost_of
from avplatform.catalogue.kept import current_facts
from avplatform.catalogue.published import Row, headline, published_rows
from avplatform.config.build import published_config
from avplatform.config.run import default_config
from avplatform.models.errors import UsageError
from avplatform.tasks.registry import TASKS


def cell_cost(cell: Cell) -> Cost | None:
    """Return the cost of a cell's defaults on real features.

    None: no dataset gives shapes, or the defaults do not fit them, such as heads that do not divide
    the width of features that the encoder takes as they are.
    """
    config = default_config(cell.task, cell.encoder, cell.decoder, cell.supervision)
    model = published_config(config)
    try:
        return None if model is None else cost_of(model)
    except UsageError:
        return None


class Totals(NamedTuple):
    """What a cell costs in all: trainable parameters, and operations of one clip."""

    parameters: int
    flops: int


def cell_totals(cell: Cell) -> Totals | None:
    """Return what a cell costs in all, see `cell_cost`.

    Cells of this package are looked up in the kept facts, because counting those of all takes
    seconds; a test counts them.
    """
    known = None if cell.status == "outside" else _kept_totals().get(cell.name)
    return known or counted_totals(cell)


def counted_totals(cell: Cell) -> Totals | None:
    """Return what a cell costs in all, counted now."""
    cost = cell_cost(cell)
    return None if cost is None else Totals(cost.total_parameters, cost.total_flops)


@cache
def _kept_totals() -> dict[str, Totals]:
    """Return the totals of this package's cells that have a cost, by name, as far as they hold."""
    kept = current_facts() or {"cells": []}
    return {
        cell["name"]: Totals(cell["parameters"], cell["flops_per_clip"])
        for cell in kept["cells"]
        if cell["parameters"] is not None
    }


def cell_record(cell: Cell) -> dict[str, Any]:
    """Return a cell as plain JSON values."""
    cost = cell_totals(cell)
    return {
        "name": cell.name,
        "task": cell.task,
        "encoder": cell.encoder,
        "decoder": cell.decoder,
        "supervision": cell.supervision,
        "status": cell.status,
        "source": cell.source or None,
        "code_released": any(p.code for p in cell.publications),
        "figures": cell.figures,
        "parameters": cost and cost.parameters,
        "flops_per_clip": cost and cost.flops,
        "published": cell_figures(cell),
        "presets": list(cell.presets),
        "exact_preset": cell.exact,
        "reads": cell.reads,
        "loss": cell.loss,
        "decision": cell.decision,
        "default": cell.default,
    }


def cell_figures(cell: Cell) -> list[dict[str, Any]]:
    """Return all published results of a cell, without those that only have values per class."""
    rows = published_rows(cell.task, cell.encoder, cell.decoder, cell.supervision)
    return [figure(key, row) for key, row in rows if row.metrics]


def figure(key: str, row: Row) -> dict[str, Any]:
    """Return one published result as plain values: table, metrics, source and qualifications."""
    about = {
        "method": row.method,
        "features": row.features,
        "supervision": row.supervision or "not stated",
        "subset": row.subset,
        "selection": row.selection,
        "reported_by": row.reported_by,
        "note": row.note,
    }
    return {
        "table": key,
        **row.metrics,
        "source": str(row.source),
        **{k: v for k, v in about.items() if v is not None},
    }


@dataclass(kw_only=True, frozen=True)
class Headline:
    """The published figure by which a cell is known: its numbers, their source, and a mark."""

    numbers: str
    source: str
    marked: bool  # the source does not state the supervision


def cell_headline(cell: Cell) -> Headline | None:
    """Return a cell's headline figure, or None if nothing was published."""
    row = headline(cell.task, cell.encoder, cell.decoder, cell.supervision)
    if row is None:
        return None
    numbers = " / ".join(f"{row.metrics[name]:.1f}" for name in TASKS[cell.task].shown)
    table = " ".join(row.source.table.split()[-2:])  # a forum thread without its repository
    return Headline(
        numbers=numbers, source=f"{row.source.paper} {table}", marked=row.supervision is None
    )


def figures_of_tasks() -> str:
    """Return the names of each task's published figures, in one line."""
    known = ((name, task.cells.figures) for name, task in TASKS.items())
    return ", ".join(f"{figures} ({name})" for name, figures in known if figures)
