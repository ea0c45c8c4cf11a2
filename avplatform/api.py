"""The platform from Python: models by name, training and evaluation; all of it is importable from `avplatform`."""

from __future__ import annotations

import dataclasses
import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avplatform.catalogue.cells import cells, find_cell
from avplatform.commands.train import finished
from avplatform.config.build import build_model, build_task, new_model
from avplatform.config.compose import (
    CELL,
    changed_options,
    check_resumed,
    compose,
    stored_config,
)
from avplatform.config.presets import list_presets
from avplatform.config.run import RunConfig, option_names
from avplatform.config.values import build, load_yaml
from avplatform.data import open_data
from avplatform.data.adapters.registry import find_adapter
from avplatform.hub.folder import model_folder
from avplatform.models.av_model import AVModel
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import UsageError, unknown_name

"""Options that say where the other ones come from."""


def list_models(pattern: str = "*") -> list[str]:
    """Return the names that `create_model` and `train` know, sorted: cells and presets.

    Args:
        pattern: with the wildcards of `fnmatch`.

    Example:
        >>> list_models("avel-ave-leap*")
        ['avel-ave-leap-full', 'avel-ave-leap-weak']
    """
    return sorted(fnmatch.filter([*(cell.name for cell in cells()), *list_presets()], pattern))


def create_model(
    name: str | Path, *, features: FeatureSpec | None = None, **options: Any
) -> AVModel:
    """Return a freshly initialised model of a cell or preset, or a trained one from a folder or the Hub.

    A fresh model is in training mode and has the weights that `torch.manual_seed` decides; a trained
    one is ready for inference.

    Args:
        name: a cell (avel-ave-leap-full, avel/ave/leap) or a preset, as `list_models` shows them; or
            a run folder, a model folder or a hub id.
        features: what a fresh model reads per segment; default: the features of `data` where that
            is given, else those that the task's published models read.
        options: of a fresh model's run, by their names in YAML, such as
            `encoder_config={"width": 256}`.

    Raises:
        UsageError: an unknown name or option, with the nearest right one; options that do not fit
            together; or options for a trained model, which has its own.
        DataError: a folder or hub id without a model.

    Example:
        >>> model = create_model("avel-ave-leap-full", decoder_config={"heads": 2})
        >>> model.config.decoder.heads, len(model.config.classes)
        (2, 29)
    """
    if _is_place(name):
        if options or features is not None:
            given = sorted({**options, **({} if features is None else {"features": features})})
            raise UsageError(
                f"{name} is a trained model and has its own options; leave out {', '.join(given)}"
            )
        return AVModel.from_pretrained(model_folder(name))
    config = _config(str(name), options)
    if features is None and "data" in options:
        data = open_data(config.data, task=config.task, cache_dir=config.cache_dir)
        return build_model(config, build_task(config, data.spec), data.spec)
    if features is None:
        adapter = find_adapter(config.task)
        if adapter is None:
            raise UsageError(f"no features are known for {config.task}; give features or data")
        features = adapter.features
    return new_model(config, build_task(config), features)


@dataclass(frozen=True)
class TrainedRun:
    """A run that is finished: its folder, and what its results.json holds."""

    folder: Path
    results: dict[str, Any]


def train(run: str | RunConfig | None = None, /, **options: Any) -> TrainedRun:
    """Train, evaluate and save a model; the same as `avplatform train`.

    Args:
        run: a cell or preset, as `list_models` shows them, or a whole configuration; default: what
            the options say.
        options: by their names in YAML, such as `data="data/ave"`, `max_steps=100`,
            `optim={"lr": 1e-4}`. `config` takes the other options from a YAML file or run folder,
            and `resume` goes on with a run.

    Raises:
        UsageError: an unknown name or option, with the nearest right one, or options that do not
            fit together.
        DataError: data that cannot be read, a loss that became NaN, or a full disk.
        Stopped: a signal (Ctrl-C, SIGTERM) asked for it; the run is saved and can be resumed.

    Example:
        run = train("avel-ave-leap-full", data="data/ave", output_dir="runs/mine")
        run.results["test"]["accuracy"]
        model = create_model(run.folder)
    """
    from avplatform.base.machine import leave
    from avplatform.training.loop import Run

    if isinstance(run, RunConfig):
        config = build(type(run), changed_options(run, options, where="options"))
    else:
        config = _config(run, options)
    if config.dry_run:
        raise UsageError("dry_run prints what `avplatform train` would do; leave it out")
    if config.resume and (results := finished(config)) is not None:
        return TrainedRun(Path(config.resume), results)
    running = Run(config)
    results = running.train()
    leave(running.setup.accelerator)
    return TrainedRun(running.setup.folder.path, results)


def evaluate(model: AVModel | TrainedRun | str | Path, **options: Any) -> dict[str, Any]:
    """Score a model on a split and return the results, as `avplatform eval --json` writes them.

    Args:
        model: a model, what `train` returned, a run folder, a model folder or a hub id.
        options: the flags of `avplatform eval` with underscores: `data` (default: what the run was
            trained on), `split`, `held_out`, `threshold`, `bootstrap`, `predictions`, ...

    Raises:
        UsageError: an unknown option, with the nearest right one; a wrong value; or no data named.
        DataError: a model or data that cannot be read, or do not fit each other.

    Example:
        evaluate("runs/mine", split="validation")["validation"]["accuracy"]
    """
    from avplatform.evaluation.scoring import EvalOptions, score_model

    known = {field.name for field in dataclasses.fields(EvalOptions)} - {"model"}
    for name in options:
        if name not in known:
            raise unknown_name("option", name, known)
    own = model if isinstance(model, AVModel) else None
    place = model.folder if isinstance(model, TrainedRun) else "this model" if own else model
    return score_model(EvalOptions(model=str(place), **options), model=own, quiet=True)


def _is_place(name: str | Path) -> bool:
    """Whether a name means a folder or a hub id, and not a cell or preset."""
    if Path(name).is_dir() or isinstance(name, Path):
        return True
    try:
        find_cell(name)
    except UsageError:
        if name.startswith((".", "/", "~")) or name.count("/") == 1:
            return True
        raise
    return False


def _config(name: str | None, options: dict[str, Any]) -> RunConfig:
    """Return the configuration of a cell or preset with options put over it."""
    if name in list_presets():
        options = {"preset": name, **options}
    elif name is not None:
        cell = find_cell(name)
        options = {**{part: getattr(cell, part) for part in CELL}, **options}
    if options.get("resume"):
        stored = stored_config(options["resume"])
        changed = changed_options(stored, options, where="options")
        check_resumed(stored, changed)
        return build(type(stored), changed)
    layers = [("options", options)]
    if options.get("config"):
        own, values = option_names(of_command=True), load_yaml(options["config"])
        kept = {key: value for key, value in values.items() if key not in own}
        kept |= {key: options[key] for key in ("preset",) if key in options}
        layers.insert(0, (str(options["config"]), kept))
    return compose(*layers)
