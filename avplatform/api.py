"""Models by name, training and evaluation from Python; import them from `avplatform`."""

from __future__ import annotations

import dataclasses
import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avplatform.catalogue.cells import find_cell, model_names
from avplatform.commands.train import finished
from avplatform.config.build import build_model, build_task, new_model
from avplatform.config.compose import (
    CELL,
    changed_options,
    compose,
    file_layer,
    resumed_with,
    stored_config,
)
from avplatform.config.presets import list_presets
from avplatform.config.run import RunConfig
from avplatform.config.values import build
from avplatform.data import open_data
from avplatform.data.adapters.registry import find_adapter
from avplatform.hub.folder import model_folder
from avplatform.models.av_model import AVModel
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import UsageError, unknown_name
from avplatform.models.paths import expanded


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of models that `create_model` and `train` know, sorted.

    A name is ENCODER-DECODER.TASK, after which -weak stands for video labels alone where a task has
    both, and -official and -paper for what the authors' code or text says. It means the preset of
    the same name, or, where there is none, the cell with its defaults (`avplatform list`).

    Args:
        pattern: a pattern with the wildcards of `fnmatch`.

    Examples:
        >>> list_models("ave-leap.avel*")
        ['ave-leap.avel', 'ave-leap.avel-weak']
    """
    return sorted(fnmatch.filter(model_names(), pattern))


def create_model(
    name: str | Path,
    *,
    pretrained: str | Path | bool = False,
    revision: str | None = None,
    features: FeatureSpec | None = None,
    **options: Any,
) -> AVModel:
    """Return a new model by its name, or a trained one from a folder or the Hub.

    A new model is in training mode, with weights that depend on `torch.manual_seed`. A trained
    model is ready for inference.

    Args:
        name: a model, as in `list_models` (mmpyr-leap.avvp); or a cell (avel-ave-leap-full,
            avel/ave/leap) or a preset; or a run folder, a model folder or a hub id.
        pretrained: the hub id or folder of trained weights of this model.
        revision: branch, tag or commit of the repository, with a hub id.
        features: the features that a new model reads; default: those of `data` if that is given,
            else those of the task's published models.
        options: options of the run of a new model, by their names in YAML, such as
            `encoder_config={"width": 256}`.

    Raises:
        UsageError: a name or option is unknown (the message suggests the nearest one), options do
            not fit together, options are given for a trained model, which has its own, or
            `pretrained` does not say where weights are, or names those of another model.
        DataError: a folder or hub id has no model.

    Examples:
        >>> model = create_model("ave-leap.avel", decoder_config={"heads": 2})
        >>> model.config.decoder.heads, len(model.config.classes)
        (2, 29)
    """
    trained = _is_place(name)
    if pretrained:
        if trained:
            raise UsageError(f"{name} is a trained model; leave pretrained out")
        return _trained(str(name), pretrained, revision, features, options)
    if trained:
        return _load(name, revision, features, options)
    if revision is not None:
        raise UsageError("revision is that of a trained model on the Hub; leave it out")
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


def _trained(name: str, place: str | Path | bool, *options: Any) -> AVModel:
    """Return the trained model of a folder or hub id, which has to be the one of this name."""
    cell = find_cell(name)
    if isinstance(place, bool):
        raise UsageError(
            f"no weights of {name} are published with avplatform; give the hub id or folder of "
            'weights (pretrained="owner/name"), train it, or convert a checkpoint of its authors '
            "(avplatform convert)"
        )
    model = _load(place, *options)
    config = model.config
    found = (config.task, config.encoder._type, config.decoder._type)
    if found != (cell.task, cell.encoder, cell.decoder):
        raise UsageError(
            f"{place} holds {found[1]} + {found[2]} for {found[0]}, which is not {name}; leave "
            "the name out to load it: create_model(HUB_ID)"
        )
    return model


def _load(
    place: str | Path, revision: str | None, features: FeatureSpec | None, options: dict[str, Any]
) -> AVModel:
    """Return the trained model of a folder or hub id, which takes no options."""
    if options or features is not None:
        given = sorted({**options, **({} if features is None else {"features": features})})
        raise UsageError(
            f"{place} is a trained model and has its own options; leave out {', '.join(given)}"
        )
    return AVModel.from_pretrained(model_folder(place, revision=revision))


@dataclass(frozen=True)
class TrainedRun:
    """A finished run: its folder, and the content of its results.json."""

    folder: Path
    results: dict[str, Any]


def train(run: str | RunConfig | None = None, /, **options: Any) -> TrainedRun:
    """Train, evaluate and save a model, as `avplatform train` does.

    Args:
        run: a model, as in `list_models`, a cell or a preset, or a whole configuration; default:
            the cell that the options name.
        options: options by their names in YAML, such as `data="data/ave"`, `max_steps=100` and
            `optim={"lr": 1e-4}`. `config` reads the other options from a YAML file or run folder,
            and `resume` continues a run.

    Raises:
        UsageError: a name or option is unknown (the message suggests the nearest one), or options
            do not fit together.
        DataError: the data cannot be read, the loss became NaN, or the disk is full.
        Stopped: a signal (Ctrl-C, SIGTERM) stopped the run, which is saved and can be resumed.

    Examples:
        ```python
        run = train("avel-ave-leap-full", data="data/ave", output_dir="runs/mine")
        run.results["test"]["accuracy"]
        model = create_model(run.folder)
        ```
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
        return TrainedRun(expanded(config.resume), results)
    running = Run(config)
    results = running.train()
    leave(running.setup.accelerator)
    return TrainedRun(running.setup.folder.path, results)


def evaluate(model: AVModel | TrainedRun | str | Path, **options: Any) -> dict[str, Any]:
    """Score a model on a split and return the results, as `avplatform eval --json` writes them.

    Args:
        model: a model, the result of `train`, a run folder, a model folder or a hub id.
        options: the flags of `avplatform eval` with underscores: `data` (default: the data of the
            run), `split`, `held_out`, `threshold`, `bootstrap`, `predictions`, ...

    Raises:
        UsageError: an option is unknown (the message suggests the nearest one), a value is wrong,
            or no data are given.
        DataError: the model or the data cannot be read, or do not fit each other.

    Examples:
        ```python
        evaluate("runs/mine", split="validation")["validation"]["accuracy"]
        ```
    """
    from avplatform.evaluation.options import EvalOptions
    from avplatform.evaluation.scoring import score_model

    known = {field.name for field in dataclasses.fields(EvalOptions)} - {"model"}
    for name in options:
        if name not in known:
            raise unknown_name("option", name, known)
    own = model if isinstance(model, AVModel) else None
    place = model.folder if isinstance(model, TrainedRun) else "this model" if own else model
    return score_model(EvalOptions(model=str(place), **options), model=own, quiet=True)


def _is_place(name: str | Path) -> bool:
    """Return whether a name is a folder or a hub id, and not that of a model, cell or preset."""
    if expanded(name).is_dir() or isinstance(name, Path):
        return True
    try:
        find_cell(name)
    except UsageError:
        if name.startswith((".", "/", "~")) or name.count("/") == 1:
            return True
        raise
    return False


def _config(name: str | None, options: dict[str, Any]) -> RunConfig:
    """Return the configuration of a cell or preset, changed by options."""
    if name is not None:
        name = model_names().get(name, name)
    if name in list_presets():
        options = {"preset": name, **options}
    elif name is not None:
        cell = find_cell(name)
        options = {**{part: getattr(cell, part) for part in CELL}, **options}
    if options.get("resume"):
        stored = stored_config(options["resume"])
        return resumed_with(stored, changed_options(stored, options, where="options"))
    layers = [("options", options)]
    if options.get("config"):
        where, values = file_layer(options["config"])
        if "preset" in options:
            values["preset"] = options["preset"]
        layers.insert(0, (where, values))
    return compose(*layers)
