"""Who imports whom: modules, rooms (folders that belong together), and circles among either.

The analysis reads source text. It counts imports inside functions, since a lazy import hides a
circle without removing it, and leaves out `if TYPE_CHECKING:`, which never runs.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

PACKAGE = "avplatform"
BESIDE = ("models", "tasks", "hub_cards")
"""Folders of the repository that are imported inside the package."""

Graph = dict[str, set[str]]


def modules(root: Path) -> dict[str, Path]:
    """Return the files of a checkout by their import names."""
    found = {}
    for folder in (PACKAGE, *BESIDE):
        for file in sorted((root / folder).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            name = ".".join(parts if folder == PACKAGE else (PACKAGE, *parts))
            found[name.removesuffix(".__init__")] = file
    return found


def module_graph(root: Path) -> Graph:
    """Return the modules that each module imports."""
    files = modules(root)
    homes = {
        package: lazy
        for package, file in files.items()
        if file.name == "__init__.py" and (lazy := _lazy_names(file))
    }
    graph: Graph = {}
    for name, file in files.items():
        graph[name] = set()
        for module, what in imports(file.read_text(encoding="utf-8")):
            full = f"{module}.{what}" if what else module
            target = homes.get(module, {}).get(what, module)
            graph[name].add(full if full in files else target)
        graph[name] = (graph[name] & files.keys()) - {name}
    return graph


@cache
def imports(source: str) -> tuple[tuple[str, str], ...]:
    """Return the (module, name) pairs that a file imports; the name is empty for a plain import.

    A literal name that is given to `import_module` counts as a plain import.
    """
    return tuple(_imports(ast.parse(source)))


def _imports(node: ast.AST) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        children: Iterable[ast.AST] = node.orelse
    else:
        children = ast.iter_child_nodes(node)
    if isinstance(node, ast.Import):
        yield from ((alias.name, "") for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (("." * node.level + (node.module or ""), alias.name) for alias in node.names)
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
        ("import_module", "__import__")
    ):
        yield from ((str(name.value), "") for name in node.args if isinstance(name, ast.Constant))
    for child in children:
        yield from _imports(child)


def _lazy_names(package: Path) -> dict[str, str]:
    """Return the module behind each name that a package loads lazily, as in its `_HOMES`."""
    for node in ast.parse(package.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
            return ast.literal_eval(node.value)
    return {}


def room(module: str) -> str:
    """Return the room of a module: a folder of `avplatform` or `avplatform/data`, or a root file.

    `models`, `tasks` and `hub_cards` are one room each, and every `__main__` is a door of its own.

    Example:
        >>> [room(f"avplatform.{name}") for name in ("models.layers.attention", "data.store.card")]
        ['models', 'data.store']
        >>> room("avplatform.runs.folder"), room("avplatform.cli"), room("avplatform.data")
        ('runs', 'cli', 'data')
    """
    _, *parts = module.split(".")
    if parts[-1:] == ["__main__"]:
        return "__main__"
    if parts[:1] == ["data"] and len(parts) > 1:
        return f"data.{parts[1]}"
    return parts[0] if parts else PACKAGE


def room_graph(graph: Mapping[str, set[str]]) -> Graph:
    """Return the rooms that each room imports."""
    rooms: Graph = {room(module): set() for module in graph}
    for module, targets in graph.items():
        rooms[room(module)] |= {room(target) for target in targets} - {room(module)}
    return rooms


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of nodes that reach each other, sorted; empty where there is no circle."""
    reach = {node: set(targets) for node, targets in graph.items()}
    for via in reach:
        for node, targets in reach.items():
            if via in targets:
                reach[node] = targets | reach[via]
    groups = {
        frozenset(other for other in reach[node] if node in reach.get(other, ()))
        for node in reach
        if node in reach[node]
    }
    return sorted(sorted(group) for group in groups)


def arrows_up(graph: Mapping[str, set[str]], order: list[str]) -> list[str]:
    """Return the imports of modules from a room that is not below their own in `order`."""
    floor = {name: number for number, name in enumerate(order)}
    return sorted(
        f"{module} -> {target}"
        for module, targets in graph.items()
        for target in targets
        if room(module) != room(target) and floor[room(target)] >= floor[room(module)]
    )
