"""Describe a cell, a preset, a run or a model as plain values, for `avplatform info`."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avplatform.catalogue.cells import Cell, find_cell, model_names
from avplatform.catalogue.cost import cost_of, input_shapes
from avplatform.catalogue.figures import cell_record, figure
from avplatform.catalogue.published import headline, published_rows
from avplatform.config.build import published_config
from avplatform.config.compose import CELL, compose, stored_config
from avplatform.config.presets import list_presets
from avplatform.config.run import RunConfig, default_config
from avplatform.hub.folder import model_folder
from avplatform.models.av_model import CONFIG_FILE
from avplatform.models.config import AVModelConfig, config_to_dict
from avplatform.models.errors import AVError, DataError, UsageError
from avplatform.runs.folder import results_beside

RECIPE = (
    "epochs",
    "batch_size",
    "seed",
    "select_on",
    "ties",
    "shuffle",
    "drop_last",
    "batch_order",
    "validate_every",
)
PARTS = ("encoder_config", "decoder_config", "task_config")


def describe(target: str) -> dict[str, Any]:
    """Return the description of a cell, preset or name of a model, a run or model, or a hub id.

    Raises:
        UsageError: there is no such cell or preset; the message names the nearest one.
        DataError: a folder or repository holds no model or run, or a broken one.
    """
    folder = Path(target)
    if (folder / "config.yaml").is_file():
        return _run(folder)
    if folder.is_dir():
        return _model(target, folder)
    target = model_names().get(target, target)
    try:
        cell = find_cell(target)
    except UsageError:
        if target.startswith((".", "/", "~")):
            raise DataError(
                f"there is no folder {target}; "
                "give a run folder, a model folder, a hub id, a cell or a preset"
            ) from None
        if target.count("/") == 1:
            return _model(target, model_folder(target))
        raise
    if target in list_presets():
        return _of_config("preset", target, compose((target, {"preset": target})))
    return _of_config(
        "cell", cell.name, default_config(cell.task, cell.encoder, cell.decoder, cell.supervision)
    )


def _of_config(kind: str, name: str, config: RunConfig) -> dict[str, Any]:
    """Return the description of what a run of this configuration would train."""
    model = published_config(config)
    cell = [getattr(config, part) for part in CELL]
    return {
        "kind": kind,
        "name": name,
        **_cell(cell, _own(config)),
        **(_built(model) if model else {}),
        "label_embeddings_from": config.labels.embeddings if model and model.label_texts else None,
        "recipe": _recipe(config),
    }


def _run(folder: Path) -> dict[str, Any]:
    config = stored_config(folder)
    found = _of_config("run", str(folder), config)
    if (folder / "model" / CONFIG_FILE).is_file():
        found |= _built(_read_config(folder / "model"))
    return {
        **found,
        "preset": config.preset,
        "data": config.data,
        "results": _results(results_beside(str(folder))),
    }


def _model(target: str, folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG_FILE).is_file():
        raise DataError(f"{folder} holds neither config.yaml (a run) nor {CONFIG_FILE} (a model)")
    config = _read_config(folder)
    supervision = config.task_config.get("supervision")
    cell = [config.task, config.encoder._type, config.decoder._type, supervision]
    own = {
        "encoder_config": dataclasses.asdict(config.encoder),
        "decoder_config": dataclasses.asdict(config.decoder),
        "task_config": config.task_config,
    }
    return {
        "kind": "model",
        "name": target,
        **_cell(cell, own),
        **_built(config),
        "results": _results(results_beside(str(folder))),
        "provenance": provenance(folder),
    }


def _cell(cell: Sequence[Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return the cell's record, and in which options this one differs from the cell's defaults."""
    task, encoder, decoder, supervision = cell
    defaults = default_config(task, encoder, decoder, supervision)
    found = find_cell("-".join((task, encoder, decoder, defaults.supervision)))
    differs = {}
    for part, options in _own(defaults).items():
        for name, value in options.items():
            if name in own[part] and own[part][name] != value:
                differs[f"{part}.{name}"] = {"value": own[part][name], "default": value}
    return {"cell": cell_record(found), "differs": differs, "published": _published(found, own)}


def _published(cell: Cell, own: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the published results of exactly these options, or else the cell's headline result."""
    rows = [
        (key, row)
        for key, row in published_rows(cell.task, cell.encoder, cell.decoder, cell.supervision)
        if row.metrics
    ]
    wanted, exact = _plain(own), []
    for key, row in rows:
        if row.preset and not row.subset:
            config = compose((key, {"preset": row.preset, **row.options}))
            if _plain(_own(config)) == wanted:
                exact.append((key, row))
    known_by = headline(cell.task, cell.encoder, cell.decoder, cell.supervision)
    return [figure(key, row) for key, row in exact or rows if exact or row is known_by]


def _plain(own: dict[str, Any]) -> dict[str, Any]:
    """Return options as if read from a file, so that a run's and a model's can be compared."""
    return json.loads(json.dumps({part: _without_type(options) for part, options in own.items()}))


def _own(config: RunConfig) -> dict[str, dict[str, Any]]:
    """Return the options of the encoder, decoder and task of a run."""
    return {part: dataclasses.asdict(getattr(config, part)) for part in PARTS}


def _without_type(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "_type"}


def _built(config: AVModelConfig) -> dict[str, Any]:
    """Return the configuration, cost, inputs, classes and labels of a model."""
    cost = cost_of(config)
    return {
        "config": {
            "encoder": _without_type(config_to_dict(config.encoder)),
            "decoder": _without_type(config_to_dict(config.decoder)),
            "task": config.task_config,
        },
        "parameters": {**cost.parameters, "total": cost.total_parameters},
        "flops_per_clip": {**cost.flops, "total": cost.total_flops},
        "inputs": input_shapes(config.features, segments=config.segments),
        "classes": config.classes,
        "label_texts": config.label_texts,
        "label_dim": config.label_dim if config.label_texts else None,
    }


def _recipe(config: RunConfig) -> dict[str, Any]:
    """Return the training options of a configuration; a limit of steps only if there is one."""
    steps = {} if config.max_steps is None else {"max_steps": config.max_steps}
    return {
        "optim": dataclasses.asdict(config.optim),
        "schedule": dataclasses.asdict(config.schedule),
        **{name: getattr(config, name) for name in RECIPE},
        **steps,
        "precision": config.precision,
    }


def _results(content: dict[str, Any]) -> dict[str, Any] | None:
    """Return the scores, the data and the choice of the epoch from results.json."""
    if not content:
        return None
    names = (
        "data",
        "synthetic",
        "data_checksum",
        "seed",
        "steps",
        "selection",
        "validation",
        "test",
    )
    return {name: content[name] for name in names if name in content}


def provenance(folder: Path) -> dict[str, str] | None:
    """Return the origin of a converted model's weights from its card; None if the card has none."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    section = re.search(
        r"^## Where the weights come from\n(.*?)(?=^## |\Z)", text, flags=re.S | re.M
    )
    if section is None:
        return None
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in section[1].splitlines()
        if "|" in line
    ]
    pairs = [row for row in rows if len(row) == 2 and row[0] and not set(row[0]) <= set("-: ")]
    return {name: value.replace("`", "") for name, value in pairs}


def _read_config(folder: Path) -> AVModelConfig:
    try:
        content = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        return AVModelConfig.from_dict(content)
    except AVError as error:
        raise DataError(f"{folder / CONFIG_FILE}: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{folder / CONFIG_FILE} is not a model config ({error}); fetch or save it again"
        ) from None
