"""Score a model on a split: the work of `avplatform eval` and of `avplatform.evaluate`."""

from __future__ import annotations

from statistics import harmonic_mean
from typing import Any

import torch
from torch import Tensor, nn

from avplatform.base.console import Console
from avplatform.base.files import give_json
from avplatform.base.machine import describe, leave, make_accelerator
from avplatform.data import Data, open_data
from avplatform.data.adapters.registry import make_task, task_on
from avplatform.data.reading.arrays import SplitArrays
from avplatform.data.reading.source import locate_store
from avplatform.data.store.schema import Manifest, check_labels
from avplatform.evaluation.bootstrap import videos_of
from avplatform.evaluation.by_class import by_class, show_by_class
from avplatform.evaluation.evaluate import evaluate
from avplatform.evaluation.extras import check_extras, extras, show_extras, write_extras
from avplatform.evaluation.options import EvalOptions
from avplatform.evaluation.perturbations import Change
from avplatform.evaluation.untrained import training_free_answers
from avplatform.features.weights import parse_weights
from avplatform.hub.folder import dataset_of_card, model_folder
from avplatform.labels.assumed import ASSUMED, CALIBRATED
from avplatform.labels.held_out import data_for, events_of_task, without, zero_shot
from avplatform.labels.open import never_trained_on
from avplatform.labels.unseen import calibrated
from avplatform.models.av_model import AVModel, count_parameters
from avplatform.models.checks import at_least, check_choices
from avplatform.models.errors import DataError, UsageError
from avplatform.models.paths import expanded, may_be_hub_id, nearest_path
from avplatform.runs.folder import results_beside, trained_on
from avplatform.runs.predictions import Predictions, save_predictions
from avplatform.runs.results import has_classes, presence_of, results, show
from avplatform.tasks.metrics import Metrics
from avplatform.tasks.registry import task_of_model, with_threshold
from avplatform.training_free.model import TRAINING_FREE, TrainingFree, open_for_data

SPLITS = ("validation", "test")


def score_model(
    options: EvalOptions, *, model: AVModel | None = None, quiet: bool = False
) -> dict[str, Any]:
    """Score a model, print and write what the options ask for, and return the results.

    Args:
        options: the model, the data and what to compute.
        model: the model itself; default: the one that `options.model` names.
        quiet: print nothing.

    Raises:
        UsageError: a value or combination of options is wrong, or nothing says which data to use.
        DataError: the model, the data or the split is missing or broken, or they do not fit.
    """
    check_choices(options)
    at_least(options, "batch_size", 1)
    at_least(options, ("threads", "bootstrap", "seed"), 0)
    accelerator = make_accelerator(cpu=options.cpu, precision="no", threads=options.threads)
    silent = quiet or options.json == "-"
    console = Console(enabled=accelerator.is_main_process and not silent)
    known = results_beside(options.model)
    data_name = options.data or trained_on(options.model)
    if model is None and options.model == TRAINING_FREE:
        model = training_free_model(options, accelerator.device, console)
        known = {"supervision": "none"}
    elif options.weights:
        raise UsageError(f"--weights are those of {TRAINING_FREE}; leave them out")
    if model is None and data_name is None and may_be_hub_id(options.model):
        data_name = dataset_of_card(options.model)
    elif model is None and data_name is None and not expanded(options.model).exists():
        raise UsageError(
            f"{options.model} does not exist{nearest_path(options.model)}; give a run folder, a "
            "model folder, or the hub id of a model"
        )
    if data_name is None:
        raise UsageError(
            f"{options.model} does not say what it was trained on; "
            "give --data (demo, a folder or a hub id)"
        )
    if model is None:
        model = AVModel.from_pretrained(model_folder(options.model))
    task = with_threshold(task_of_model(model.config), options.threshold)
    data: Data = open_data(
        data_name, task=task.name, cache_dir=options.cache_dir, progress=console.note
    )
    name = data.split_name(options.split)
    check_fits(model, data)
    parser: nn.Module = model
    about: dict[str, Any] = {}
    others: Data | None = None
    labels: Tensor | None
    if options.held_out:
        whole = make_task(task.name, task.config, spec=data.spec)
        if options.among == "all":
            others = without(whole, data, options.held_out, model=model)
        found, task, data, about = zero_shot(
            model,
            whole,
            data,
            options.held_out,
            among=options.among,
            source=options.embeddings,
            assumed=options.unseen or "present",
            asked=options.unseen is not None,
        )
        console.note(about_held_out(about))
        parser, labels, chosen = found, found.labels, about["held_out"]
    else:
        task = task_on(task, data.spec)
        labels, chosen = None, list[str]()
        if not isinstance(model, TrainingFree):
            names, _ = events_of_task(task, model.config.decoder._type, model.config.encoder._type)
            labels, chosen = model.label_embeddings, never_trained_on(model.config, names)
        if options.unseen is not None:
            bank = calibrated(model, task, None, names, assumed=options.unseen, asked=True)
            if bank is not None:
                parser, about["bank"] = bank, bank.about
                console.note(f"classes never trained on are {about_bank(about)}")
    data = data_for(data, task)
    check_labels(data.spec, task)
    split, parser = data.split(name), parser.to(accelerator.device)
    pages = check_extras(options, data, split.name)

    def score(arrays: SplitArrays, title: str = "score", change: Change | None = None) -> Metrics:
        with console.bar(f"{title} {arrays.name}", total=len(arrays)) as bar:
            return evaluate(
                parser,
                task,
                arrays,
                accelerator=accelerator,
                batch_size=options.batch_size,
                on_batch=bar.advance,
                change=change,
            )

    answers = {}
    if not isinstance(model, TrainingFree) and not options.held_out:
        answers = training_free_answers(
            data, [split.name], accelerator=accelerator, note=console.note
        )
    own = score(split)
    if others is not None and others.rows(name):
        figure = task.metric_of(own)
        pair = own.figures()[figure], score(others.split(name), "score others").figures()[figure]
        about["generalised"] = {
            "figure": figure,
            "unseen": pair[0],
            "seen": pair[1],
            "harmonic_mean": harmonic_mean(pair),
        }
    metrics, more = extras(options, task, data, split, own, score=score)
    content = results(
        identity={
            "task": task.name,
            "encoder": known.get("encoder") or model.config.encoder._type,
            "decoder": known.get("decoder") or model.config.decoder._type,
            "supervision": known.get("supervision") or task.config.supervision,
            "preset": known.get("preset"),
            "data": data.name,
            "synthetic": data.synthetic,
            "data_checksum": data.checksum,
            "seed": known.get("seed"),
        },
        selection=known.get("selection"),
        metrics={split.name: metrics},
        headline={split.name: task.metric_of(metrics)},
        answers=answers,
        extra={
            "presence": presence_of(task, {split.name: metrics}),
            **more,
            "parameters": count_parameters(model),
            **about,
            **({} if options.threshold is None else {"threshold": options.threshold}),
            **{name: known.get(name) for name in ("steps", "epochs", "batch_size", "precision")},
            "processes": accelerator.num_processes,
            "environment": describe(),
        },
    )
    if has_classes(content["details"][split.name]):
        content["by_class"] = {
            split.name: by_class(model, task, labels, chosen, content["details"][split.name])
        }
    for name in SPLITS:
        content.setdefault(name, None)
    if accelerator.is_main_process:
        show(console, content, [split.name])
        if "generalised" in about:
            console.note(about_generalised(about))
        if found := content.get("by_class", {}).get(split.name):
            words = (
                "the classes that were named" if options.held_out else "classes never trained on"
            )
            show_by_class(console, found, title=f"{split.name} segments, {words}, percent")
        show_extras(console, content, split.name, presence=options.presence)
        for file in write_extras(content, split.name, pages):
            console.note(f"wrote {file}")
        if options.predictions:
            place = expanded(options.predictions)
            place = place if place.suffix == ".safetensors" else place / f"{split.name}.safetensors"
            kept = Predictions.of(metrics, split=split.name, about=content, videos=videos_of(split))
            save_predictions(kept, place)
            console.note(f"wrote {place}")
        if options.json:
            give_json(options.json, content)
    leave(accelerator)
    return content


def training_free_model(
    options: EvalOptions, device: torch.device, console: Console
) -> TrainingFree:
    """Return the training-free model for the classes of the data.

    Raises:
        UsageError: no data are given, or options that need a trained model.
        DataError: the data hold no embeddings of CLIP and CLAP, or the weights are missing.
    """
    if options.unseen is not None:
        raise UsageError(f"{TRAINING_FREE} has no bank; leave --unseen out")
    if options.data in (None, "demo") or options.held_out:
        raise UsageError(
            f"{TRAINING_FREE} was trained on no data; "
            + (
                "leave --held-out out"
                if options.held_out
                else "give --data STORE, a store of embeddings of CLIP and CLAP"
            )
        )
    cache = None if options.cache_dir is None else expanded(options.cache_dir)
    path, _ = locate_store(options.data, cache, console.note)
    weights = parse_weights(options.weights)
    return open_for_data(Manifest.read(path).spec, weights=weights, device=device)


def about_held_out(about: dict[str, Any]) -> str:
    """Return a line that says which classes are scored and whether training saw any of them."""
    names = "; ".join(about["held_out"])
    seen = "; ".join(about["trained_on"])
    kind = (
        f"not zero-shot: the model was trained on {seen}"
        if seen
        else "zero-shot: the model was trained on none of them"
    )
    bank = f"; {about_bank(about)}" if "bank" in about else ""
    return f"scored on clips with {names}, chosen among {about['among']} classes; {kind}{bank}"


def about_bank(about: dict[str, Any]) -> str:
    """Return how classes are decided that the model was never trained on, by its bank."""
    return f"{CALIBRATED}, {ASSUMED[about['bank']['assumed']]}"


def about_generalised(about: dict[str, Any]) -> str:
    """Return a line with the figures on clips of the classes, and of other trained ones."""
    found = about["generalised"]
    kind = "classes that were held out" if about["zero_shot"] else "classes that were named"
    return (
        f"{found['figure']} among all classes: {found['unseen']:.1f} on clips with one of the "
        f"{kind}, {found['seen']:.1f} on clips of other classes of the training, harmonic mean "
        f"{found['harmonic_mean']:.1f}"
    )


def check_fits(model: AVModel, data: Data) -> None:
    """Raise DataError if the data do not have the features that the model reads."""
    if data.spec.features != model.config.features:
        raise DataError(
            f"the model reads {model.config.features} but '{data.name}' holds "
            f"{data.spec.features}; use data with the same features"
        )
