"""Cards of models: README.md with the metadata that the Hub reads, rendered from `hub_cards`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from huggingface_hub import EvalResult
from huggingface_hub.repocard_data import eval_results_to_model_index

from avplatform.hub.card_data import (
    SYNTHETIC_TAG,
    clips_and_videos,
    data_of_card,
    features_of_card,
)
from avplatform.hub_cards.descriptions import about, segment_words, task_text
from avplatform.hub_cards.render import PLACEHOLDER, metadata_text, render
from avplatform.models.decoders import DECODERS
from avplatform.runs.results import reference_scores
from avplatform.tasks.avvp.metrics import STREAMS
from avplatform.tasks.metrics import selection_name
from avplatform.version import __version__

PIPELINE = "video-classification"
"""The nearest task on the Hub, which has none for events in time."""


CAPTIONS = {
    "curves.png": "Training loss, and the figure that selects the epoch",
    "per_class.png": "Scores of single classes on the test split",
    "timelines.png": "Events of a few test clips: truth, and below it the prediction",
}
"""What the pictures of a run show."""

CLOSED = (
    "It has one output per class of the training and never finds one of the unseen classes of "
    "these data: on their clips it can only be right where there is no event."
)
ONE_SPACE = (
    "It compares features and label texts in one space, and finds classes that it was never "
    "trained on only if the vectors of their texts come from the same joint model as the features; "
    "so far this was measured on simulated features alone (`docs/ovavel.md` of avplatform)."
)
RANKED = (
    "A label that it was never trained on is ranked: seconds that hold it mostly score higher than "
    "others. By the model's own scores it is hardly ever decided."
)
WITH_BANK = (
    "With the bank below it is found in clips that do hold such a label, and clips that hold none "
    "pay for it; so it matters what the bank is told to assume (`--unseen`)."
)
WITHOUT_BANK = (
    "A bank (`avplatform bank`), which this model lacks, finds it in clips that do hold such a "
    "label, and clips that hold none pay for it."
)
MEASURED = (
    "So far this was measured on simulated features alone (`docs/zero_shot.md` of avplatform)."
)
"""What a model makes of classes without a training clip, by its decoder and its bank."""

SCHEDULES = {
    "epoch_decay": ("factor", "every"),
    "milestones": ("factor", "milestones"),
    "step_decay": ("factor", "every"),
    "warmup_cosine": ("warmup_epochs", "min_ratio"),
    "late_decay": ("factor", "after"),
}
"""The options that each schedule of the learning rate reads."""


def render_model_card(
    results: dict[str, Any],
    config: dict[str, Any],
    repo_id: str | None = None,
    *,
    plots: Sequence[str] = (),
) -> str:
    """Return README.md of a model: metadata with test results, how to use it, how it was trained.

    Args:
        results: the content of results.json.
        config: the model's config as a dictionary.
        repo_id: the repository that the example loads from; default: a placeholder that `push_run`
            replaces.
        plots: names of the pictures in the folder `plots` beside the card.
    """
    splits = [split for split in ("validation", "test") if results.get(split)]
    names = list(dict.fromkeys(name for split in splits for name in results[split]))
    task = task_text(results["task"])
    rivals = reference_scores(results, splits[-1]) if splits else {}
    origins = results.get("label_origins") or {}
    parts = (results["task"], results["encoder"], results["decoder"])
    inputs, confidence = _inputs(config), results.get("confidence") or {}
    intervals = confidence.get("test", {}) if splits[-1:] == ["test"] else {}
    interval_column = ["test interval"] if intervals else []
    sentences, citations = about(*parts, config, origins)
    return render(
        "model_card.md.jinja",
        metadata=metadata_text(_model_metadata(results)),
        encoder=results["encoder"],
        decoder=results["decoder"],
        task_title=task.title,
        about=sentences,
        synthetic=results["synthetic"],
        data=results["data"],
        splits=splits,
        columns=[
            *splits,
            *interval_column,
            *(f"{splits[-1]}: {rival.replace('_', ' ')}" for rival in rivals),
        ],
        metric_names=names,
        scores={
            name: [
                *(_percent(results[split].get(name)) for split in splits),
                *(_interval(intervals.get(name)) for _ in interval_column),
                *(_percent(values.get(name)) for values in rivals.values()),
            ]
            for name in names
        },
        not_beaten=[
            f"On {split}: {sentence}"
            for split, sentences in (results.get("not_beaten") or {}).items()
            for sentence in sentences
        ]
        + _remarks(results)
        + ([clips_and_videos(confidence)] if intervals else []),
        plots=[(name, CAPTIONS.get(name, name)) for name in plots],
        features=features_of_card(results["task"], config, inputs, synthetic=results["synthetic"]),
        training_data=data_of_card(results),
        selection_sentence=_selection_sentence(results.get("selection") or {}),
        repo_id=repo_id or PLACEHOLDER,
        inputs=inputs,
        **_clip(config),
        decisions=task.decisions,
        recipe=_recipe(results) + _labels(config),
        command=results.get("environment", {}).get("command", ""),
        classes=[_marked(name, config) for name in config["classes"]],
        label_texts=[] if config.get("learned_labels") else config.get("label_texts"),
        citations=citations,
        bank=results.get("bank_clips"),
        vocabulary=_vocabulary(results, config),
    )


def render_converted_card(
    config: dict[str, Any],
    *,
    published: str,
    settings: list[tuple[str, Any, str, str]],
    repo_id: str | None = None,
    **source: Any,
) -> str:
    """Return README.md, without metrics, of a model that was converted from a published checkpoint.

    Args:
        config: the model's config as a dictionary.
        published: the title of the published model.
        settings: name, value, origin and reason of each option that the tensors' sizes do not tell.
        repo_id: the repository that the example loads from; default: a placeholder that `push_run`
            replaces.
        source: file, container, sha256, label_embeddings, precision and parameters of the weights.
    """
    name, encoder, decoder = config["task"], config["encoder"]["_type"], config["decoder"]["_type"]
    task = task_text(name)
    sentences, citations = about(name, encoder, decoder, config)
    metadata = {
        "library_name": "avplatform",
        "license": "other",
        "license_name": "of-the-authors",
        "pipeline_tag": PIPELINE,
        "tags": ["avplatform", "audio-visual", name, encoder, decoder, "converted"],
    }
    return render(
        "converted_card.md.jinja",
        metadata=metadata_text(metadata),
        published=published,
        settings=settings,
        encoder=encoder,
        decoder=decoder,
        task_title=task.title,
        about=sentences,
        repo_id=repo_id or PLACEHOLDER,
        inputs=_inputs(config),
        **_clip(config),
        decisions=task.decisions,
        classes=config["classes"],
        citations=citations,
        version=__version__,
        **source,
    )


def _model_metadata(results: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a model card, with the unrounded test metrics as a model index."""
    task, data, synthetic = results["task"], results["data"], results["synthetic"]
    metadata: dict[str, Any] = {
        "library_name": "avplatform",
        "license": "apache-2.0",
        "pipeline_tag": PIPELINE,
        "tags": ["avplatform", "audio-visual", task, results["encoder"], results["decoder"]]
        + ([SYNTHETIC_TAG] if synthetic else []),
    }
    hub = (results.get("training_data") or {}).get("hub") or {}
    if hub:
        metadata["datasets"] = [hub["repo"]]
    name = f"{data} (synthetic features)" if synthetic else data
    found = [
        EvalResult(
            task_type=PIPELINE,
            task_name=task_text(task).title,
            dataset_type=hub.get("repo", data),
            dataset_revision=hub.get("revision"),
            dataset_name=name,
            dataset_split="test",
            metric_type=metric,
            metric_name=f"test {metric} (%)",
            metric_value=value,
        )
        for metric, value in (results.get("test") or {}).items()
        if value is not None
    ]
    if found:
        title = f"{results['encoder']}-{results['decoder']}-{task}"
        metadata["model-index"] = eval_results_to_model_index(title, found)
    return metadata


def _remarks(results: dict[str, Any]) -> list[str]:
    """Return what the metrics remark on the figures of each split."""
    details = (results.get("details") or {}).items()
    return [f"On {split}: {text}" for split, d in details for text in (d or {}).get("remarks", ())]


def _selection_sentence(selection: dict[str, Any]) -> str:
    if not selection:
        return "How the epoch was chosen is not known."
    epoch, chosen = selection["epoch"], _chosen_by(selection)
    if selection["split"] == "test":
        return (
            f"Epoch {epoch} was **selected on the test split** ({chosen}), so the test figures are "
            "optimistic."
        )
    if selection["split"] == "none":
        return f"The last epoch ({epoch}) was kept."
    return f"Epoch {epoch} was selected on {selection['split']} ({chosen})."


def _chosen_by(selection: dict[str, Any]) -> str:
    return f"{selection_name(selection['metric'])} {_percent(selection.get('value'))}"


def _inputs(config: dict[str, Any]) -> list[tuple[str, list[int]]]:
    """Return the name and the shape of each input of one clip."""
    features = config["features"]
    inputs = [("audio", [features["audio_dim"]])]
    inputs.append(("visual", [*(features.get("map_size") or []), features["visual_dim"]]))
    if features.get("motion_dim"):
        inputs.append(("motion", [features["motion_dim"]]))
    return [(name, [1, _clip(config)["segments"], *shape]) for name, shape in inputs]


def _clip(config: dict[str, Any]) -> dict[str, Any]:
    """Return the segments in a clip of the model, and what clips and segments are in words."""
    segments, seconds = config.get("segments", 10), config.get("segment_seconds", 1.0)
    unit = segment_words(seconds)
    words = f"{'ten' if (segments, seconds) == (10, 1.0) else segments} {unit}"
    return {"segments": segments, "clip": words, "unit": unit}


def _recipe(results: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the rows of the training table, without those that the results do not contain."""
    environment = results.get("environment", {})
    rows = {
        "supervision": results.get("supervision"),
        "preset": results.get("preset"),
        "data checksum": results.get("data_checksum") and f"`{results['data_checksum']}`",
        "seed": results.get("seed"),
        "epochs, at most": results.get("epochs"),
        **{name.replace("_", " "): _made_by(made) for name, made in _origins(results)},
        "started from": _start(results.get("init_from")),
        "optimiser": _optimiser(results.get("optim")),
        "schedule": _schedule(results.get("schedule")),
        "optimiser steps": results.get("steps"),
        "clips per step": results.get("batch_size"),
        "processes": results.get("processes"),
        "precision": results.get("precision"),
        "parameters": results.get("parameters") and f"{results['parameters']:,}",
        "avplatform": environment.get("avplatform"),
        "torch": environment.get("torch"),
        "Python": environment.get("python"),
    }
    return [(name, value) for name, value in rows.items() if value is not None]


def _origins(results: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return how refined labels and noise ratios were made; see `Task.label_origins`."""
    return list((results.get("label_origins") or {}).items())


def _made_by(made: dict[str, Any]) -> str:
    """Return the rule behind refined labels, and the model it asked or the classes it drops."""
    told = [f"by `{made['model']}`"] if made.get("model") else []
    told += [f"no {name} label of {', '.join(made[name])}" for name in STREAMS if made.get(name)]
    told += [f"file `{made['file']}`"] if made.get("file") else []
    return " ".join([made.get("rule", "unknown rule"), *told])


def _optimiser(optim: Mapping[str, Any] | None) -> str | None:
    if not optim:
        return None
    told = [optim["name"], f"learning rate {optim['lr']:g}"]
    told += [f"weight decay {optim['weight_decay']:g}"] if optim["weight_decay"] else []
    told += [f"gradients clipped to {optim['clip_norm']:g}"] if optim["clip_norm"] else []
    return ", ".join(told)


def _schedule(schedule: Mapping[str, Any] | None) -> str | None:
    if not schedule:
        return None
    name = schedule["name"]
    return ", ".join([name, *(f"{key} {schedule[key]}" for key in SCHEDULES.get(name, ()))])


def _start(start: dict[str, Any] | None) -> str | None:
    """Return what the weights started from, or None if they started from random numbers."""
    if not start:
        return None
    tensors = start["taken"] + len(start["new"])
    frozen = "" if start["frozen"] == "none" else f"; {start['frozen']} frozen"
    scale = start.get("scale", 1)
    scaled = "" if scale == 1 else f"; their matrices begin at {scale:g} of their values"
    return (
        f"`{start['source']}` (sha256 `{start['sha256'][:12]}`): {start['taken']} of {tensors} "
        f"tensors taken over{scaled}{frozen}"
    )


def _labels(config: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the row of the training table about the source of the label embeddings."""
    source = config.get("label_source")
    if not source:
        return []
    parts = [
        f"{source['kind']}: {source['name']}" if source.get("name") else source["kind"],
        f"width {config['label_dim']}",
    ]
    told = ("pooling", "revision", "rows", "start")
    parts += [f"{key} {source[key]}" for key in told if source.get(key)]
    if prompts := source.get("prompts"):
        parts.append(f"mean over the prompts {', '.join(repr(prompt) for prompt in prompts)}")
    digests = source.get("sha256") or {}
    parts += [
        f"{name} sha256 {digest[:12]}"
        for name, digest in digests.items()
        if not name.endswith((".json", ".txt"))
    ]
    parts += [f"{name} {version}" for name, version in (source.get("versions") or {}).items()]
    return [("label embeddings", "; ".join(parts))]


def _vocabulary(results: dict[str, Any], config: dict[str, Any]) -> list[str]:
    """Return sentences on what the model makes of classes that it was never trained on."""
    decoder = DECODERS.get(results["decoder"])
    if decoder is None or config.get("learned_labels"):
        return []
    if not decoder.needs_labels:
        groups = [(d or {}).get("groups") or {} for d in (results.get("details") or {}).values()]
        return [CLOSED] if any(found.get("unseen") for found in groups) else []
    options = config.get("decoder")
    if options and decoder.texts_as_wide(SimpleNamespace(**options)):
        return [ONE_SPACE]
    return [RANKED, WITH_BANK if results.get("bank_clips") else WITHOUT_BANK, MEASURED]


def _marked(name: str, config: dict[str, Any]) -> str:
    """Return the name of a class, with the mark of those that no training clip held."""
    held = config.get("training_clips", {}).get(name, 1)
    return name if held else f"{name} (never trained on)"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _interval(found: dict[str, float] | None) -> str:
    return "-" if found is None else f"{found['low']:.2f}–{found['high']:.2f}"
