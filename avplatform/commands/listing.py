"""`avplatform list`: list the matrix of cells, and the registered names."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from avplatform.base.utf8 import print_json
from avplatform.catalogue.kept import kept_facts
from avplatform.catalogue.short import in_billions, in_millions, short_presets
from avplatform.commands.flags import parse_flags
from avplatform.models.errors import UsageError, unknown_name

Facts = dict[str, Any]
"""What is listed, as `avplatform.catalogue.facts.listed` makes it."""
KINDS = ("cells", "tasks", "encoders", "decoders", "datasets", "presets")
WIDE = 118  # terminals with at least this many columns show the presets beside the cells


@dataclass(kw_only=True)
class ListOptions:
    """List cells, tasks, encoders, decoders, datasets and presets.

    A cell is a task, an encoder, a decoder and a supervision.
    """

    filter: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """only names that contain all these texts; a kind, such as cells or datasets: only these"""
    task: str | None = None
    """only cells of this task"""
    encoder: str | None = None
    """only cells with this encoder"""
    decoder: str | None = None
    """only cells with this decoder"""
    supervision: str | None = None
    """only cells with this supervision"""
    published: bool = False
    """only cells that a paper defines or gives figures for"""
    json: bool = False
    """print JSON"""
    markdown: bool = False
    """print docs/cells.md: what every cell computes, and who published it"""


def run(args: list[str], prog: str) -> int:
    """Print the cells and names."""
    options = parse_flags(ListOptions, args, prog, config=(tyro.conf.FlagCreatePairsOff,))
    if options.markdown:
        if options != ListOptions(markdown=True):
            raise UsageError("--markdown prints the whole page; leave the filters out")
        from avplatform.catalogue.page import render

        print(render(), end="")
        return 0
    facts = kept_facts() or _collected()
    kinds, texts = _kinds(options, facts)
    found: dict[str, list[Any]] = {}
    if "cells" in kinds:
        found["cells"] = [cell for cell in facts["cells"] if _fits(cell, options, texts)]
    for kind, names in facts["names"].items():
        if kind in kinds:
            found[kind] = [name for name in names if all(text in name for text in texts)]
    if not any(found.values()):
        wanted = " and ".join(f"'{text}'" for text in texts) or "these options"
        *first, last = [kind.removesuffix("s") for kind in kinds]
        raise UsageError(
            f"no {', '.join(first)}{' or ' if first else ''}{last} has {wanted} in its name"
        )
    if options.json:
        print_json(found)
        return 0
    if found.get("cells"):
        show_cells(found["cells"], facts)
    for kind, names in found.items():
        if names and kind != "cells":
            show_names(kind, names, facts)
    return 0


def _collected() -> Facts:
    """Return the facts of all registered parts, also of those of other packages."""
    from avplatform.catalogue.facts import listed

    return listed()


def show_cells(chosen: list[Facts], facts: Facts) -> None:
    """Print a table of cells, as wide as the terminal allows."""
    console = Console(highlight=False)
    wide = console.width >= WIDE
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in ("cell", "by", "params\nM", "FLOPs\nG", "published\n%", "where"):
        right = name.startswith(("params", "FLOPs"))
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    if wide:
        table.add_column("presets", overflow="fold")
    marked = False
    for index, cell in enumerate(chosen):
        figure = facts["headlines"].get(cell["name"])
        row = [cell["name"], cell["status"], "", "", "", ""]
        if cell["parameters"] is not None:
            row[2:4] = in_millions(cell["parameters"]), in_billions(cell["flops_per_clip"])
        if figure:
            row[4:6] = figure["numbers"] + ("*" if figure["marked"] else ""), figure["source"]
        if wide:
            row.append("\n".join(short_presets(tuple(cell["presets"]))).replace("[", r"\["))
        marked = marked or bool(figure and figure["marked"])
        following = chosen[index + 1] if index + 1 < len(chosen) else cell
        ends = any(cell[part] != following[part] for part in ("task", "encoder"))
        table.add_row(*row, end_section=ends)
    console.print(table)
    notes = (
        "params: trainable, in millions; FLOPs: one clip, forward, in 10^9, with "
        "multiplications and additions counted separately."
    )
    about = {name: task["figures"] for name, task in facts["tasks"].items() if task["figures"]}
    notes += f" published: {', '.join(f'{text} ({name})' for name, text in about.items())}."
    if marked:
        notes += " *: the source does not state the supervision."
    console.print(notes)
    console.print(
        "`avplatform info CELL` says more: losses, decisions, presets, all figures.\n", markup=False
    )


def show_names(kind: str, names: list[str], facts: Facts) -> None:
    """Print names with one line about each, wrapped to the terminal."""
    column = max(len(name) for name in names) + 4
    limit, indent = max(Console().width, 2 * column), " " * column
    print(f"{kind}:")
    for name in names:
        text = f"  {name}".ljust(column) + facts["names"][kind][name]
        print(textwrap.fill(text, limit, subsequent_indent=indent, break_on_hyphens=False))


def _kinds(options: ListOptions, facts: Facts) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the kinds to list, and the texts that names must contain.

    Raises:
        UsageError: a task, encoder, decoder or supervision is unknown (the message names the
            nearest one), or the filters exclude each other.
    """
    for part in ("task", "encoder", "decoder"):
        name, names = getattr(options, part), facts["names"][f"{part}s"]
        if name is not None and name not in names:
            raise unknown_name(part, name, names)
    tasks = [options.task] if options.task else list(facts["tasks"])
    known = {kind for name in tasks for kind in facts["tasks"][name]["supervisions"]}
    if options.supervision is not None and options.supervision not in known:
        raise unknown_name("supervision", options.supervision, known)
    kinds = tuple(text for text in options.filter if text in KINDS)
    texts = tuple(text for text in options.filter if text not in KINDS)
    by_part = options.published or any(
        (options.task, options.encoder, options.decoder, options.supervision)
    )
    if by_part and set(kinds) - {"cells"}:
        raise UsageError(
            "--task, --encoder, --decoder, --supervision and --published choose cells; "
            f"leave out '{kinds[0]}'"
        )
    return (("cells",) if by_part else kinds or KINDS), texts


def _fits(cell: Facts, options: ListOptions, texts: tuple[str, ...]) -> bool:
    parts = ("task", "encoder", "decoder", "supervision")
    if any(getattr(options, part) not in (None, cell[part]) for part in parts):
        return False
    if options.published and cell["status"] != "published" and cell["figures"] is None:
        return False
    return all(text in cell["name"] for text in texts)
