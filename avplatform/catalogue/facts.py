"""Collect the facts of all registered parts, as plain values, for `list`, `info` and help texts."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from avplatform.catalogue.cells import cells, model_names
from avplatform.catalogue.describe import describe
from avplatform.catalogue.figures import cell_headline, cell_record
from avplatform.config.compose import compose
from avplatform.config.help import short_flags
from avplatform.config.presets import list_presets
from avplatform.config.run import default_config
from avplatform.data.adapters.registry import DATASETS
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.tasks.registry import TASKS


def all_of() -> dict[str, Any]:
    """Return everything that is kept, as `avplatform.catalogue.kept` reads it."""
    described = {name: describe(name) for name in (*(c.name for c in cells()), *list_presets())}
    found = {**listed(), "models": model_names(), "described": described, "flags": all_flags()}
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


def all_flags() -> dict[str, Any]:
    """Return what the short help shows for each cell and preset."""
    flags = {
        cell.name: short_flags(
            default_config(cell.task, cell.encoder, cell.decoder, cell.supervision)
        )
        for cell in cells()
    }
    for name in list_presets():
        asked = compose((name, {"preset": name}))
        flags[name] = short_flags(dataclasses.replace(asked, preset=None))  # no default of --preset
    return flags


def listed() -> dict[str, Any]:
    """Return what `list` shows: the cells, and the names of each kind with a line about each."""
    tables: dict[str, Any] = {
        "tasks": TASKS,
        "encoders": ENCODERS,
        "decoders": DECODERS,
        "datasets": DATASETS,
    }
    names = {
        kind: {name: _about(table[name]) for name in sorted(table)}
        for kind, table in tables.items()
    }
    return {
        "cells": [cell_record(cell) for cell in cells()],
        "headlines": {
            cell.name: dataclasses.asdict(figure)
            for cell in cells()
            if (figure := cell_headline(cell)) is not None
        },
        "names": {**names, "presets": dict.fromkeys(list_presets(), "")},
        "tasks": {
            name: {
                "supervisions": list(task.supervisions),
                "default_encoder": task.default_encoder,
                "shown": list(task.shown),
                "figures": task.cells.figures,
            }
            for name, task in TASKS.items()
        },
        "default_decoder": next(iter(DECODERS)),
    }


def _about(part: Any) -> str:
    """Return the first line of what is written about a part."""
    return (part.__doc__ or "").strip().partition("\n")[0]
