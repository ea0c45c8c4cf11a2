"""Render docs/cells.md, the page of the matrix, from the same facts as the command line."""

from __future__ import annotations

from avplatform.catalogue.cells import Cell, cells
from avplatform.catalogue.figures import (
    cell_headline,
    cell_totals,
    figures_of_tasks,
)
from avplatform.catalogue.short import in_billions, in_millions, short_presets
from avplatform.tasks.cells import Cells
from avplatform.tasks.registry import TASKS

HEAD = """\
# What each cell computes, and who published it

Every encoder can be combined with every decoder on every task, with two kinds of supervision each:
{count} cells. A **published** cell computes what a paper defines. The other cells are **ours**: no
paper defines them, so they are defined here. `avplatform info CELL` shows all this for one cell,
with its configuration and every published figure.

This page is the output of `avplatform list --markdown`, and a test keeps it up to date. Parameters
and FLOPs are those of the cell's default options on real features
({measured}), for one clip of ten seconds. FLOPs are twice the
multiply-accumulates of matrix products, convolutions and LSTMs in one forward pass. Figures are
the papers', in percent: {figures}.
A * marks figures whose source does not state the supervision.
"""


def render() -> str:
    """Return the page as Markdown."""
    every = [cell for cell in cells() if cell.status != "outside"]
    tasks = {name: task.cells for name, task in TASKS.items() if task.cells.title}
    measured = ", ".join(facts.measured for facts in tasks.values())
    parts = [HEAD.format(count=len(every), measured=measured, figures=figures_of_tasks())]
    for task, facts in tasks.items():
        chosen = [cell for cell in every if cell.task == task]
        parts += [
            f"## {facts.title}\n",
            _overview(chosen),
            "### Published\n",
            _published(chosen),
            "### Ours\n",
            _ours(chosen, [decoder.name for decoder in facts.ours]),
            *([facts.note] if facts.note else []),
            "### Losses and decisions\n",
            _rules(facts),
            "### What the encoders read\n",
            _table(
                ["encoder", "reads"],
                list({cell.encoder: [cell.encoder, cell.reads] for cell in chosen}.values()),
            ),
        ]
    return "\n".join(parts)


def _overview(chosen: list[Cell]) -> str:
    rows = []
    for cell in chosen:
        cost, figure = cell_totals(cell), cell_headline(cell)
        assert cost is not None
        mark = r"\*" if figure and figure.marked else ""
        shown = f"{figure.numbers}{mark} ({figure.source})" if figure else ""
        presets = "<br>".join(f"`{name}`" for name in short_presets(cell.presets))
        presets = presets.replace("|", "\\|")
        millions, billions = in_millions(cost.parameters), in_billions(cost.flops)
        rows.append(
            [f"`{cell.name}`", cell.status, f"{millions} M", f"{billions} G", shown, presets]
        )
    return _table(["cell", "by", "parameters", "FLOPs", "published figure", "presets"], rows)


def _published(chosen: list[Cell]) -> str:
    rows = [
        [
            f"`{cell.name}`",
            cell.source,
            cell.default,
            f"`{cell.exact}`" if cell.exact else "none: no script was released",
        ]
        for cell in chosen
        if cell.status == "published"
    ]
    return _table(["cell", "source", "what the defaults do", "as published"], rows)


def _ours(chosen: list[Cell], order: list[str]) -> str:
    """Return the table of the cells that the platform defines, by decoder and definition."""
    by_text: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in chosen:
        if cell.status == "ours":
            by_text.setdefault((cell.decoder, cell.default, cell.figures or ""), []).append(cell)
    rows = []
    for (decoder, text, figures), same in by_text.items():
        names: dict[str, list[str]] = {}
        for cell in same:
            names.setdefault(cell.encoder, []).append(cell.supervision)
        who = "; ".join(f"{encoder} ({', '.join(kinds)})" for encoder, kinds in names.items())
        rows.append([decoder, who, text, figures])
    rows.sort(key=lambda row: order.index(row[0]))
    return _table(["decoder", "behind", "what it is", "figures"], rows)


def _rules(facts: Cells) -> str:
    rows = []
    for (decoder, supervision), rule in facts.rules.items():
        own = {
            encoder.name: texts
            for (encoder, of), texts in facts.heads.items()
            if of == supervision and decoder is facts.headed
        }
        but = f" (all but {', '.join(own)})" if own else ""
        rows.append([f"{decoder.name}{but}", supervision, *rule])
        rows += [[f"{decoder.name} behind {name}", supervision, *own[name]] for name in own]
    text = _table(["decoder", "supervision", "loss, by default", "decision, by default"], rows)
    return f"{text}\n{facts.rules_note}\n" if facts.rules_note else text


def _table(headers: list[str], rows: list[list[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
