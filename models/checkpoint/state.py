"""Search for the weights in the content of a checkpoint file."""

from __future__ import annotations

from typing import Any

from avplatform.models.checkpoint.pickle_values import Instance, TensorRef, kind_of, short
from avplatform.models.errors import DataError

CONTAINERS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts store the weights."""

GROUPS = ("_parameters", "_buffers", "_non_persistent_buffers_set", "_modules")
"""Attributes of a torch module that hold its entries."""

MOST_MODULES = 20_000
MOST_ENTRIES = 500_000
MOST_DEPTH = 64
LONGEST_NAME = 300


def tensors_of(found: Any) -> tuple[dict[str, TensorRef], list[str], str]:
    """Return the tensors by name, the names of ignored entries, and what held the tensors.

    The weights are a state dict, one inside a dictionary, or a whole module.

    Raises:
        DataError: there are no tensors, or there are other values among them.
    """
    ignored: list[str] = []
    where = ""
    if type(found) is dict:
        inside = [key for key in CONTAINERS if isinstance(found.get(key), (dict, Instance))]
        if len(inside) > 1:
            raise DataError(
                f"it holds weights under '{inside[0]}' and '{inside[1]}'; "
                "save only those that are meant"
            )
        if inside:
            others = (key for key in found if key != inside[0])
            ignored = sorted(short(key if type(key) is str else kind_of(key)) for key in others)
            found, where = found[inside[0]], f" under '{inside[0]}'"
    if type(found) is dict:
        return _state_dict(found), ignored, f"state dict{where}"
    if isinstance(found, Instance):
        return module_tensors(found), ignored, f"whole module {short(found.kind.name)}{where}"
    raise DataError(
        f"it holds {kind_of(found)}; a checkpoint holds a state dict, "
        f"one under {', '.join(CONTAINERS)}, or a whole module"
    )


def _state_dict(found: dict[Any, Any]) -> dict[str, TensorRef]:
    others = [
        f"{short(key) if type(key) is str else kind_of(key)} ({kind_of(value)})"
        for key, value in found.items()
        if type(key) is not str or not isinstance(value, TensorRef)
    ]
    if others:
        more = f" and {len(others) - 10} more" if len(others) > 10 else ""
        raise DataError(
            f"its state dict holds values that are not tensors: {', '.join(others[:10])}{more}"
        )
    if not found:
        raise DataError("its state dict is empty")
    if any(len(name) > LONGEST_NAME for name in found):
        raise DataError(f"its state dict has names of more than {LONGEST_NAME} characters")
    return found


def module_tensors(root: Instance) -> dict[str, TensorRef]:
    """Return the parameters and buffers of a whole module by their names in its state dict.

    The tensors of a module that is registered in several places are returned under each name.

    Raises:
        DataError: it is not a module, it contains itself, or it has other values in place of
            modules or tensors.
    """
    out: dict[str, TensorRef] = {}
    todo: list[tuple[Any, str, tuple[int, ...]]] = [(root, "", ())]
    count = entries = 0
    while todo:
        module, prefix, above = todo.pop()
        count += 1
        name = prefix.removesuffix(".") or "the whole"
        if count > MOST_MODULES or len(above) > MOST_DEPTH or len(prefix) > LONGEST_NAME:
            raise DataError(f"its modules are nested too deep or too many (at '{name[:60]}')")
        if not isinstance(module, Instance) or type(module.state.get("_parameters")) is not dict:
            raise DataError(
                f"'{name[:60]}' is {kind_of(getattr(module, 'kind', module))}, not a torch module"
            )
        if id(module) in above:
            raise DataError(f"its module '{name[:60]}' contains itself")
        groups = (module.state.get(group) for group in GROUPS)
        entries += sum(len(group) for group in groups if isinstance(group, (dict, list)))
        if entries > MOST_ENTRIES:  # few modules with many entries, registered in many places
            raise DataError(
                f"its modules hold more than {MOST_ENTRIES:,} entries; "
                "no checkpoint of these models does"
            )
        for key, value in _registered(module):
            if not isinstance(value, TensorRef):
                raise DataError(f"'{prefix}{short(key)}' is {kind_of(value)}, not a tensor")
            out[f"{prefix}{key}"] = value
        children = module.state.get("_modules")
        for key, child in reversed(list(children.items()) if type(children) is dict else []):
            if child is not None:
                todo.append((child, f"{prefix}{short(key)}.", (*above, id(module))))
    if not out:
        raise DataError(f"the whole module {short(root.kind.name)} holds no tensor")
    return out


def _registered(module: Instance) -> list[tuple[str, Any]]:
    """Return a module's own parameters, and those of its buffers that its state dict holds."""
    passing = module.state.get("_non_persistent_buffers_set")
    left_out = {name for name in passing if type(name) is str} if type(passing) is list else set()
    found: list[tuple[str, Any]] = []
    for group in ("_parameters", "_buffers"):
        entries = module.state.get(group)
        for key, value in entries.items() if type(entries) is dict else ():
            if value is not None and not (group == "_buffers" and key in left_out):
                found.append((key if type(key) is str else kind_of(key), value))
    return found
