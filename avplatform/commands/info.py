"""`avplatform info`: describe one cell, preset, run or model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from avplatform.base.utf8 import print_json
from avplatform.catalogue.kept import kept_description, kept_facts
from avplatform.catalogue.short import in_billions, in_millions, short_presets
from avplatform.commands.flags import parse_flags
from avplatform.models.errors import counted

LABEL = 12  # columns of the names on the left


@dataclass(kw_only=True)
class InfoOptions:
    """Describe a cell, preset, run or model: computation, cost, publication and training."""

    target: Annotated[str, tyro.conf.Positional]
    """a cell (avel-ave-leap-full, avel/ave/leap), preset, run folder, model folder or hub id"""
    json: bool = False
    """print JSON"""


def run(args: list[str], prog: str) -> int:
    """Print the description of the target."""
    options = parse_flags(InfoOptions, args, prog, config=(tyro.conf.FlagCreatePairsOff,))
    found = _described(options.target)
    if options.json:
        print_json(found)
    else:
        show(found)
    return 0


def _described(target: str) -> dict[str, Any]:
    """Return the description of the target, which is a folder first of all, or a name."""
    kept = None if Path(target).is_dir() else kept_description(target)
    if kept is None:
        from avplatform.catalogue.describe import describe

        return describe(target)
    return kept


def show(found: dict[str, Any]) -> None:
    """Print a description, wrapped to the terminal."""
    console = Console(highlight=False)
    cell = found["cell"]
    console.print(f"{found['kind']} {found['name']}\n", markup=False, soft_wrap=True)
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(min_width=LABEL, no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _lines(found, cell):
        table.add_row(name, Text(text))
    console.print(table)
    if found.get("results"):
        _show_results(console, found["results"])
    rows = cell["published"] if found["kind"] == "cell" else found["published"]
    if rows:
        _show_figures(console, cell["task"], rows)
    if hidden := len(cell["published"]) - len(rows):
        console.print(
            f"{counted(hidden, 'more published row')}: avplatform info {cell['name']}",
            markup=False,
            soft_wrap=True,
        )


def _lines(found: dict[str, Any], cell: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [] if found["kind"] == "cell" else [("cell", cell["name"])]
    by = f"published: {cell['source']}" if cell["source"] else cell["status"]
    lines.append(("by", by + (f"; {cell['figures']}" if cell["figures"] else "")))
    lines += [(part, cell[part]) for part in ("reads", "loss", "decision")]
    lines.append(("by default" if cell["source"] else "defined as", cell["default"]))
    if cell["exact_preset"]:
        lines.append(("as published", cell["exact_preset"]))
    if cell["presets"]:
        lines.append(("presets", "\n".join(short_presets(tuple(cell["presets"])))))
    if found["differs"]:
        differs = ["from the cell's defaults, which loss and decision above describe:"]
        for name, d in found["differs"].items():
            differs.append(f"{name}: {d['value']} (default {d['default']})")
        lines.append(("differs", "\n".join(differs)))
    if "config" in found:
        lines += [(part, _flat(found["config"][part])) for part in ("encoder", "decoder", "task")]
        lines.append(("parameters", _parts(found["parameters"], lambda n: f"{n:,}")))
        flops = _parts(found["flops_per_clip"], _operations)
        lines.append(("FLOPs", f"{flops}, one clip, forward"))
        shapes = [f"{name} [{', '.join(map(str, s))}]" for name, s in found["inputs"].items()]
        lines.append(("inputs", ", ".join(shapes)))
        lines.append(("classes", f"{len(found['classes'])}: {'; '.join(found['classes'])}"))
    if found.get("label_texts"):
        texts, source = found["label_texts"], found.get("label_embeddings_from")
        names = [name.replace(" ", "_") for name in found["classes"]]
        same = [text.replace(" ", "_") for text in texts] == names
        shown = "of the classes' names" if same else f"of: {'; '.join(texts)}"
        width = f"{found['label_dim']}{f' from {source}' if source else ''}"
        embeddings = counted(len(texts), "embedding")
        lines.append(("labels", f"{embeddings} of width {width}, {shown}"))
    if "recipe" in found:
        plain = {k: v for k, v in found["recipe"].items() if not isinstance(v, dict)}
        lines.append(("recipe", _flat(plain)))
        lines += [(part, _flat(found["recipe"][part])) for part in ("optim", "schedule")]
    if found.get("preset"):
        lines.append(("preset", found["preset"]))
    if found.get("data"):
        lines.append(("data", found["data"]))
    for name, value in (found.get("provenance") or {}).items():
        lines.append((name, value) if len(name) <= LABEL else ("from", f"{name}: {value}"))
    if found["kind"] == "run" and not found["results"]:
        text = f"none yet: the run did not finish; go on with --resume {found['name']}"
        lines.append(("results", text))
    return lines


def _show_results(console: Console, results: dict[str, Any]) -> None:
    from avplatform.tasks.metrics import selection_name

    kind = "SYNTHETIC features" if results.get("synthetic") else "features"
    splits = [split for split in ("validation", "test") if results.get(split)]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("results, %")
    for split in splits:
        table.add_column(split, justify="right")
    for name in results[splits[0]] if splits else ():
        table.add_row(name, *(f"{results[split][name]:.1f}" for split in splits))
    console.print(table)
    chosen = results.get("selection") or {}
    text = (
        f"data {results.get('data')} ({kind}), seed {results.get('seed')}, "
        f"{counted(results.get('steps') or 0, 'step')}"
    )
    if chosen.get("split") == "none":
        text += f"; the last epoch ({chosen['epoch']}) was kept"
    elif chosen:
        text += (
            f"; epoch {chosen['epoch']} was kept, selected on {chosen['split']} "
            f"({selection_name(chosen['metric'])} {chosen['value']:.2f})"
        )
        text += ", which flatters the test figures" if chosen["split"] == "test" else ""
    console.print(f"{text}\n", markup=False)


def _show_figures(console: Console, task: str, rows: list[dict[str, Any]]) -> None:
    metrics = _main_metrics(task)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("published, %")
    for name in metrics:
        table.add_column(name.replace("_", "\n"), justify="right", no_wrap=True)
    table.add_column("source")
    table.add_column("note")
    for row in rows:
        values = [f"{row[name]:.1f}" if name in row else "" for name in metrics]
        about = [row.get("subset", "").replace("_", "-"), row.get("note", "")]
        if row["supervision"] == "not stated":
            about.append("" if "supervision" in row.get("note", "") else "supervision not stated")
        if row["reported_by"] != "paper":
            about.append(f"reported by a {row['reported_by']}")
        table.add_row(
            Text(row["method"]), *values, Text(row["source"]), Text("; ".join(filter(None, about)))
        )
    console.print(table)


def _main_metrics(task: str) -> list[str]:
    """Return the names of a task's main metrics."""
    if (facts := kept_facts()) is not None:
        return list(facts["tasks"][task]["shown"])
    from avplatform.tasks.registry import TASKS

    return list(TASKS[task].shown)


def _parts(counts: dict[str, int], shown: Any) -> str:
    inner = ", ".join(f"{part} {shown(count)}" for part, count in counts.items() if part != "total")
    return f"{shown(counts['total'])} ({inner})"


def _operations(count: int) -> str:
    return f"{in_billions(count)} G" if count >= 10**9 else f"{in_millions(count)} M"


def _flat(options: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_plain(value)}" for name, value in options.items()) or "no options"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "-"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
