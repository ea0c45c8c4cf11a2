"""Named presets `<encoder>-<decoder>-<task>[-weak][-official|-paper]`, as the tasks declare them.

A preset without a suffix trains by the published recipe with our recommended losses. `-official`
does what the authors' code does, quirks included. `-paper` follows the text of the paper where it
differs from the released code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from avplatform.config.recipes import Recipe
from avplatform.models.contracts import Options
from avplatform.models.errors import unknown_name
from avplatform.tasks.cells import Preset
from avplatform.tasks.contracts import Task
from avplatform.tasks.registry import TASKS


def list_presets() -> list[str]:
    """Return the names of all presets, sorted."""
    return sorted(_by_name())


def preset_options(name: str) -> Options:
    """Return the options of a preset as the nested dictionary that a YAML file would hold.

    Raises:
        UsageError: there is no such preset; the message names the nearest one.

    Examples:
        >>> preset_options("han-mmil-avvp-weak-official")["optim"]["lr"]
        0.0003
    """
    presets = _by_name()
    if name not in presets:
        raise unknown_name("preset", name, presets)
    options = _options(*presets[name])
    if name.endswith(("-official", "-paper")):
        return {"precision": "no", **options}  # the authors trained in single precision
    return options


def presets_by_model() -> dict[str, str]:
    """Return the preset of each name of a model `<encoder>-<decoder>.<task>[-weak][-official]`."""
    return {_name(task, preset, "."): _name(task, preset) for task, preset in _declared()}


def presets_by_cell() -> dict[tuple[str, str, str, str], tuple[str, ...]]:
    """Return the presets of each task, encoder, decoder and supervision that has any, sorted."""
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for task, preset in _declared():
        cell = (task.name, preset.encoder.name, preset.decoder.name, preset.supervision)
        found.setdefault(cell, []).append(_name(task, preset))
    return {cell: tuple(sorted(names)) for cell, names in found.items()}


def presets_of_checkpoints() -> dict[str, dict[str, str]]:
    """Return the preset with the losses and decisions of each published model, by supervision."""
    found: dict[str, dict[str, str]] = {}
    for task, preset in _declared():
        if preset.checkpoint:
            found.setdefault(preset.checkpoint, {})[preset.supervision] = _name(task, preset)
    return found


def _declared() -> Iterator[tuple[type[Task], Preset]]:
    return ((task, preset) for task in TASKS.values() for preset in task.cells.presets)


def _by_name() -> dict[str, tuple[type[Task], Preset]]:
    return {_name(task, preset): (task, preset) for task, preset in _declared()}


def _name(task: type[Task], preset: Preset, before_task: str = "-") -> str:
    """Return the name of a preset, which leaves out the task's default supervision."""
    supervision = "" if preset.supervision == task.supervisions[0] else preset.supervision
    model = f"{preset.system or preset.encoder.name}-{preset.decoder.name}{before_task}{task.name}"
    return "-".join(part for part in (model, supervision, preset.suffix) if part)


def _options(task: type[Task], preset: Preset) -> Options:
    """Return the preset's cell, all options of its recipe, and the options that it adds."""
    cell = {
        "task": task.name,
        "encoder": preset.encoder.name,
        "decoder": preset.decoder.name,
        "supervision": preset.supervision,
    }
    return {**cell, **dataclasses.asdict(Recipe.of(preset.trained)), **preset.options}
